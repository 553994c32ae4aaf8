"""What is measured of a fitted model, on rows it has seen (`train:`) and on held-out rows (`validation:`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, r2_score, root_mean_squared_error

Scores = Mapping[str, float]

REGRESSION: dict[str, Callable[..., float]] = {
    "rmse": root_mean_squared_error,
    "mae": mean_absolute_error,
    "r2": r2_score,
}
CLASSIFICATION: dict[str, Callable[..., float]] = {
    "accuracy": accuracy_score,
    "f1": lambda actual, predicted: f1_score(actual, predicted, average="macro"),
}


def measure(model: object, matrix: NDArray[np.float32], actual: NDArray[np.generic]) -> dict[str, float]:
    """Return the metrics of a fitted pipeline over rows.

    Args:
        model: a fitted scikit-learn regressor or classifier.
        matrix: (n_rows, n_features) float32.
        actual: (n_rows,) target, numbers or labels.
    """
    predicted = model.predict(matrix)  # type: ignore[attr-defined]
    if not hasattr(model, "predict_proba"):
        return {name: float(metric(actual, predicted)) for name, metric in REGRESSION.items()}
    scores = {name: float(metric(actual, predicted)) for name, metric in CLASSIFICATION.items()}
    probabilities = model.predict_proba(matrix).astype(np.float64)
    return {**scores, "log_loss": float(log_loss(actual, probabilities, labels=model.classes_))}  # type: ignore[attr-defined]
