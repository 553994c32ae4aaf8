"""What an export for devices keeps of a model: held-out and cross-validated figures of teacher, student and int8."""

from __future__ import annotations

import csv
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import KFold

from contract.edge import INT8, EdgeManifest, read_edge_manifest
from contract.manifest import Manifest, read_manifest
from local_test.emulator import lay_out, train
from local_test.runners import ROOT, Processes
from local_test.soak.measured import Table

ESTIMATORS = ("ridge", "random_forest", "hist_gradient_boosting")
COLUMNS = ("estimator", "rows", "R2: model", "student", "int8", "MAE: model", "student", "int8", "int8 less student: R2",
           "bytes", "us a row")  # fmt: skip


@dataclass(frozen=True)
class Figures:
    """Of one export, on the rows that its model did not learn from."""

    r2: tuple[float, float, float]
    """Of the model, the student and the int8 file."""
    mae: tuple[float, float, float]
    size_bytes: int
    us_per_row: float


def on_devices(data: Path, folder: Path, estimators: Sequence[str] = ESTIMATORS, folds: int = 5) -> Table:
    """Return title, command, columns and rows of the table in docs/measured.md.

    Args:
        data: a folder of one CSV file with a header, whose target is a number.
        folder: where to work.
        estimators: with their defaults.
        folds: shuffled, of all rows; 0 leaves them out.
    """
    (source,) = data.glob("*.csv")
    header, *rows = list(csv.reader(source.read_text().splitlines()))
    table = []
    for estimator in estimators:
        base = folder / f"devices-{estimator}"
        table.append(_line(estimator, "held out", [exported(base, {"training": data}, estimator)]))
        cuts = KFold(folds, shuffle=True, random_state=0).split(rows) if folds else ()
        found = []
        for number, (learnt, held_out) in enumerate(cuts):
            part = folder / f"devices-{estimator}-{number}"
            channels = {"training": part / "training", "validation": part / "validation"}
            for channel, chosen in zip(channels.values(), (learnt, held_out), strict=True):
                _write(channel, header, [rows[index] for index in chosen])
            found.append(exported(part / "ml", channels, estimator))
        table += [_line(estimator, f"{folds} folds, mean", found)] if found else []
    title = "For devices: the student of a model, and its int8 file through the runner, sample, defaults, seed 0"
    return title, "make soak SECTIONS=edge", COLUMNS, table


def exported(base: Path, channels: Mapping[str, Path], estimator: str) -> Figures:
    """Train, export as TensorFlow Lite and ask the int8 file for every row of the training channel; return the figures."""
    lay_out(base, channels, {"estimator": estimator})
    outcome = train(Processes(), base)
    if outcome.exit_code:
        raise RuntimeError(outcome.output)
    model = base / "model"
    # Here the figures are to be seen, whatever they are.
    _output([sys.executable, "-m", "edge", "export", "tflite", "--model", str(model), "--student-loss=9", "--int8-loss=9"])
    manifest = read_manifest(model)
    return _figures(read_edge_manifest(model / "edge", manifest), _us_per_row(base, manifest))


def _figures(manifest: EdgeManifest, us_per_row: float) -> Figures:
    whole = manifest.artifacts[INT8]
    scored = (manifest.data["teacher"], manifest.data["student"], whole)
    r2, mae = (tuple(float(each[name]) for each in scored) for name in ("r2", "mae"))
    return Figures((r2[0], r2[1], r2[2]), (mae[0], mae[1], mae[2]), whole["size_bytes"], us_per_row)


def _us_per_row(base: Path, manifest: Manifest) -> float:
    """Return what the runner says that a row takes, with a file of the training channel's features."""
    (source,) = (base / "input" / "data" / "training").glob("*.csv")
    names, table = manifest.declaration.feature_names, base / "features.csv"
    with source.open(newline="") as file, table.open("w", newline="") as out:
        writer = csv.DictWriter(out, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(csv.DictReader(file))
    said = _output([sys.executable, str(ROOT / "edge" / "runner.py"), str(base / "model" / "edge" / INT8), "--csv", str(table)])
    (microseconds,) = re.findall(r"([\d.]+) us a row", said)
    return float(microseconds)


def _line(estimator: str, rows: str, found: Sequence[Figures]) -> list[str]:
    r2, mae = np.mean([each.r2 for each in found], axis=0), np.mean([each.mae for each in found], axis=0)
    size, speed = max(each.size_bytes for each in found), statistics.median(each.us_per_row for each in found)
    of_r2, of_mae = [f"{value:.3f}" for value in r2], [f"{value:.2f}" for value in mae]
    return [estimator, rows, *of_r2, *of_mae, f"{r2[2] - r2[1]:+.4f}", f"{size:,}", f"{speed:.1f}"]


def _write(folder: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    folder.mkdir(parents=True)
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout
