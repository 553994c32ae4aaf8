"""What `estimator=auto` draws from, and the estimator that is whatever was drawn: all of it from the declaration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.random import RandomState
from sklearn.base import BaseEstimator

from contract.declaration import AUTO, Declaration, Hyperparameter
from model.metrics import measure, metrics_of
from model.pipeline import build_pipeline

DIGITS = 4
"""Of a drawn number: more would only be harder to read."""


class Space:
    """A distribution of whole sets of hyperparameters, in the shape that scikit-learn's random searches draw from."""

    def __init__(self, declaration: Declaration, values: Mapping[str, Any]) -> None:
        """Keep what the job set and no estimator owns; knobs of single estimators begin at their defaults."""
        self._declaration = declaration
        self._fixed = {
            knob.name: values[knob.name] if knob.belongs_to(AUTO) else knob.default for knob in declaration.hyperparameters
        }

    def default(self, estimator: str) -> dict[str, Any]:
        """Return the values of an estimator that nothing is known of."""
        return {**self._fixed, "estimator": estimator}

    def rvs(self, random_state: RandomState) -> dict[str, Any]:
        """Return an estimator and its knobs, drawn evenly on each knob's scale."""
        estimator = str(random_state.choice(self._declaration.estimators))
        drawn = {knob.name: draw(knob, random_state) for knob in self._declaration.tunable(estimator)}
        return {**self.default(estimator), **drawn}


def draw(knob: Hyperparameter, random_state: RandomState) -> int | float | str | bool:
    """Return a value of a knob within the range worth searching."""
    if knob.kind == "boolean":
        return bool(random_state.randint(2))
    if knob.kind == "categorical":
        return str(random_state.choice(knob.choices))
    low, high = knob.bounds
    if knob.scale == "logarithmic":
        value = math.exp(random_state.uniform(math.log(low), math.log(high)))
    elif knob.scale == "reverse_logarithmic":
        value = 1 - math.exp(random_state.uniform(math.log(1 - high), math.log(1 - low)))
    elif knob.kind == "integer":
        return int(random_state.randint(int(low), int(high) + 1))
    else:
        value = random_state.uniform(low, high)
    number = round(value) if knob.kind == "integer" else float(f"{value:.{DIGITS}g}")
    return type(number)(min(max(number, low), high))


class Candidate(BaseEstimator):  # type: ignore[misc]
    """A pipeline whose one parameter is a whole set of hyperparameters."""

    def __init__(self, declaration: Declaration, values: Mapping[str, Any] | None = None) -> None:
        self.declaration = declaration
        self.values = values

    def fit(self, matrix: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> Candidate:
        """Fit the pipeline that the values ask for."""
        if self.values is None:
            raise ValueError("no values were set")
        self.model_ = build_pipeline(self.declaration, self.values).fit(matrix, target)
        return self

    def score(self, matrix: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> float:
        """Return the objective over rows, turned so that more is better."""
        objective = metrics_of(self.declaration.target)[0]
        return toward(objective.goal) * measure(self.model_, matrix, target)[objective.name]


def toward(goal: str) -> int:
    """Return what a metric is multiplied with so that more is better."""
    return -1 if goal == "Minimize" else 1
