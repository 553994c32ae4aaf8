"""What a training job leaves in the model directory: model.onnx, model.joblib, and the manifest over them, last."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from contract.declaration import Declaration, Feature
from contract.errors import ExportFailed
from contract.files import replacing
from contract.manifest import JOBLIB, MANIFEST, ONNX, Manifest, write_manifest
from contract.metrics import report_metric
from training.export import Exported, export
from training.read import Table
from training.split import Data

LIBRARIES = ("scikit-learn", "lightgbm", "numpy", "pandas", "skl2onnx", "onnx", "onnxruntime", "joblib")
SAMPLES = 3


@dataclass(frozen=True)
class Trained:
    """All that the manifest tells of a job."""

    declaration: Declaration
    model: Pipeline
    data: Data
    values: Mapping[str, Any]
    scores: Mapping[str, float]
    origin: Mapping[str, Any]


def write(folder: Path, trained: Trained) -> None:
    """Write the model directory over whatever an earlier run left there, and print the metrics.

    Raises:
        ExportFailed: ONNX doesn't agree with the model and allow_sklearn is false; the directory is as it was.
    """
    exported = _export(trained)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / JOBLIB) as temporary:
        joblib.dump(trained.model, temporary)
    if exported.onnx:
        with replacing(folder / ONNX) as temporary:
            temporary.write_bytes(exported.onnx)
    else:
        (folder / ONNX).unlink(missing_ok=True)
    manifest = write_manifest(folder, _manifest(trained, exported), [JOBLIB, *([ONNX] if exported.onnx else [])])
    for name, value in trained.scores.items():
        report_metric(name, value)
    sizes = ", ".join(f"{name} {entry['size_bytes']:,} bytes" for name, entry in manifest.files.items())
    print(f"model: {folder}: {sizes}, {MANIFEST}", flush=True)


def _export(trained: Trained) -> Exported:
    target = trained.data.train.target
    spread = float(np.std(target.astype(np.float64))) if trained.declaration.target.kind == "number" else 0.0
    rows = np.concatenate([trained.data.train.matrix, trained.data.validation.matrix])
    try:
        exported = export(trained.model, rows, spread)
    except ExportFailed as error:
        if not trained.values["allow_sklearn"]:
            raise
        print(f"export: no ONNX model, as allow_sklearn permits: {error.message}", flush=True)
        return Exported(b"", {"onnx": False, "why": error.message})
    parity = exported.parity
    print(
        f"export: ONNX within {parity['difference']:.3g} on {parity['rows']:,} rows (bound {parity['bound']:.3g})", flush=True
    )
    return exported


def _manifest(trained: Trained, exported: Exported) -> Manifest:
    model, data, declaration = trained.model, trained.data, trained.declaration
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(
        declaration=declaration,
        labels=tuple(map(str, model.classes_)) if declaration.target.kind == "class" else (),
        samples=_samples(model, data.whole.take(np.arange(SAMPLES)), declaration),
        hyperparameters=dict(trained.values),
        metrics={name: value for name, value in trained.scores.items() if np.isfinite(value)},
        ranges={
            feature.name: _range(data.train.matrix[:, index], feature) for index, feature in enumerate(declaration.features)
        },
        data=data.about
        or {"train_rows": len(data.train), "validation_rows": len(data.validation), "sha256": data.train.fingerprint()},
        parity=exported.parity,
        origin={**trained.origin, "ended": ended, "python": platform.python_version(), "versions": versions},
        files={},
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


def _range(values: np.ndarray[Any, Any], feature: Feature) -> dict[str, Any]:
    seen = values[~np.isnan(values)]
    missing = len(values) - len(seen)
    if feature.kind == "category":
        counts = np.bincount(seen.astype(int), minlength=len(feature.choices))
        return {"counts": dict(zip(feature.choices, counts.tolist(), strict=True)), "missing": missing}
    if not len(seen):
        return {"minimum": None, "maximum": None, "median": None, "missing": missing}
    low, middle, high = (float(str(np.float32(value))) for value in (seen.min(), np.median(seen), seen.max()))
    return {"minimum": low, "maximum": high, "median": middle, "missing": missing}
