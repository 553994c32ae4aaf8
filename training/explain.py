"""Which features the predictions rest on, and how: permutation importance and partial dependence of what will serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.metrics import accuracy_score, root_mean_squared_error

from contract.declaration import Feature
from training.answers import Predictor
from training.evaluate import Part
from training.explanation import Curve, Explanation, Importance
from training.split import evenly

REPEATS = 5
ROWS, ANSWERS = 2_000, 20_000
"""Rows that are shuffled, at most, and fewer where features are many: 20,000 answers take 0.05 s."""
CURVES, CURVE_ROWS, CURVE_POINTS = 6, 100, 20


def explain(features: Sequence[Feature], held_out: Part, predict: Predictor, labels: Sequence[str], seed: int) -> Explanation:
    """Return what the predictions for held-out rows rest on; `labels` is empty for a number."""
    most = max(50, min(ROWS, ANSWERS // (REPEATS * len(features))))
    table = held_out.table.take(evenly(len(held_out), most))
    served = _Classifier(predict, labels) if labels else _Regressor(predict)
    found = permutation_importance(served, table.matrix, table.target, scoring=_worth, n_repeats=REPEATS, random_state=seed)
    importances = [
        Importance(feature, float(found.importances_mean[index]), float(found.importances_std[index]))
        for index, feature in enumerate(features)
    ]
    importances.sort(key=lambda importance: -importance.mean)
    some = table.matrix[evenly(len(table), CURVE_ROWS)]
    grids = [(item.feature, _grid(item.feature, some[:, list(features).index(item.feature)])) for item in importances]
    varying = [(feature, values) for feature, values in grids if len(values) > 1]
    curves = [
        Curve(feature, values, _averages(list(features).index(feature), values, served, some))
        for feature, values in varying[:CURVES]
    ]
    return Explanation(importances, curves, len(table), bool(labels))


def _averages(
    index: int, values: NDArray[np.float64], served: BaseEstimator, matrix: NDArray[np.float32]
) -> NDArray[np.float64]:
    found = partial_dependence(served, matrix, [index], custom_values={index: values}, method="brute", kind="average")
    return np.asarray(found["average"], dtype=np.float64)


def _grid(feature: Feature, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a category's choices, or quantiles of a number: there the curve has rows to stand on."""
    if feature.kind == "category":
        return np.arange(len(feature.choices), dtype=np.float64)
    seen = values[~np.isnan(values)].astype(np.float64)
    return np.unique(np.quantile(seen, np.linspace(0.02, 0.98, CURVE_POINTS))) if len(seen) else seen


def _worth(served: Any, matrix: NDArray[np.float32], actual: NDArray[Any]) -> float:
    predicted = served.predict(matrix)
    if isinstance(served, _Classifier):
        return float(accuracy_score(actual, predicted))
    return -float(root_mean_squared_error(actual, predicted))


class _Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A predictor as scikit-learn's tools take it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, *_: object) -> _Regressor:
        """Do nothing: it is fitted."""
        return self

    def predict(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Return the predictions for rows."""
        return self.predictor(np.asarray(matrix, dtype=np.float32)).values


class _Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The same for labels."""

    def __init__(self, predictor: Predictor, labels: Sequence[str]) -> None:
        self.predictor, self.labels = predictor, labels
        self.classes_ = np.array(labels)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, *_: object) -> _Classifier:
        """Do nothing: it is fitted."""
        return self

    def predict(self, matrix: NDArray[Any]) -> NDArray[Any]:
        """Return the labels of rows."""
        return self.predictor(np.asarray(matrix, dtype=np.float32)).values

    def predict_proba(self, matrix: NDArray[Any]) -> NDArray[np.float64] | None:
        """Return the classes' probabilities for rows."""
        return self.predictor(np.asarray(matrix, dtype=np.float32)).probabilities
