"""What stops and kills do to `train`: how long it goes on after a SIGTERM (T-27: 120 s, then SIGKILL), and what is lost.

`python -m local_test.soak.stops --rows 10000000` prints the table; `make soak` writes it to docs/measured.md.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from contract.errors import DamagedModel
from contract.manifest import read_manifest
from local_test.emulator import STOP_TRAINING_S
from local_test.runners import ROOT, Platform, Processes, Program
from local_test.soak.growth import lay_out_rows, write_rows
from local_test.soak.measured import Table

LEAST_S = 0.01
COLUMNS = ("stopped", "estimator", "rows", "s from the signal to the end", "exit code", "left")


@dataclass(frozen=True)
class Moment:
    """When to stop a job: some seconds after a sign in its log."""

    what: str
    hyperparameters: Mapping[str, str]
    sign: str
    after_s: float
    """On 10 million rows; on fewer in proportion."""


MOMENTS = (
    Moment("while reading", {}, "train: ", 2),
    Moment("in the fit", {}, "fit: begins", 20),
    Moment("in the fit", {"estimator": "lightgbm"}, "fit: begins", 20),
    Moment("in the fit", {"estimator": "mlp"}, "fit: begins", 90),
    Moment("in the fit", {"estimator": "random_forest", "max_depth": "10"}, "fit: begins", 200),
    Moment("in the first round of deep trees", {"estimator": "random_forest"}, "fit: begins", 10),
    Moment("in the cross-validation", {"max_iter": "5", "cv_folds": "5"}, "fit: 5 of 5 rounds", 5),
    Moment("after the fit", {"max_iter": "5"}, "fit: 5 of 5 rounds", 0),
    Moment("while reporting", {"max_iter": "5"}, "export: ", 0),
    Moment("in the search", {"estimator": "auto", "search_seconds": "3600"}, "search: bracket 0", 0),
)


def stops_of_rows(rows: int, folder: Path) -> Table:
    """Return title, command, columns and rows of the table in docs/measured.md."""
    title = f"`train` stopped on {rows:,} rows"
    return title, "make soak SECTIONS=stops", COLUMNS, list(measure(rows, folder))


def kills(count: int) -> Table:
    """Kill jobs of every estimator at random moments and start each again; return a table of what was lost."""
    said = pytest_says({"KILLS": str(count)}, "-rP", "tests/test_checkpoints.py", "-k", "random_moment")
    rows = [list(found) for found in re.findall(r"^kills: (\w+): (.*)$", said, re.MULTILINE)]
    rows.append(["pytest says, of models the same byte for byte", said.splitlines()[-1]])
    title = "Jobs killed at random moments and started again"
    return title, "make soak SECTIONS=kills", ("estimator", "what came of it"), rows


def pytest_says(environ: Mapping[str, str], *words: str) -> str:
    """Return what a run of tests prints; none of them is ended for taking long."""
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=0", *words]
    done = subprocess.run(command, env={**os.environ, **environ}, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def measure(
    rows: int, folder: Path, platform: Platform | None = None, moments: Sequence[Moment] = MOMENTS
) -> Iterator[list[str]]:
    """Yield a row of the table for each moment."""
    data = folder / f"data-{rows}"
    if not data.exists():
        write_rows(data, rows)
    for number, moment in enumerate(moments):
        base = folder / f"stop-{number}"
        lay_out_rows(base, data, moment.hyperparameters)
        program = (platform or Processes()).start("train", base, {})
        _wait_for(moment.sign, program)
        time.sleep(moment.after_s * rows / 10_000_000)
        seconds, code = _stop(program)
        estimator = moment.hyperparameters.get("estimator", "hist_gradient_boosting")
        yield [moment.what, estimator, f"{rows:,}", f"{seconds:.1f}", str(code), _left(base)]


def _wait_for(sign: str, program: Program) -> None:
    """Wait until the log has the sign, or the program has ended."""
    while sign not in program.output():
        try:
            code = program.wait(LEAST_S)
        except subprocess.TimeoutExpired:
            continue
        raise RuntimeError(f"train ended with exit code {code} before it printed {sign!r}:\n{program.output()}")


def _stop(program: Program) -> tuple[float, int]:
    started = time.monotonic()
    program.signal(signal.SIGTERM)
    try:
        code = program.wait(STOP_TRAINING_S)
    except subprocess.TimeoutExpired:
        program.signal(signal.SIGKILL)
        code = program.wait()
    return time.monotonic() - started, code


def _left(base: Path) -> str:
    try:
        origin = read_manifest(base / "model").origin
    except DamagedModel:
        failure = base / "output" / "failure"
        return failure.read_text().strip() if failure.exists() else "nothing"
    return "a model, stopped early" if origin["stopped_early"] else "the model"


def main() -> int:
    """Print the table for the rows asked for."""
    parser = argparse.ArgumentParser(prog="python -m local_test.soak.stops", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--only", default="", help="moments whose estimator or name has this in it")
    arguments = parser.parse_args()
    chosen = [moment for moment in MOMENTS if arguments.only in f"{moment.what} {moment.hyperparameters}"]
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory(prefix="berth-stops-") as folder:
        for row in measure(arguments.rows, Path(folder), moments=chosen):
            print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
