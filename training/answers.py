"""What a trained model says of rows: by ONNX, as it will serve, or by scikit-learn where there is no ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: onnxruntime reports home by default

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from contract.cgroup import cpus

BATCH_ROWS = 16_384
ERRORS_ONLY = 3

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """Predictions for rows, in the rows' order."""

    values: NDArray[Any]
    """(n_rows,) float64, or labels as text."""
    probabilities: NDArray[np.float64] | None = None
    """(n_rows, n_classes), the columns in the order of the model's classes; None for a number."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Any) -> Answers:
        """Return the answers for an index, a slice or a mask of rows."""
        return Answers(self.values[rows], None if self.probabilities is None else self.probabilities[rows])


Predictor = Callable[[Matrix], Answers]


def onnx_predictor(content: bytes, is_class: bool) -> Predictor:
    """Return the function that asks an ONNX model, on every CPU the container has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    options.log_severity_level = ERRORS_ONLY
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def ask(matrix: Matrix) -> Answers:
        first, *others = session.run(None, {"features": np.ascontiguousarray(matrix)})
        if is_class:
            return Answers(np.asarray(first).astype(np.str_), np.asarray(others[0], dtype=np.float64))
        return Answers(np.asarray(first)[:, 0].astype(np.float64))

    return _in_batches(ask)


def sklearn_predictor(model: Pipeline) -> Predictor:
    """Return the function that asks a fitted scikit-learn pipeline."""

    def ask(matrix: Matrix) -> Answers:
        if hasattr(model, "predict_proba"):
            return Answers(model.predict(matrix).astype(np.str_), np.asarray(model.predict_proba(matrix), dtype=np.float64))
        return Answers(np.asarray(model.predict(matrix), dtype=np.float64).reshape(-1))

    return _in_batches(ask)


def _in_batches(ask: Predictor) -> Predictor:
    """Ask for some rows at a time: what a model holds while it answers then doesn't grow with the data."""

    def asked(matrix: Matrix) -> Answers:
        parts = [ask(matrix[start : start + BATCH_ROWS]) for start in range(0, len(matrix), BATCH_ROWS)] or [ask(matrix)]
        if len(parts) == 1:
            return parts[0]
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        values = np.concatenate([part.values for part in parts])
        return Answers(values, np.concatenate(probabilities) if probabilities else None)

    return asked
