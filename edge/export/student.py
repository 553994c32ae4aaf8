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
LEAST_SHARE, MOST_SHARES = 0.02, 100_000
"""A row is learnt once a class that it has at least this probability of, which is the lesson's weight; of more than so many
lessons the weightiest are learnt, for time's sake."""

INTERRUPTED = "Training interrupted by user"
LEARNING = {"hidden_layer_sizes": HIDDEN, "learning_rate_init": 0.01, "tol": 0}

Array = NDArray[np.float64]
Layers = tuple[tuple[Array, ...], tuple[Array, ...]]
"""Weights and biases."""


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
    told, inputs = teacher(lessons), encode(preprocessing, lessons)
    if preprocessing.kind == "number":
        preprocessing = replace(preprocessing, mean=float(told.mean()), deviation=float(told.std()) or 1.0)
        weights, biases = _fit_number(inputs, (told[:, 0] - preprocessing.mean) / preprocessing.deviation, seed)
    else:
        weights, biases = _fit_classes(inputs, told, seed)
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
    return softmax(outputs)


def softmax(logits: NDArray[Any], axis: int = -1) -> NDArray[Any]:
    """Return the probabilities that logits mean, in their own precision."""
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def mixed(matrix: NDArray[np.float32], is_category: Sequence[bool], chance: np.random.Generator) -> NDArray[np.float32]:
    """Return rows to learn from, each value from or between those of two of training's."""
    one, other = (matrix[chance.integers(0, len(matrix), LESSONS)] for _ in range(2))
    share = chance.random((LESSONS, 1))
    either = np.where(chance.random(one.shape) < share, other, one)
    between = (one + share * (other - one)).astype(np.float32)
    few = np.array([is_cat or len(np.unique(values)) <= FEW for is_cat, values in zip(is_category, matrix.T, strict=True)])
    return np.where(few | np.isnan(between), either, between).astype(np.float32)


def _fit_number(inputs: Array, wanted: Array, seed: int) -> Layers:
    network = library("sklearn.neural_network").MLPRegressor(
        alpha=0.1, batch_size=128, max_iter=40, n_iter_no_change=40, random_state=seed, **LEARNING
    )
    _let_learn(network, inputs, wanted)
    return tuple(network.coefs_), tuple(network.intercepts_)


def _fit_classes(inputs: Array, told: Answers, seed: int) -> Layers:
    """Return layers whose outputs are logits: what cross-entropy with the probabilities asks for."""
    network = library("sklearn.neural_network").MLPClassifier(
        alpha=0.03, batch_size=256, max_iter=15, n_iter_no_change=15, random_state=seed, **LEARNING
    )
    rows, classes = _shares(told)
    _let_learn(network, inputs[rows], classes, sample_weight=told[rows, classes])
    weights, biases = list(network.coefs_), list(network.intercepts_)
    if told.shape[1] == 2:  # one output, the logarithm of the odds; of logits it is the difference
        weights[-1] = np.hstack([-weights[-1] / 2, weights[-1] / 2])
        biases[-1] = np.hstack([-biases[-1] / 2, biases[-1] / 2])
    return tuple(weights), tuple(biases)


def _shares(told: Answers) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and classes to learn, a pair a lesson: each row's likely classes, and each class where it is likeliest."""
    least = (
        LEAST_SHARE if told.size <= MOST_SHARES else max(LEAST_SHARE, np.partition(told, -MOST_SHARES, axis=None)[-MOST_SHARES])
    )
    chosen = told >= least
    chosen[told.argmax(axis=0), np.arange(told.shape[1])] = True
    rows, classes = np.nonzero(chosen)
    return rows, classes


def _let_learn(network: Any, inputs: Array, wanted: NDArray[Any], **options: Any) -> None:
    """Fit a network; raises KeyboardInterrupt on Ctrl-C, of which scikit-learn makes a warning and a network half taught."""
    with warnings.catch_warnings(), library("threadpoolctl").threadpool_limits(1):
        warnings.simplefilter("ignore", library("sklearn.exceptions").ConvergenceWarning)  # it stops when its time is up
        warnings.filterwarnings("error", INTERRUPTED, UserWarning)
        try:
            network.fit(inputs, wanted, **options)
        except UserWarning as warning:
            if INTERRUPTED not in str(warning):
                raise
            raise KeyboardInterrupt from warning


def _scaled(column: Column, values: Array) -> Array:
    if column.high <= column.low:
        return np.zeros_like(values)
    return np.clip((2 * values - column.low - column.high) / (column.high - column.low), -1, 1)


def _short(value: Any) -> float:
    """Return the shortest digits that mean the same float32."""
    return float(str(np.float32(value)))
