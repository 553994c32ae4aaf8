"""`python -m local_test VERB`: the verbs that `make` calls."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
from pathlib import Path

from local_test.arguments import pair
from local_test.conformance import add_arguments, conformance
from local_test.doctor import add_arguments as add_doctor_arguments
from local_test.doctor import doctor
from local_test.emulator import train
from local_test.load.command import add_arguments as add_load_arguments
from local_test.load.command import load
from local_test.run import prepare, run
from local_test.runners import Containers, Platform, Processes
from local_test.soak.sections import soak
from local_test.validation import add_arguments as add_validation_arguments
from local_test.validation import validate

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run one verb and return its exit code."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: whatever was started is stopped on the way out
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except (OSError, RuntimeError, shutil.Error) as error:
        print(f"{arguments.verb}: {error}", file=sys.stderr)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    if arguments.verb == "conformance":
        return conformance(arguments)
    if arguments.verb == "doctor":
        return doctor(arguments)
    if arguments.verb == "load":
        return load(arguments)
    if arguments.verb == "validate":
        return validate(arguments)
    hyperparameters = dict(arguments.hyperparameter)
    platform: Platform = Containers(arguments.image) if arguments.image else Processes()
    if arguments.verb == "soak":
        return soak(arguments.data, arguments.image, "docker", ROOT / "docs" / "measured.md", arguments.sections)
    if isinstance(platform, Containers):
        platform.check()
    if arguments.verb == "run":
        return run(platform, arguments.base, arguments.data, hyperparameters)
    return _serve(platform, arguments, hyperparameters)


def _serve(platform: Platform, arguments: argparse.Namespace, hyperparameters: dict[str, str]) -> int:
    """Train, then become `serve`; the port is tried first, since a model trained in vain is a lost one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("", int(os.environ.get("PORT") or 8080)))
    prepare(arguments.base, arguments.data, hyperparameters)
    outcome = train(platform, arguments.base)
    print(outcome.output, flush=True)
    if outcome.exit_code == 0:
        os.environ["SAGEMAKER_BASE_DIR"] = str(arguments.base)
        os.execv(sys.executable, [sys.executable, str(ROOT / "container" / "serve")])
    return outcome.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_test", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (("run", "train, serve, call, stop"), ("serve", "train, then serve until Ctrl-C"), ("soak", "measure")):
        added = verbs.add_parser(verb, help=text)
        added.add_argument("--data", type=Path, default=ROOT / "model" / "sample", help="folder of the training channel")
        added.add_argument("--base", type=Path, default=ROOT / "build" / "ml", help="where /opt/ml is laid out; emptied first")
        added.add_argument("--hyperparameter", action="append", default=[], type=pair, metavar="NAME=VALUE")
        added.add_argument("--sections", nargs="*", default=[], help=argparse.SUPPRESS if verb != "soak" else "only these")
        added.add_argument("--image", default="", help="run this image's containers instead of the source tree")
    add_arguments(verbs.add_parser("conformance", help="judge any image by the platforms' rules"))
    add_doctor_arguments(verbs.add_parser("doctor", help="tell why an image would fail on the platform"))
    add_load_arguments(verbs.add_parser("load", help="measure throughput and latency beside a bare server's and others'"))
    add_validation_arguments(
        verbs.add_parser("validate", help="run the two jobs of a product's certification, note what is seen")
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
