"""The student: a small network that learns what the trained model answers, and that small devices can run.

It is taught by the model's own answers to training rows and to rows mixed of them, so that no label is needed.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.edge import Column, Preprocessing, fingerprint_of
from contract.manifest import Manifest
from edge.export.teacher import Answer, Answers
from edge.libraries import library

HIDDEN = (32, 16)
LESSONS = 16_000
"""Rows to learn from that are mixed of two of training's; beside them stand training's own."""
REPEATED = 8_000
"""Of classes training's own rows are repeated to so many: students then had the label of each of five models on at least
99.7 % of all penguins. Of numbers they stand once: on its own rows a model repeats their noise, between them it says what it
has learnt, and students that heard less of that noise were better, in 20 splits of two data sets."""
FEW = 12
"""A number with at most so many values is chosen from one of the two rows, not put between them: there is no half a river."""
LEAST_PROBABILITY = 0.005
"""Below it probabilities are the same to the student: the logarithm of nothing would take all of its eight bits."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Student:
    """A network of dense layers with ReLU between them."""

    preprocessing: Preprocessing
    weights: tuple[Array, ...]
    """A layer each, (inputs, outputs)."""
    biases: tuple[Array, ...]

    def activations(self, inputs: Array) -> list[Array]:
        """Return what goes into the first layer and what comes out of each, in float64."""
        found = [inputs]
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True), 1):
            out = found[-1] @ weight + bias
            found.append(np.maximum(out, 0) if index < len(self.weights) else out)
        return found

    def answer(self, matrix: NDArray[np.float32]) -> Answers:
        """Return the answers to rows of the server's matrix, in float64."""
        return answers_of(self.activations(encode(self.preprocessing, matrix))[-1], self.preprocessing)


def teach(manifest: Manifest, teacher: Answer, matrix: NDArray[np.float32], seed: int = 0) -> tuple[Student, Array]:
    """Return a student of a model, and the inputs that it learnt from, which its numbers' ranges can be told by.

    Args:
        manifest: the model's.
        teacher: its answers.
        matrix: the rows that it was trained on.
        seed: the same gives the same student.
    """
    chance = np.random.default_rng(seed)
    preprocessing = preprocessing_of(manifest, matrix)
    own = chance.permutation(len(matrix))
    own = np.resize(own, REPEATED) if manifest.labels else own[:REPEATED]
    is_category = [feature.kind == "category" for feature in manifest.declaration.features]
    lessons = np.concatenate([matrix[own], mixed(matrix, is_category, chance)])
    told = teacher(lessons)
    if preprocessing.kind == "number":
        spread = float(told.std())
        preprocessing = _scaled_to(preprocessing, float(told.mean()), spread if spread > 0 else 1.0)
        wanted = (told - preprocessing.mean) / preprocessing.deviation
    else:
        logits = np.log(np.maximum(told, LEAST_PROBABILITY))
        wanted = logits - logits.mean(axis=1, keepdims=True)
    inputs = encode(preprocessing, lessons)
    weights, biases = _fit(inputs, wanted, seed)
    return Student(preprocessing, weights, biases), inputs


def preprocessing_of(manifest: Manifest, matrix: NDArray[np.float32]) -> Preprocessing:
    """Return how a row becomes the student's input: numbers are scaled by the range that training saw."""
    columns = []
    for index, feature in enumerate(manifest.declaration.features):
        if feature.kind == "category":
            columns.append(Column(feature.name, "category", feature.nullable, choices=feature.choices))
            continue
        seen = matrix[:, index][~np.isnan(matrix[:, index])].astype(np.float64)
        low, high, middle = map(_short, (seen.min(), seen.max(), np.median(seen)) if len(seen) else (-1.0, 1.0, 0.0))
        columns.append(Column(feature.name, "number", feature.nullable, low, high, middle))
    target, teacher = manifest.declaration.target, fingerprint_of(manifest)["onnx"]
    return Preprocessing(tuple(columns), target.name, target.kind, manifest.labels, teacher=teacher)


def encode(preprocessing: Preprocessing, matrix: NDArray[np.float32]) -> Array:
    """Return the inputs of rows of the server's matrix, as `Preprocessing.encode` says them of one."""
    columns = list(zip(preprocessing.features, matrix.T.astype(np.float64), strict=True))
    numbers = [(column, values, np.isnan(values)) for column, values in columns if column.kind == "number"]
    scaled = [_scaled(column, np.where(missing, column.fill, values)) for column, values, missing in numbers]
    missing = [absent.astype(np.float64) for column, _, absent in numbers if column.nullable]
    chosen = [
        (np.where(np.isnan(values), len(column.choices), values) == slot).astype(np.float64)
        for column, values in columns
        if column.kind == "category"
        for slot in range(column.slots)
    ]
    return np.column_stack([*scaled, *missing, *chosen])


def answers_of(outputs: Array, preprocessing: Preprocessing) -> Answers:
    """Return the answers that a network's outputs mean: numbers in the target's unit, or probabilities."""
    if preprocessing.kind == "number":
        return preprocessing.mean + preprocessing.deviation * outputs
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def mixed(matrix: NDArray[np.float32], is_category: Sequence[bool], chance: np.random.Generator) -> NDArray[np.float32]:
    """Return rows to learn from, each value from or between those of two of training's."""
    one, other = (matrix[chance.integers(0, len(matrix), LESSONS)] for _ in range(2))
    share = chance.random((LESSONS, 1))
    either = np.where(chance.random(one.shape) < share, other, one)
    between = (one + share * (other - one)).astype(np.float32)
    few = np.array([is_cat or len(np.unique(values)) <= FEW for is_cat, values in zip(is_category, matrix.T, strict=True)])
    return np.where(few | np.isnan(between), either, between).astype(np.float32)


def _fit(inputs: Array, wanted: Array, seed: int) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    network = library("sklearn.neural_network").MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        alpha=0.1,
        learning_rate_init=0.01,
        batch_size=128,
        max_iter=40,
        tol=0,
        n_iter_no_change=40,
        random_state=seed,
    )
    with warnings.catch_warnings(), library("threadpoolctl").threadpool_limits(1):
        warnings.simplefilter("ignore", library("sklearn.exceptions").ConvergenceWarning)  # it stops when its time is up
        network.fit(inputs, wanted.ravel() if wanted.shape[1] == 1 else wanted)
    return tuple(network.coefs_), tuple(network.intercepts_)


def _scaled_to(preprocessing: Preprocessing, mean: float, deviation: float) -> Preprocessing:
    return replace(preprocessing, mean=mean, deviation=deviation)


def _scaled(column: Column, values: Array) -> Array:
    if column.high <= column.low:
        return np.zeros_like(values)
    return np.clip((2 * values - column.low - column.high) / (column.high - column.low), -1, 1)


def _short(value: Any) -> float:
    """Return the shortest digits that mean the same float32."""
    return float(str(np.float32(value)))
