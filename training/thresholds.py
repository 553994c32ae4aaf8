"""The thresholds of fitted trees, rounded down to float32 so that ONNX sends every row where scikit-learn sends it.

Features are float32, so `x <= threshold` stays what it was for each of them; ONNX rounds to nearest instead, which sends a
value that lies between a threshold and its nearest float32 down the other branch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from training.lightgbm import is_lightgbm


def last_step(model: Any) -> Any:
    """Return a pipeline's estimator, or the estimator itself."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def snap_thresholds(model: Any) -> None:
    """Round the thresholds of a fitted pipeline's trees down to float32, in place."""
    estimator = last_step(model)
    if is_lightgbm(estimator):
        _snap_text(estimator)
    for thresholds in _tree_thresholds(estimator):
        thresholds[:] = _down(thresholds)


def _tree_thresholds(estimator: Any) -> Iterator[NDArray[np.float64]]:
    """Yield each tree's thresholds, as views that can be written to."""
    for predictor in chain.from_iterable(getattr(estimator, "_predictors", ())):  # histogram boosting
        yield predictor.nodes["num_threshold"]
    for tree in np.ravel(getattr(estimator, "estimators_", ())):  # forests, gradient boosting
        yield tree.tree_.threshold


def _snap_text(estimator: Any) -> None:
    """Round LightGBM's, which can be changed only in the text that it saves a model as."""
    from lightgbm import Booster

    def snapped(line: re.Match[str]) -> str:
        numbers = _down(np.array(line[1].split(), dtype=np.float64))
        return "threshold=" + " ".join(repr(float(number)) for number in numbers)  # digits that give it back

    text = re.sub(r"(?m)^threshold=(.+)$", snapped, estimator.booster_.model_to_string())
    text = re.sub(r"(?m)^tree_sizes=.*\n", "", text)  # the trees' lengths in bytes, which no longer hold; reading goes without
    estimator._Booster = Booster(model_str=text)


def _down(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return for each number the largest float32 that is not above it."""
    nearest = exact.astype(np.float32)
    return np.where(nearest > exact, np.nextafter(nearest, np.float32(-np.inf)), nearest)
