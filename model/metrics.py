"""What is measured of a fitted model, on rows it has seen (`train:`) and on held-out rows (`validation:`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
        return score(actual, predicted)
    return score(actual, predicted, model.predict_proba(matrix).astype(np.float64), model.classes_)  # type: ignore[attr-defined]


def score(
    actual: NDArray[np.generic],
    predicted: NDArray[np.generic],
    probabilities: NDArray[np.float64] | None = None,
    labels: Sequence[str] | NDArray[np.generic] = (),
) -> dict[str, float]:
    """Return the metrics of predictions; of labels with their probabilities, whose columns are in the order of `labels`."""
    if probabilities is None:
        return {name: float(values[0]) for name, values in score_columns(actual[:, None], predicted[:, None]).items()}
    scores = {name: float(metric(actual, predicted)) for name, metric in CLASSIFICATION.items()}
    ones = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32's rounding is more than log_loss passes over
    return {**scores, "log_loss": float(log_loss(actual, ones, labels=labels))}


def score_columns(actual: NDArray[np.generic], predicted: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of numbers for each column of two (n_rows, n_columns) arrays: of many samples in one call."""
    scores = {name: metric(actual, predicted, multioutput="raw_values") for name, metric in REGRESSION.items()}
    return {name: np.atleast_1d(values) for name, values in scores.items()}  # r2 of a single row is a bare NaN
