"""What training costs as the rows grow, beside a bare script that only reads, fits and dumps the same rows.

`python -m local_test.soak.growth --rows 10000 100000` prints the table; `make soak` writes it to docs/measured.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from contract.manifest import read_manifest
from local_test.emulator import lay_out
from local_test.procfs import resident_mb
from local_test.runners import ROOT
from local_test.soak.measured import Table

SAMPLE_S = 0.1
FIXED_MB = 350
COLUMNS = (
    "estimator",
    "rows",
    "bare script: s",
    "train: s",
    "ratio",
    "bare script: MB",
    "train: MB",
    "ratio",
    "foretold: MB",
    "with checkpoints: ratio",
)
COLUMNS_OF_ROWS = ("CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT", "MEDV")
DESCRIBE = """
import json, sys, joblib
estimator = joblib.load(sys.argv[1]).steps[-1][1]
print(json.dumps([type(estimator).__module__, type(estimator).__name__, estimator.get_params()]))
"""
BARE = """
import importlib, json, sys, joblib, pandas
module, name, parameters, features, target, rows = json.loads(sys.argv[3])
frame = pandas.read_csv(sys.argv[1]).head(rows)
estimator = getattr(importlib.import_module(module), name)(**parameters).fit(frame[features], frame[target])
joblib.dump(estimator, sys.argv[2])
"""


PHASES = (
    ("from start: Python, scikit-learn, the rows", "data: "),
    ("fit, in a child", "fit: [0-9]"),
    ("skl2onnx and the rest, ONNX, parity", "export: "),
    ("metrics and their bounds, the report", "report: "),
    ("the files, the end", "$"),
)
"""What `train` does until it prints a line that begins so."""


@dataclass(frozen=True)
class Cost:
    """What a program took: seconds, and MB of all its processes together at the peak, shared pages counted once."""

    seconds: float
    peak_mb: float


def growth_of_rows(sizes: Sequence[int], folder: Path, rounds: int = 3) -> Table:
    """Return title, command, columns and rows of the table in docs/measured.md; of more than 10^6 rows one round is run."""
    rows = [
        measure(size, estimator, rounds if size <= 1_000_000 else 1, folder)
        for size in sizes
        for estimator in ("hist_gradient_boosting", "lightgbm")
    ]
    title = "Training beside a script that does only `read_csv`, `fit` and `dump` on the same rows"
    return title, "make soak SECTIONS=rows", COLUMNS, rows


def measure(rows: int, estimator: str, rounds: int, folder: Path) -> list[str]:
    """Return a row of the table: medians of interleaved rounds, ratios taken within a round.

    Memory is watched in a round of its own, since looking at it takes time from who is looked at.
    """
    base, data = folder / f"{estimator}-{rows}", folder / f"data-{rows}"
    if not data.exists():
        write_rows(data, rows)
    lay_out_rows(base, data, {"estimator": estimator})
    train = [sys.executable, str(ROOT / "container" / "train")]
    image_like = {"PYTHONPATH": str(_without_pyarrow(folder))}
    environ = {"SAGEMAKER_BASE_DIR": str(base), **image_like}
    plain_mb = run(train, environ, watch=True).peak_mb
    bare_mb = run(_bare_script(base, data / "rows.csv"), image_like, watch=True).peak_mb
    runs = []
    for _ in range(rounds):
        config = base / "input" / "config" / "checkpointconfig.json"
        config.unlink(missing_ok=True)
        plain, bare = run(train, environ), run(_bare_script(base, data / "rows.csv"), image_like)
        config.write_text(json.dumps({"LocalPath": tempfile.mkdtemp(dir=folder)}))
        runs.append((bare.seconds, plain.seconds, run(train, environ).seconds))
    foretold = foretold_mb(rows, len(COLUMNS_OF_ROWS) - 1)
    return [estimator, f"{rows:,}", *_figures(runs, plain_mb, bare_mb, foretold)]


def foretold_mb(rows: int, features: int) -> float:
    """Return the memory that `train` needs at most on one host, before it is started, as docs/scaling.md says.

    A row is held as float32 and its target as float64; boosting bins a float64 copy of it, or holds 16 bytes more.
    """
    return FIXED_MB + rows * (4 * features + 8 + 9 * features + 8) / 1e6


def cost_of_sample(data: Path, folder: Path, rounds: int = 7) -> Table:
    """Return title, command, columns and rows of a table of where a small job's seconds go, beside a bare script's; medians."""
    base, image_like = folder / "sample", {"PYTHONPATH": str(_without_pyarrow(folder))}
    lay_out(base, {"training": data}, {})
    train, environ = [sys.executable, str(ROOT / "container" / "train")], {"SAGEMAKER_BASE_DIR": str(base), **image_like}
    run(train, environ)
    script = _bare_script(base, next(data.glob("*.csv")))
    rows = [[run(script, image_like).seconds, *_laps(train, environ)] for _ in range(rounds)]
    bare, *phases = (statistics.median(column) for column in zip(*rows, strict=True))
    whole = statistics.median(sum(laps) for _, *laps in rows)
    over = statistics.median(sum(laps) - alone for alone, *laps in rows)
    table = [["the bare script", f"{bare:.2f}"], ["train", f"{whole:.2f}"], ["**more than the script**", f"**{over:.2f}**"]]
    table += [[what, f"{seconds:.2f}"] for (what, _), seconds in zip(PHASES, phases, strict=True)]
    return f"A job of the sample, medians of {rounds}", "make soak SECTIONS=sample", ["", "s"], table


def _laps(command: Sequence[str], environ: Mapping[str, str]) -> list[float]:
    """Return how long each phase of a job took."""
    laps, signs = [time.monotonic()], [sign for _, sign in PHASES]
    with subprocess.Popen(command, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout or ():
            if re.match(signs[len(laps) - 1], line):
                laps.append(time.monotonic())
    if program.returncode or len(laps) != len(signs):
        raise RuntimeError(f"{command[:2]} ended with exit code {program.returncode} after {len(laps) - 1} phases")
    return [after - before for before, after in pairwise([*laps, time.monotonic()])]


def lay_out_rows(base: Path, data: Path, hyperparameters: Mapping[str, str]) -> None:
    """Make the /opt/ml of a job whose training channel is a folder as it stands, without a copy."""
    lay_out(base, {}, hyperparameters)
    (base / "input" / "data" / "training").symlink_to(data)
    (base / "input" / "config" / "inputdataconfig.json").write_text('{"training": {"TrainingInputMode": "FastFile"}}')


def _figures(runs: Sequence[tuple[float, float, float]], train_mb: float, bare_mb: float, foretold: float) -> list[str]:
    def median(values: Sequence[float], digits: int) -> str:
        return f"{statistics.median(values):.{digits}f}"

    return [
        median([bare for bare, _, _ in runs], 1),
        median([plain for _, plain, _ in runs], 1),
        median([plain / bare for bare, plain, _ in runs], 2),
        f"{bare_mb:.0f}",
        f"{train_mb:.0f}",
        f"{train_mb / bare_mb:.2f}",
        f"{foretold:.0f}",
        median([kept / bare for bare, _, kept in runs], 2),
    ]


def write_rows(folder: Path, rows: int, seed: int = 0) -> None:
    """Write one CSV file of made-up housing: the sample's columns and ranges, a target that depends on them, and noise."""
    import pyarrow as pa  # in the tests' environment alone
    from pyarrow.csv import CSVWriter

    folder.mkdir(parents=True)
    chance = np.random.default_rng(seed)
    schema = pa.schema([(name, pa.float64()) for name in COLUMNS_OF_ROWS])
    with CSVWriter(folder / "rows.csv", schema) as writer:
        for first in range(0, rows, 500_000):
            writer.write_batch(pa.record_batch(_block(chance, min(500_000, rows - first)), schema=schema))


def _block(chance: np.random.Generator, rows: int) -> list[np.ndarray[Any, Any]]:
    chas = (chance.random(rows) < 0.07).astype(np.float64)
    rm = chance.normal(6.3, 0.7, rows).round(3)
    tax = chance.integers(187, 712, rows).astype(np.float64)
    ptratio = chance.uniform(12.6, 22, rows).round(1)
    b = chance.uniform(0, 396.9, rows).round(2)
    lstat = np.clip(chance.gamma(2.5, 5, rows), 1.7, 38).round(2)
    worth = 9 * rm - 0.6 * lstat - 0.9 * ptratio - 0.01 * tax + 3 * chas + 5 * np.sin(rm) * np.log(lstat)
    return [chas, rm, tax, ptratio, b, lstat, (worth + chance.normal(0, 2.5, rows)).round(1)]


def _without_pyarrow(folder: Path) -> Path:
    """Return a folder of modules that hides pyarrow: the tests need it, the image has none, and pandas would load it."""
    hidden = folder / "hidden"
    hidden.mkdir(exist_ok=True)
    (hidden / "pyarrow.py").write_text('raise ImportError("The image has no pyarrow.")')
    return hidden


def _bare_script(base: Path, data: Path) -> list[str]:
    """Return the command that reads the same file, fits the estimator that `train` has fitted on as many rows, and dumps it."""
    described = subprocess.run(
        [sys.executable, "-c", DESCRIBE, str(base / "model" / "model.joblib")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    manifest = read_manifest(base / "model")
    declaration, rows = manifest.declaration, manifest.data["train_rows"]
    about = [*json.loads(described.stdout), declaration.feature_names, declaration.target.name, rows]
    return [sys.executable, "-c", BARE, str(data), str(base / "bare.joblib"), json.dumps(about)]


def run(command: Sequence[str], environ: Mapping[str, str], watch: bool = False) -> Cost:
    """Run a program to its end and return its cost; its memory only where it is to be watched.

    Raises:
        RuntimeError: it failed; the message has what it printed.
    """
    started, peak = time.monotonic(), 0.0
    with tempfile.TemporaryFile() as log:
        program = subprocess.Popen(command, env={**os.environ, **environ}, stdout=log, stderr=subprocess.STDOUT)
        while watch and program.poll() is None:
            peak = max(peak, resident_mb(program.pid))
            time.sleep(SAMPLE_S)
        program.wait()
        seconds = time.monotonic() - started
        if program.returncode:
            log.seek(0)
            raise RuntimeError(f"{command[:2]} ended with exit code {program.returncode}:\n{log.read().decode()[-3000:]}")
    return Cost(seconds, peak)


def main() -> int:
    """Print the table for the rows asked for."""
    parser = argparse.ArgumentParser(prog="python -m local_test.soak.growth", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--estimators", nargs="+", default=["hist_gradient_boosting", "lightgbm"])
    arguments = parser.parse_args()
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory(prefix="berth-growth-") as folder:
        for rows in arguments.rows:
            for estimator in arguments.estimators:
                print("| " + " | ".join(measure(rows, estimator, arguments.rounds, Path(folder))) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
