"""What an owner gives of an image on the command line, for `conformance` and `doctor` alike."""

from __future__ import annotations

import argparse
from pathlib import Path

from local_test.given import Payload
from local_test.runners import Containers, Processes


def add_what_is_given(parser: argparse.ArgumentParser, *, what: str, without_data: str, train_s: float) -> None:
    """Declare the image, its data, model and payload, and how long to wait for it."""
    parser.add_argument("image", nargs="?", default="", help=f"what {what}; this source tree, as processes, without one")
    parser.add_argument("--engine", default="docker", help="docker or podman")
    parser.add_argument("--train-data", type=Path, help=f"a folder for the training channel; without it {without_data}")
    parser.add_argument("--channel", default="training", help="that channel's name")
    parser.add_argument("--hyperparameter", action="append", default=[], type=pair, metavar="NAME=VALUE")
    parser.add_argument("--env", action="append", default=[], type=pair, metavar="NAME=VALUE", help="for the container")
    parser.add_argument("--model", type=Path, help="a model.tar.gz to serve in place of what training leaves")
    parser.add_argument("--payload", type=Path, help="a file with a request that is to be answered with 200")
    parser.add_argument("--content-type", default="text/csv", help="the payload's media type")
    parser.add_argument("--start-seconds", type=float, default=60, help="how long to wait for the first 200 of /ping")
    parser.add_argument("--train-seconds", type=float, default=train_s, help="how long a training job may take")


def platform_of(arguments: argparse.Namespace, options: tuple[str, ...] = ()) -> Containers | Processes:
    """Return what runs the image, or the source tree where none was given.

    Raises:
        RuntimeError: there is no such image.
    """
    if not arguments.image:
        return Processes()
    containers = Containers(arguments.image, arguments.engine, options)
    containers.check()
    return containers


def payload_of(arguments: argparse.Namespace) -> Payload | None:
    """Return the payload that was given; raises OSError where its file can't be read."""
    return Payload(arguments.payload.read_bytes(), arguments.content_type) if arguments.payload else None


def pair(text: str) -> tuple[str, str]:
    """Return an argument's name and value."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as estimator=ridge")
    return name, value
