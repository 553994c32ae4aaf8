"""What is told of all training rows, and the selection of them that is answered after the fit: all others may go by then."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Declaration, Feature
from training.split import Data, evenly

PARITY_ROWS = 20_000
"""Rows that the model and its ONNX form are compared on, at most."""
PART_ROWS = 2**16
TRAINING_ROWS = 10_000
"""Training rows that are answered, at most, where there are more rows than parity is checked on."""


def described(data: Data, declaration: Declaration) -> Data:
    """Return a job's rows with what the manifest tells of them, and with an even selection of the training rows.

    Of the training rows some answer, so that the fit's cost stays the greatest; of held-out rows all do.
    """
    matrix, target = data.train.matrix, data.train.target
    most = max(TRAINING_ROWS, PARITY_ROWS - len(data.validation))
    return replace(
        data,
        train=data.train.take(evenly(len(data.train), most)),
        about=data.about or _about(data),
        ranges={feature.name: _range(matrix[:, index], feature) for index, feature in enumerate(declaration.features)},
        spread=_deviation(target.astype(np.float64, copy=False)) if declaration.target.kind == "number" else 0.0,
    )


def _about(data: Data) -> Mapping[str, Any]:
    return {
        "train_rows": len(data.train),
        "validation_rows": len(data.validation),
        "held_out_by": data.held_out_by,
        "rows_dropped": data.rows_dropped,
        "target_out_of_range": data.target_out_of_range,
        "sha256": data.train.fingerprint(),
    }


def _deviation(target: NDArray[np.float64]) -> float:
    """Return the standard deviation, without an array as long as the rows beside them."""
    mean = float(target.mean())
    parts = (target[start : start + PART_ROWS] - mean for start in range(0, len(target), PART_ROWS))
    return math.sqrt(sum(float(part @ part) for part in parts) / len(target))


def _range(values: NDArray[np.float32], feature: Feature) -> Mapping[str, Any]:
    seen = values[~np.isnan(values)]
    missing = len(values) - len(seen)
    if feature.kind == "category":
        counts = np.bincount(seen.astype(int), minlength=len(feature.choices))
        return {"counts": dict(zip(feature.choices, counts.tolist(), strict=True)), "missing": missing}
    if not len(seen):
        return {"minimum": None, "maximum": None, "median": None, "missing": missing}
    found = (seen.min(), np.median(seen, overwrite_input=True), seen.max())
    low, middle, high = (float(str(np.float32(value))) for value in found)
    return {"minimum": low, "maximum": high, "median": middle, "missing": missing}
