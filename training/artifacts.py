"""What a training job leaves in the model directory: model.onnx, model.joblib, and the manifest over them, last."""

from __future__ import annotations

import importlib.metadata
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from contract.declaration import Declaration, Feature
from contract.manifest import JOBLIB, MANIFEST, ONNX, Manifest, write_model
from contract.metrics import report_metric
from training.alone import Done
from training.drawing import Drawer
from training.evaluate import Evaluation
from training.read import Table

LIBRARIES = (
    "scikit-learn",
    "lightgbm",
    "numpy",
    "pandas",
    "skl2onnx",
    "onnx",
    "onnxruntime",
    "joblib",
    "crepes",
    "matplotlib",
)


@dataclass(frozen=True)
class Trained:
    """All that the manifest tells of a job."""

    declaration: Declaration
    done: Done
    evaluation: Evaluation
    origin: Mapping[str, Any]


def write(folder: Path, trained: Trained, drawer: Drawer) -> None:
    """Write the model directory over whatever an earlier run left there, and print the metrics."""
    evaluation, manifest = trained.evaluation, _manifest(trained)
    contents: dict[str, Callable[[Path], object]] = {JOBLIB: lambda path: joblib.dump(trained.done.fitted.model, path)}
    if evaluation.onnx:
        contents[ONNX] = lambda path: path.write_bytes(evaluation.onnx)
    report, told = _report(manifest, evaluation, drawer)
    contents |= {name: partial(Path.write_text, data=text, encoding="utf-8") for name, text in report.items()}
    manifest = write_model(folder, replace(manifest, report=told), contents)
    for name, value in evaluation.scores.items():
        report_metric(name, value)
    sizes = ", ".join(f"{name} {entry['size_bytes']:,} bytes" for name, entry in manifest.files.items())
    print(f"model: {folder}: {sizes}, {MANIFEST}", flush=True)


def _report(manifest: Manifest, evaluation: Evaluation, drawer: Drawer) -> tuple[Mapping[str, str], Mapping[str, Any]]:
    """Return the report's files and what the manifest says of it.

    The model is worth more than its report: one that can't be drawn is said loudly, and the job goes on.
    """
    try:
        from training.report import draw

        started = time.monotonic()
        files = draw(manifest, evaluation, drawer)
        print(f"report: drawn in {time.monotonic() - started:.1f} s", flush=True)
        return files, {"drawn": True}
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
        print(f"report: NOT DRAWN: {why}. The model is kept without one; the log has the traceback.", flush=True)
        return {}, {"drawn": False, "why": why}


def _manifest(trained: Trained) -> Manifest:
    model, data = trained.done.fitted.model, trained.done.data
    declaration, evaluation = trained.declaration, trained.evaluation
    searched = {"searched": trained.done.searched} if trained.done.searched else {}
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(
        declaration=declaration,
        labels=tuple(map(str, model.classes_)) if declaration.target.kind == "class" else (),
        samples=_samples(model, data.head, declaration),
        hyperparameters={**trained.done.values, **searched},
        metrics={name: value for name, value in evaluation.scores.items() if np.isfinite(value)},
        ranges=data.ranges,
        data=data.about,
        parity=evaluation.parity,
        origin={**trained.origin, "ended": ended, "python": platform.python_version(), "versions": versions},
        files={},
        intervals=evaluation.intervals.to_json() if evaluation.intervals else None,
        confidence=evaluation.confidence,
    )


def _samples(model: Pipeline, head: Table, declaration: Declaration) -> tuple[Mapping[str, Any], ...]:
    rows = [
        {feature.name: _plain(value, feature) for feature, value in zip(declaration.features, row, strict=True)}
        for row in head.matrix
    ]
    return tuple({"row": row, "prediction": answer} for row, answer in zip(rows, _answers(model, head), strict=True))


def _answers(model: Pipeline, table: Table) -> list[Any]:
    predicted = model.predict(table.matrix)
    if not hasattr(model, "predict_proba"):
        return [float(value) for value in predicted]
    probabilities = model.predict_proba(table.matrix)
    return [
        {"label": str(label), "probabilities": {str(name): float(p) for name, p in zip(model.classes_, row, strict=True)}}
        for label, row in zip(predicted, probabilities, strict=True)
    ]


def _plain(value: np.float32, feature: Feature) -> float | int | str | None:
    """Return a matrix value as a person would write it: the choice's name, the shortest digits, null."""
    if np.isnan(value):
        return None
    if feature.kind == "category":
        return feature.choices[int(value)]
    shortest = float(str(value))
    return int(shortest) if shortest.is_integer() and abs(shortest) < 1e15 else shortest
