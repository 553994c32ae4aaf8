"""The programs of local_test that `publish check` runs: they play the platform, and their JSON is read.

`validate` notes what the certification's two jobs do; `conformance` judges by the platforms' rules.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from deploy.errors import Unscanned
from deploy.market.verdicts import Status, Verdict
from deploy.programs import environ, read_json

LOCAL_TEST = (sys.executable, "-m", "local_test")


@dataclass(frozen=True)
class Rehearsed:
    """An image, and what it is tried with."""

    image: str
    engine: str
    data: Path
    """Folder of the channels that are not named."""
    channels: Mapping[str, str]
    records: Path
    """File of the transform job's input."""
    serves: bool = True
    """Whether the transform job is played, too."""
    model: Path | None = None
    """Served in place of what training leaves."""
    start_s: float = 480
    train_s: float = 3_600


def validation(given: Rehearsed, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what was seen of a request's validation profile, played with the image.

    Raises:
        Unscanned: it could not be played; what the program said stands above.
    """
    with tempfile.TemporaryDirectory(prefix="berth-check-") as folder:
        asked = Path(folder) / "request.json"
        asked.write_text(json.dumps(request))
        words = ["validate", given.image, "--request", str(asked), "--data", str(given.data)]
        words += ["--input", str(given.records)] if given.serves else []
        words += [word for channel in given.channels.items() for word in ("--channel", "=".join(channel))]
        facts = _told(given, [*words, "--train-seconds", str(given.train_s)])
    if not isinstance(facts, dict):
        raise Unscanned(f"The jobs of {given.image}'s validation could not be played; what was said stands above.")
    return facts


def conformance(given: Rehearsed, request: Mapping[str, Any], rules: Sequence[str]) -> list[Verdict]:
    """Return what the platforms' rules say that fail a product: Marketplace's and SageMaker's own (M-14).

    Args:
        given: the image.
        request: whose profile says the channel and the hyperparameters.
        rules: only these; all where none is named.

    Raises:
        Unscanned: nothing could be judged.
    """
    job = request["ValidationSpecification"]["ValidationProfiles"][0].get("TrainingJobDefinition", {})
    words = ["conformance", given.image, "--severity", "marketplace"]
    for channel in job.get("InputDataConfig", [])[:1]:
        name = channel["ChannelName"]
        words += ["--train-data", given.channels.get(name, str(given.data)), "--channel", name]
    words += ["--payload", str(given.records), *(word for rule in rules for word in ("--only", rule))]
    for pair in job.get("HyperParameters", {}).items():
        words += ["--hyperparameter", "=".join(pair)]
    found = _told(given, words)
    if not isinstance(found, list):
        raise Unscanned(f"{given.image} could not be judged by the platforms' rules; what was said stands above.")
    return [_verdict(one) for one in found if one["status"] in STATUSES]


STATUSES = {"passed": Status.KEPT, "failed": Status.BROKEN}
"""What `conformance` says; what is blocked there is so by what failed, and the rest does not concern the image."""


def _verdict(told: Mapping[str, Any]) -> Verdict:
    return Verdict(told["number"], told["title"], STATUSES[told["status"]], told["seen"], told["fix"], "rules")


def _told(given: Rehearsed, words: Sequence[str]) -> Any:
    """Run a program that speaks for itself; return the JSON that it writes, None without one."""
    with tempfile.TemporaryDirectory(prefix="berth-check-") as folder:
        path = Path(folder) / "told.json"
        more = ["--engine", given.engine, "--start-seconds", str(given.start_s), "--json", str(path)]
        more += ["--model", str(given.model)] if given.model else []
        command = [*LOCAL_TEST, *words, *more]
        done = subprocess.run(command, env=environ(), capture_output=True, text=True, check=False)  # noqa: S603
        told = read_json(path)
        if told is None:
            click.echo(f"{done.stdout}{done.stderr}", nl=False, err=True)
        return told
