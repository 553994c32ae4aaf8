"""What the drivers share: the account of a rehearsal, and checks of the SDK's answers. Standard library only."""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from local_test import payloads

REGION = "us-east-1"  # L-2: the SDK wants a Region, no credentials
ROLE = "arn:aws:iam::111122223333:role/local"  # L-3: a full ARN; a bare name would be looked up in IAM
CHANNEL, HELD_OUT = "training", "validation"
HELD_OUT_EACH = 5
SCORE_BOUND = 0.25
"""How far several hosts may be off the score of one, as a share of it: 102 rows of the sample are as noisy as that."""

Untyped: TypeAlias = Any
"""What JSON holds, or an object of the SDK's, which has no types worth naming."""


class LocalModeError(Exception):
    """Something is not as the contract says; the message says what was found and what was expected."""


@dataclass
class Account:
    """What was done, step by step: printed as it happens, and kept for `--json`."""

    out: TextIO
    steps: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Time one step; what the caller puts into the yielded dict is printed below it."""
        facts: dict[str, Any] = {}
        self.steps.append({"step": name, "right": False})
        start = time.monotonic()
        yield facts
        self.steps[-1].update(right=True, seconds=round(time.monotonic() - start, 2), **facts)
        print(f"{self.steps[-1]['seconds']:7.2f} s  {name}", file=self.out)
        for fact, value in facts.items():
            print(textwrap.indent(f"{fact}: {value}".rstrip(), " " * 11), file=self.out)

    def attempt(self, name: str, do: Callable[[], str]) -> bool:
        """Do one step, keep what it says, or how it failed, as `said`, and go on; say whether it was done."""
        try:
            with self.step(name) as facts:
                facts["said"] = do()
        except Exception as error:  # whatever the SDK raises is what the step came to
            said = str(error) if isinstance(error, LocalModeError) else f"{type(error).__name__}: {error}"
            self.steps[-1].update(said=said)
            print(f" failed    {name}", textwrap.indent(f"said: {said}", " " * 11), sep="\n", file=self.out)
        return bool(self.steps[-1]["right"])


@dataclass
class Job:
    """What a rehearsal works on."""

    image: str
    data: Path
    """A copy: local mode mounts channels writable (L-5)."""
    root: Path
    """Everything the SDK and the containers write is below it."""
    hyperparameters: dict[str, str]
    hosts: int
    """How many containers the fit over several hosts takes."""
    port: int
    account: Account
    options: argparse.Namespace
    """The command line's."""

    @property
    def environ(self) -> dict[str, str]:
        """What the image's owner wants in the environment: a new one each time, as the SDK adds to it."""
        return dict(getattr(self.options, "env", ()))

    def folder(self, name: str) -> Path:
        """Return a fresh folder below the root."""
        path = self.root / name
        path.mkdir()
        return path

    def local_config(self) -> dict[str, Any]:
        """Return what goes into `LocalSession.config` (L-4)."""
        containers = str(self.folder("containers"))
        return {"local": {"serving_port": self.port, "container_root": containers, "region_name": REGION}}


def csv_predictions(body: str) -> list[Any]:
    """Return the first cell of each line, as text; a class's probabilities follow it."""
    return [row[0] for row in csv.reader(io.StringIO(body))]


def json_predictions(body: str) -> list[Any]:
    """Return the predictions of a JSON answer."""
    return [prediction_of(value) for value in json.loads(body)["predictions"]]


def jsonlines_predictions(body: str) -> list[Any]:
    """Return the predictions of a JSON Lines answer."""
    return [prediction_of(json.loads(line)["prediction"]) for line in body.splitlines()]


FORMATS: Mapping[str, tuple[Callable[[dict[str, Any]], bytes], Callable[[str], list[Any]]]] = {
    "text/csv": (payloads.csv_body, csv_predictions),
    "application/json": (payloads.json_body, json_predictions),
    "application/jsonlines": (payloads.jsonlines_body, jsonlines_predictions),
}


def prediction_of(value: Untyped) -> Untyped:
    """Return a number or a label, whichever the target is answered as."""
    return value["label"] if isinstance(value, dict) else value


def invoke_with_each_format(job: Job, manifest: dict[str, Any], invoke: Callable[[bytes, str], bytes]) -> None:
    """Send the manifest's three rows as CSV, JSON and JSON Lines; every answer must be the manifest's own."""
    for media_type, (encode, decode) in FORMATS.items():
        with job.account.step(f"invoke with {media_type}") as facts:
            answer = invoke(encode(manifest), media_type).decode()
            facts["answer"] = answer if len(answer) < 200 else f"{answer[:200]}.."
            check_predictions(predictions(answer, decode), expected_predictions(manifest), media_type)


def predictions(answer: str, decode: Callable[[str], list[Any]]) -> list[Any]:
    """Return an answer's predictions; raises LocalModeError with the answer where it can't be read."""
    try:
        return decode(answer)
    except (ValueError, LookupError, TypeError) as error:
        raise LocalModeError(f"The answer can't be read ({error!r}): {answer[:500]}") from error


def expected_predictions(manifest: Mapping[str, Any]) -> list[Any]:
    """Return what the manifest says of its own rows."""
    return [prediction_of(sample["prediction"]) for sample in manifest["samples"]]


def check_predictions(found: Sequence[Any], expected: Sequence[Any], where: str) -> None:
    """Compare one by one: labels equal, numbers to 1e-4 of the largest."""
    if len(found) != len(expected):
        raise LocalModeError(f"{where}: {len(found)} predictions came back for {len(expected)} rows.")
    tolerance = 1e-4 * max((abs(value) for value in expected if not isinstance(value, str)), default=0)
    for row, (left, right) in enumerate(zip(found, expected, strict=True), start=1):
        if left != right if isinstance(right, str) else not is_near(left, right, tolerance):
            raise LocalModeError(f"{where}: row {row} is {left!r}; the manifest says {right!r}.")


def is_near(found: str | float, expected: float, tolerance: float) -> bool:
    """Say whether a number, or a CSV cell, is within the tolerance; text and NaN are not."""
    try:
        return abs(float(found) - expected) <= tolerance
    except (TypeError, ValueError):
        return False


def read_manifest(model: Path) -> dict[str, Any]:
    """Return the manifest inside a `model.tar.gz`. A job goes on without its report: only the manifest tells."""
    with tarfile.open(model) as archive:
        names = archive.getnames()
        if "manifest.json" not in names:
            raise LocalModeError(f"model.tar.gz has no manifest.json; it has: {', '.join(names)}. Did `train` end well?")
        file = archive.extractfile("manifest.json")
        manifest: dict[str, Any] = json.load(file)  # type: ignore[arg-type]
    if not manifest["report"]["drawn"]:
        raise LocalModeError(f"The report is not drawn: {manifest['report']['why']}")
    return manifest


def split_rows(job: Job) -> tuple[Path, Path]:
    """Deal the data's rows out to two folders, each fifth held out; return both. Whoever trains on them measures alike."""
    training, held_out = job.folder(CHANNEL), job.folder(HELD_OUT)
    for path in job.data.glob("*.csv"):
        with path.open(newline="") as file:
            header, *rows = list(csv.reader(file))
        parts = {held_out: rows[::HELD_OUT_EACH], training: [row for n, row in enumerate(rows) if n % HELD_OUT_EACH]}
        for folder, part in parts.items():
            with (folder / path.name).open("w", newline="") as file:
                csv.writer(file).writerows([header, *part])
    return training, held_out


@dataclass(frozen=True)
class End:
    """How a host's container ended."""

    exit_code: int
    moment: str
    """In Docker's form, such as `2026-11-25T08:00:00.123456789Z`: what is later sorts later."""
    wrote: bool
    """Whether its log says that it has written the model."""


def check_ends(ends: Mapping[str, End]) -> str:
    """Check the containers of a job, its leader first: all ended well, the leader alone wrote (T-34) and ended first."""
    (leader, first), *others = ends.items()
    for host, end in ends.items():
        if end.exit_code:
            raise LocalModeError(f"The container {host} ended with exit code {end.exit_code}.")
        if end.wrote != (host == leader):
            raise LocalModeError(f"The container {host} says that it wrote a model: {end.wrote}; {leader} alone must.")
    for host, end in others:
        if end.moment < first.moment:  # compose then stops the leader, wherever it is
            raise LocalModeError(f"The container {host} ended at {end.moment}, before its leader did at {first.moment}.")
    return f"all with exit code 0, {leader} first, which alone wrote"


def check_scores(several: Untyped, one: Untyped) -> str:
    """Compare two manifests by the first metric over the held-out rows, which are the same: each host bins its own rows.

    It may differ by a quarter, or as far as the 95 % intervals of both overlap: few rows tell a class's loss badly.
    """
    name = next(name for name in one["metrics"] if name.startswith(HELD_OUT))
    there, here = several["metrics"][name], one["metrics"][name]
    bounds = [manifest.get("confidence", {}).get(name) for manifest in (several, one)]
    overlap = all(bounds) and max(bound["low"] for bound in bounds) <= min(bound["high"] for bound in bounds)
    if abs(there - here) > SCORE_BOUND * abs(here) and not overlap:
        raise LocalModeError(f"Several hosts come to {name} {there:.4g}, one to {here:.4g}: that is too far off.")
    return f"{name} {there:.4g}, on one host {here:.4g}"


def write_batch(job: Job, manifest: dict[str, Any], name: str, copies: int) -> tuple[Path, list[Any]]:
    """Write a headerless CSV file of the sample rows for a transform job; return its folder and its answers, in order."""
    folder = job.folder(name)
    rows = [sample["row"] for sample in manifest["samples"]] * copies
    (folder / "rows.csv").write_bytes(payloads.csv_body(manifest, rows).rstrip(b"\n") + b"\n")
    return folder, expected_predictions(manifest) * copies


def check_batch(folder: Path, expected: Sequence[Any]) -> str:
    """Check a transform job's output: one record an input record, in order, no blank line (H-29, H-31); say so."""
    path = folder / "rows.csv.out"
    if not path.exists():
        raise LocalModeError(f"The transform job left no {path.name}, only {sorted(p.name for p in folder.iterdir())}.")
    lines = path.read_text().removesuffix("\n").split("\n")
    if "" in lines:
        where = f"{path.name}: line {lines.index('') + 1} of {len(lines)} is blank."
        raise LocalModeError(f"{where} AssembleWith=Line puts a newline after each answer: end it without one (H-31).")
    # The SDK writes whatever came back, an error's body too, and calls the job Completed.
    check_predictions(predictions("\n".join(lines), csv_predictions), expected, path.name)
    return f"{len(lines)} for {len(expected)} rows, in order, no blank line"
