"""What is measured of a fitted model, on rows it has seen (`train:`) and on held-out rows (`validation:`).

The first metric of a kind of target is the objective: what a search makes better. NumPy and scikit-learn are imported when
something is measured, for `train --help` and `python -m deploy` read the names from here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contract.declaration import Target
from contract.metrics import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scores = Mapping[str, float]

REGRESSION = (
    Metric("rmse", "Root mean squared error, in the target's unit", "Minimize"),
    Metric("mae", "Mean absolute error, in the target's unit", "Minimize"),
    Metric("r2", "Share of the target's variance that is explained", "Maximize"),
)
CLASSIFICATION = (
    Metric("log_loss", "Mean negative logarithm of the probability given to what is so", "Minimize"),
    Metric("accuracy", "Share of rows whose label is right", "Maximize"),
    Metric("f1", "Mean over the labels of the harmonic mean of precision and recall", "Maximize"),
)


def metrics_of(target: Target) -> tuple[Metric, ...]:
    """Return what is measured of a model of this target, the objective first."""
    return CLASSIFICATION if target.kind == "class" else REGRESSION


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
    return score(actual, predicted, model.predict_proba(matrix).astype("float64"), model.classes_)  # type: ignore[attr-defined]


def score(
    actual: NDArray[np.generic],
    predicted: NDArray[np.generic],
    probabilities: NDArray[np.float64] | None = None,
    labels: Sequence[str] | NDArray[np.generic] = (),
) -> dict[str, float]:
    """Return the metrics of predictions; of labels with their probabilities, whose columns are in the order of `labels`."""
    from sklearn import metrics

    if probabilities is None:
        return {name: float(values[0]) for name, values in score_columns(actual[:, None], predicted[:, None]).items()}
    ones = probabilities / probabilities.sum(axis=1, keepdims=True)  # float32's rounding is more than log_loss passes over
    scores = {
        "log_loss": metrics.log_loss(actual, ones, labels=labels),
        "accuracy": metrics.accuracy_score(actual, predicted),
        "f1": metrics.f1_score(actual, predicted, average="macro"),
    }
    return {name: float(value) for name, value in scores.items()}


def score_columns(actual: NDArray[np.generic], predicted: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
    """Return the metrics of numbers for each column of two (n_rows, n_columns) arrays: of many samples in one call."""
    from numpy import atleast_1d
    from sklearn import metrics

    scores = {
        "rmse": metrics.root_mean_squared_error(actual, predicted, multioutput="raw_values"),
        "mae": metrics.mean_absolute_error(actual, predicted, multioutput="raw_values"),
        "r2": metrics.r2_score(actual, predicted, multioutput="raw_values"),
    }
    return {name: atleast_1d(values) for name, values in scores.items()}  # r2 of a single row is a bare NaN
