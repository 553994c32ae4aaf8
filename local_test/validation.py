"""`validate`: the two jobs that AWS runs before it certifies a product (M-5), played here; it notes facts and judges nothing.

A training job without any network, then a server on a network that leads nowhere and a transform job. Each has marks in its
data that no log may hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from local_test.arguments import pair
from local_test.emulator import STOP_SERVING_S, Endpoint, Reply, stop
from local_test.emulator.jobs import TrainingJob
from local_test.emulator.transform import TransformJob, transform
from local_test.runners import Containers, Launch

MARK = "000731941"
"""Behind the last digit of some numbers: so small a change that no model minds, and found wherever a value is printed."""
DECIMAL = re.compile(r"(?<![\w.])-?\d+\.\d+(?![\w.])")
TEXTS = {".csv", ".json", ".jsonl", ".jsonlines"}
ENOUGH_PINGS = 20
LATE_PINGS = 3
"""So many pings without an answer within 2 s in a row are no start any more."""
DESCRIBE_S = 60
MOST_PRINTED = 200_000
"""Characters of a log that are noted."""
MOST_MARKED, AROUND = 20, 100
"""Of the rest so many lines with a mark, and so many characters on each side of it."""


def validate(arguments: argparse.Namespace) -> int:
    """Run what a request's one validation profile asks for, and write what was seen; return 0 whatever it was.

    Raises:
        RuntimeError: there is no such image.
        OSError: a file that was given can't be read.
    """
    containers = Containers(arguments.image, arguments.engine)
    containers.check()
    facts: dict[str, Any] = {"mark": MARK}
    with tempfile.TemporaryDirectory(prefix="berth-validate-", ignore_cleanup_errors=True) as name:
        played = Validation(containers, Path(name), json.loads(arguments.request.read_text()), arguments)
        if arguments.model:
            with tarfile.open(arguments.model) as archive:
                archive.extractall(played.model, filter="data")
        else:
            facts["described"] = played.describe()
            facts["training"] = played.train()
        if arguments.input and any(played.model.glob("*")):
            facts["serving"] = played.serve()
    arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


@dataclass(frozen=True)
class Validation:
    """One request's profile, and an image to play it with."""

    containers: Containers
    folder: Path
    request: Mapping[str, Any]
    arguments: argparse.Namespace

    @property
    def model(self) -> Path:
        """What training left."""
        return self.folder / "ml" / "model"

    @property
    def profile(self) -> Mapping[str, Any]:
        """Both jobs."""
        found: Mapping[str, Any] = self.request["ValidationSpecification"]["ValidationProfiles"][0]
        return found

    def describe(self) -> Any:
        """Return what `train --describe` prints; None where that is no JSON object."""
        with contextlib.suppress(RuntimeError, ValueError):
            program = self.containers.launch(Launch(("train", "--describe"), port=0))
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(DESCRIBE_S)
            if not program.ended:
                stop(program, 1)
            told = json.loads(program.output())
            return told if isinstance(told, dict) else None
        return None

    def train(self) -> dict[str, Any]:
        """Run the training job; return how it ended."""
        asked, given = self.profile["TrainingJobDefinition"], dict(self.arguments.channel)
        channels = {
            name: marked(Path(given.get(name, self.arguments.data)), self.folder / "data" / name)
            for name in (channel["ChannelName"] for channel in asked["InputDataConfig"])
        }
        environ = {"TRAINING_JOB_NAME": "validation"}
        job = TrainingJob(self.containers, self.folder, channels, asked.get("HyperParameters", {}), environ=environ)
        try:
            outcome = job.run(limit_s=self.arguments.train_seconds)
        except RuntimeError as error:
            return {"exit_code": None, "failure": str(error), "output": "", "seconds": 0, "model": [], "changed": []}
        return {
            "exit_code": outcome.exit_code,
            "seconds": round(outcome.seconds, 1),
            "failure": outcome.failure[:2_000],
            "output": kept(outcome.output),
            "changed": list(outcome.changed),
            "model": sorted(str(path.relative_to(job.model)) for path in job.model.rglob("*") if path.is_file()),
        }

    def serve(self) -> dict[str, Any]:
        """Start the server as a transform job does, run the job, send what a buyer may send; return what came of it."""
        job = transform_job(self.profile["TransformJobDefinition"])
        environ = {**self.request["InferenceSpecification"]["Containers"][0].get("Environment", {}), **job.variables()}
        launch = Launch(environ=environ, mounts=(f"{self.model}:/opt/ml/model:ro",), watched=True)
        try:
            program = self.containers.launch(launch)
        except RuntimeError as error:
            return {"started": False, "why": str(error)}
        facts: dict[str, Any] = {"started": True}
        try:
            facts |= wait(Endpoint(program), self.arguments.start_seconds)
            if facts["ready_s"] is not None:
                facts |= self.ask(Endpoint(program), job)
        finally:
            began = time.monotonic()
            facts["stop_code"] = stop(program, STOP_SERVING_S)
            facts["stop_s"] = round(time.monotonic() - began, 1)
        return {**facts, "changed": program.changed, "output": kept(program.output())}

    def ask(self, endpoint: Endpoint, job: TransformJob) -> dict[str, Any]:
        """Ask a server that is ready for all that a product has to answer."""
        facts = pinged(endpoint)
        facts["parameters"] = answered(partial(endpoint.get, "/execution-parameters"))
        objects = marked(self.arguments.input, self.folder / "objects")
        facts["transform"] = transformed(endpoint, job, objects, self.folder / "answers")
        body = (objects / self.arguments.input.name).read_bytes()
        invoke = partial(endpoint.invoke, content_type=job.content_type)
        types = self.request["InferenceSpecification"]["SupportedResponseMIMETypes"]
        facts["answers"] = {accept: answered(partial(invoke, body, accept=accept)) for accept in types}
        facts["bad"] = answered(partial(invoke, re.sub(rb"[^,\n]+", f"no-number-{MARK}".encode(), body, count=1)))
        facts["largest"] = answered(partial(invoke, filled(body, self.arguments.most_mb)))
        return facts


def kept(log: str) -> str:
    """Return a log's end, and above it whatever of the rest has a mark."""
    rest, end = log[:-MOST_PRINTED], log[-MOST_PRINTED:]
    found = [re.search(rf".{{0,{AROUND}}}{MARK}.{{0,{AROUND}}}", line) for line in rest.splitlines() if MARK in line]
    return "".join(f"{match[0]}\n" for match in found[:MOST_MARKED] if match) + end


def wait(endpoint: Endpoint, patience_s: float) -> dict[str, Any]:
    """Wait for the first 200 of /ping; return when it came and what kept it."""
    began, last, late = time.monotonic(), "", 0
    while (passed_s := time.monotonic() - began) < patience_s and endpoint.program.is_running() and late < LATE_PINGS:
        try:
            reply = endpoint.ping()
        except TimeoutError:
            last, late = "no answer within 2 s", late + 1
        except OSError as error:
            last = "no answer within 2 s" if "timed out" in str(error) else f"{type(error).__name__}: {error}"
            late += last.startswith("no answer")
        else:
            if reply.status == 200:
                return {"ready_s": round(passed_s, 1), "why": ""}
            last, late = f"/ping answered {reply.status}", 0
        time.sleep(0.1)
    return {"ready_s": None, "why": last or "it ended at once"}


def pinged(endpoint: Endpoint) -> dict[str, Any]:
    """Ping some times; return how long the slowest answer took, and how many lines were printed meanwhile."""
    before = endpoint.program.output().count("\n")
    replies = [answered(endpoint.ping) for _ in range(ENOUGH_PINGS)]
    printed = endpoint.program.output().count("\n") - before
    return {"slowest_ping_s": max(reply["seconds"] for reply in replies), "pings": ENOUGH_PINGS, "ping_lines": printed}


def answered(ask: Callable[[], Reply]) -> dict[str, Any]:
    """Return what came of a request."""
    began = time.monotonic()
    try:
        reply = ask()
    except OSError as error:
        seconds = round(time.monotonic() - began, 2)
        return {"status": None, "seconds": seconds, "content_type": "", "bytes": 0, "text": f"{type(error).__name__}: {error}"}
    content_type = {name.lower(): value for name, value in reply.headers.items()}.get("content-type", "")
    seconds = round(reply.seconds, 2)
    return {
        "status": reply.status,
        "seconds": seconds,
        "content_type": content_type,
        "bytes": len(reply.body),
        "text": reply.text[:500],
    }


def transform_job(asked: Mapping[str, Any]) -> TransformJob:
    """Return a profile's transform job as the one that is played here."""
    source, target = asked["TransformInput"], asked["TransformOutput"]
    return TransformJob(
        content_type=source.get("ContentType", "text/csv"),
        accept=target.get("Accept", ""),
        split_type=source.get("SplitType", "None"),
        batch_strategy=asked.get("BatchStrategy"),
        max_payload_mb=asked.get("MaxPayloadInMB"),
        max_concurrent_transforms=asked.get("MaxConcurrentTransforms"),
        assemble_with=target.get("AssembleWith", "None"),
        environ=asked.get("Environment", {}),
    )


def transformed(endpoint: Endpoint, job: TransformJob, objects: Path, output: Path) -> dict[str, Any]:
    """Run the transform job; return each object's records and answers, and what failed."""
    began = time.monotonic()
    try:
        done = transform(endpoint, job, objects, output)
    except ValueError as error:
        return {"status": "Failed", "failures": {"the job": str(error)}, "objects": {}, "seconds": 0}
    counts = {path.name: (records(objects / path.stem), records(path)) for path in done.outputs}
    failures = {Path(name).name: why for name, why in done.failures.items()}
    seconds = round(time.monotonic() - began, 1)
    return {"status": done.status, "failures": failures, "objects": counts, "seconds": seconds}


def records(path: Path) -> int:
    """Return how many lines of an object hold something."""
    return sum(bool(line.strip()) for line in path.read_bytes().splitlines())


def marked(source: Path, target: Path) -> Path:
    """Copy a file or a folder and mark some numbers in it; return the folder of the copy."""
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        target.mkdir(parents=True)
        shutil.copy(source, target)
    for path in target.rglob("*"):
        if path.suffix in TEXTS:
            head, *lines = path.read_text().splitlines(keepends=True) or [""]
            path.write_text(
                head + "".join(DECIMAL.sub(rf"\g<0>{MARK}", line) if n < 3 else line for n, line in enumerate(lines))
            )
    return target


def filled(body: bytes, megabytes: float) -> bytes:
    """Return records again and again, up to a size."""
    size = int(megabytes * 1_000_000)
    return body * max(1, size // max(1, len(body)))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `validate` takes."""
    parser.add_argument("image", help="what to run")
    parser.add_argument("--request", type=Path, required=True, help="CreateAlgorithm's request, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="a folder for each channel that is not named")
    parser.add_argument("--channel", action="append", default=[], type=pair, metavar="NAME=FOLDER")
    parser.add_argument("--input", type=Path, help="a file for the transform job; without it nothing is served")
    parser.add_argument("--model", type=Path, help="a model.tar.gz to serve; then nothing is trained")
    parser.add_argument("--engine", default="docker", help="docker or podman")
    parser.add_argument("--train-seconds", type=float, default=3_600, help="how long the training job may take")
    parser.add_argument("--start-seconds", type=float, default=480, help="how long to wait for /ping (H-7)")
    parser.add_argument("--most-mb", type=float, default=25, help="size of the largest request that a buyer sends (M-11)")
    parser.add_argument("--json", type=Path, required=True, help="write what was seen here")
