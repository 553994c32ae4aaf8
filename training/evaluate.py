"""What a fitted model is worth: it answers each row once, and metrics, parity, intervals and report all use those answers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap
from sklearn import config_context
from sklearn.pipeline import Pipeline

from contract.declaration import Declaration
from contract.errors import ExportFailed
from contract.metrics import INTERVAL_COVERAGE
from model.metrics import score, score_columns
from training.answers import Answers, Predictor, sklearn_predictor
from training.export import export
from training.facts import PARITY_ROWS
from training.intervals import Intervals, calibrate, rows_needed
from training.read import Table
from training.split import Data

STOPPED_ROWS = 10_000
"""Rows to check parity on after a stop: 120 s are left (T-27), and nobody knows how many of them are gone."""
RESAMPLES, RESAMPLED_ROWS = 199, 1_000
RESAMPLES_OF_CLASSES = 99
"""Metrics of labels are computed a sample at a time, 4 ms each; those of numbers 199 at once, in 6 ms."""


@dataclass(frozen=True)
class Part:
    """Rows, what they are, and what the model says they are."""

    table: Table
    answers: Answers

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Evaluation:
    """All that is known of a model after its fit."""

    onnx: bytes
    """Empty where ONNX can't say the same and `allow_sklearn` permits that."""
    parity: Mapping[str, Any]
    predict: Predictor
    train: Part
    held_out: Part
    scores: Mapping[str, float]
    """Metrics by `train:` and `validation:` name."""
    confidence: Mapping[str, Mapping[str, float]]
    """For each validation metric its 95 % interval: low, high, and the standard deviation behind them."""
    intervals: Intervals | None
    """None for classes, and where there are too few held-out rows."""


def evaluate(
    declaration: Declaration, model: Pipeline, data: Data, values: Mapping[str, Any], stopped: bool = False
) -> Evaluation:
    """Return what a fitted pipeline is worth; its trees' thresholds are rounded to float32 on the way.

    Args:
        declaration: of the rows.
        model: fitted.
        data: described (training/facts.py); all its rows are answered.
        values: the hyperparameters.
        stopped: whether a stop was asked for: parity is then checked on fewer rows.

    Raises:
        ExportFailed: ONNX doesn't agree with the model, and `allow_sklearn` is false.
    """
    matrix = np.concatenate([data.train.matrix, data.validation.matrix])
    onnx, parity, predict, answers = _answer(model, matrix, data.spread, values, STOPPED_ROWS if stopped else PARITY_ROWS)
    answered = len(data.train)
    train = Part(data.train, answers.take(slice(answered)))
    held_out = Part(data.validation, answers.take(slice(answered, None)))
    labels = getattr(model, "classes_", ())
    learnt, measured = _score(train, labels), _score(held_out, labels)
    scores = _named("train", learnt) | _named("validation", measured)
    confidence = _named("validation", _confidence(held_out, labels, measured, values["seed"]))
    intervals = _intervals(declaration, held_out, values)
    if intervals and intervals.checked:
        scores[INTERVAL_COVERAGE], confidence[INTERVAL_COVERAGE] = intervals.coverage[intervals.level], intervals.confidence()
    return Evaluation(onnx, parity, predict, train, held_out, scores, confidence, intervals)


def _answer(
    model: Pipeline, matrix: NDArray[np.float32], spread: float, values: Mapping[str, Any], most: int
) -> tuple[bytes, Mapping[str, Any], Predictor, Answers]:
    try:
        exported = export(model, matrix, spread, most)
    except ExportFailed as error:
        if not values["allow_sklearn"]:
            raise
        print(f"export: no ONNX model, as allow_sklearn permits: {error.message}", flush=True)
        predict = sklearn_predictor(model)
        return b"", {"onnx": False, "why": error.message}, predict, predict(matrix)
    parity = exported.parity
    print(
        f"export: ONNX within {parity['difference']:.3g} on {parity['rows']:,} rows (bound {parity['bound']:.3g})", flush=True
    )
    return exported.onnx, parity, exported.predict, exported.answers


def _named(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}:{name}": value for name, value in values.items()}


def _score(part: Part, labels: Any, rows: Any = slice(None)) -> dict[str, float]:
    answers = part.answers.take(rows)
    return score(part.table.target[rows], answers.values, answers.probabilities, labels)


def _intervals(declaration: Declaration, held_out: Part, values: Mapping[str, Any]) -> Intervals | None:
    if declaration.target.kind != "number":
        return None
    level = values["interval_level"]
    found = calibrate(held_out.table.target.astype(np.float64), held_out.answers.values, level, values["seed"])
    if found is None:
        print(
            f"intervals: none at level {level:g}: {len(held_out):,} rows are held out, {rows_needed(level):,} are needed",
            flush=True,
        )
    return found


def _confidence(part: Part, labels: Any, scores: Mapping[str, float], seed: int) -> dict[str, dict[str, float]]:
    """Return each validation metric's 95 % interval by a seeded bootstrap of rows, whatever model/metrics.py measures.

    Of more than 1,000 rows a random 1,000 are resampled, and the spread shrinks with the root of the share: metrics of rows
    are averages, or smooth in averages. Source: Bickel, Götze and van Zwet (1997), resampling fewer than n observations.
    """
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(part))[:RESAMPLED_ROWS]

    def statistic(chosen: NDArray[np.intp], axis: int) -> NDArray[np.float64]:
        return _resampled(part, labels, rows[chosen], list(scores))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a sample may lack a class, or be of one value
        found = bootstrap(
            (np.arange(len(rows)),),
            statistic,
            vectorized=True,
            n_resamples=RESAMPLES if part.answers.probabilities is None else RESAMPLES_OF_CLASSES,
            method="percentile",
            rng=generator,
        )
        center = _resampled(part, labels, rows, list(scores))
    shrink = (len(rows) / len(part)) ** 0.5
    bounds = {}
    for index, (name, value) in enumerate(scores.items()):
        low, high = (value + shrink * (bound[index] - center[index]) for bound in found.confidence_interval)
        about = {"low": low, "high": high, "standard_deviation": shrink * found.standard_error[index]}
        if np.isfinite([*about.values()]).all():
            bounds[name] = {key: float(value) for key, value in about.items()}
    return bounds


def _resampled(part: Part, labels: Any, chosen: NDArray[np.intp], names: list[str]) -> NDArray[np.float64]:
    """Return (n_metrics, n_samples) metrics of the samples whose rows are the rows of `chosen`, or (n_metrics,) of one."""
    samples = np.atleast_2d(chosen)
    if part.answers.probabilities is None:
        columns = score_columns(part.table.target[samples].T, part.answers.values[samples].T)
        metrics = np.array([columns[name] for name in names])
    else:
        with config_context(assume_finite=True, skip_parameter_validation=True):
            table = [_score(part, labels, rows) for rows in samples]
        metrics = np.array([[scores[name] for scores in table] for name in names])
    return metrics if chosen.ndim > 1 else metrics[:, 0]
