"""`report/`: the model card as a page that stands alone, and as the files a model registry takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from sklearn.calibration import calibration_curve

from contract.manifest import REPORT, Manifest
from training import plots
from training.card import CELLS, confusion, model_card, model_quality
from training.evaluate import Evaluation
from training.explain import Explanation, explain
from training.intervals import Intervals

PAGE, CARD, QUALITY = REPORT


def draw(manifest: Manifest, evaluation: Evaluation) -> dict[str, str]:
    """Return the report's files, by their names in the model directory."""
    seed = int(manifest.hyperparameters.get("seed", 0))
    features = manifest.declaration.features
    explanation = explain(features, evaluation.held_out, evaluation.predict, manifest.labels, seed)
    return {
        PAGE: _page(manifest, evaluation, explanation),
        CARD: _json(model_card(manifest, evaluation, explanation)),
        QUALITY: _json(model_quality(manifest, evaluation)),
    }


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _page(manifest: Manifest, evaluation: Evaluation, explanation: Explanation) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    estimator = manifest.hyperparameters.get("estimator")
    knobs = [knob for knob in manifest.declaration.hyperparameters if not knob.estimators or estimator in knob.estimators]
    return environment.get_template("report.html").render(
        model=manifest.declaration,
        manifest=manifest,
        estimator=str(estimator).replace("_", " "),
        metrics=_metrics(manifest),
        knobs=[(knob, manifest.hyperparameters.get(knob.name)) for knob in knobs],
        held_out=len(evaluation.held_out),
        answered=len(evaluation.train),
        intervals=evaluation.intervals,
        explanation=explanation,
        classes=_classes(manifest, evaluation),
        **_figures(manifest, evaluation, explanation),
    )


def _metrics(manifest: Manifest) -> list[Mapping[str, Any]]:
    """Return a row a metric: its name, its value on training and held-out rows, and the latter's bounds."""
    names = dict.fromkeys(name.partition(":")[2] for name in manifest.metrics)
    return [
        {
            "name": name.replace("_", " "),
            "train": manifest.metrics.get(f"train:{name}"),
            "held_out": manifest.metrics.get(f"validation:{name}"),
            "bounds": manifest.confidence.get(f"validation:{name}"),
        }
        for name in names
    ]


def _figures(manifest: Manifest, evaluation: Evaluation, explanation: Explanation) -> dict[str, Any]:
    target = manifest.declaration.target
    answer = plots.short(f"{target.name} ({target.unit})" if target.unit else target.name, 34)
    cost = "accuracy lost" if manifest.labels else f"RMSE gained{f' ({target.unit})' if target.unit else ''}"
    label = "probability" if manifest.labels else answer
    return {
        "quality": _class_plots(evaluation) if manifest.labels else _number_plots(evaluation, answer),
        "coverage": _coverage_plot(evaluation.intervals),
        "importances": plots.importances(explanation.importances, cost),
        "curves": [
            plots.curve(curve, number, label, manifest.labels, explanation.bounds)
            for number, curve in enumerate(explanation.curves)
        ],
    }


def _coverage_plot(intervals: Intervals | None) -> Markup | None:
    return plots.coverage(intervals.coverage) if intervals and intervals.coverage else None


def _number_plots(evaluation: Evaluation, answer: str) -> Sequence[tuple[Markup, str]]:
    actual, predicted = evaluation.held_out.table.target.astype(np.float64), evaluation.held_out.answers.values
    half_width = evaluation.intervals.half_width if evaluation.intervals else None
    about = "Actual against predicted. On the line both agree"
    about += "; the band is the prediction interval." if half_width is not None else "."
    shown = min(len(actual), plots.POINTS)
    if shown < len(actual):
        about += f" {shown:,} rows of {len(actual):,} are drawn."
    return [
        (plots.predicted_actual(actual, predicted, answer, half_width), about),
        (plots.residuals(actual, predicted, answer), "Residuals: right of zero the model was too low."),
    ]


def _class_plots(evaluation: Evaluation) -> Sequence[tuple[Markup, str]]:
    probabilities: Any = evaluation.held_out.answers.probabilities
    right = evaluation.held_out.answers.values == evaluation.held_out.table.target
    stated = np.clip(probabilities.max(axis=1), 0, 1)
    share, said = calibration_curve(
        right, stated, n_bins=min(10, max(2, len(right) // 20)), strategy="quantile", pos_label=True
    )
    about = "Reliability: of answers with some probability, how many were right. On the line the probabilities can be trusted."
    return [(plots.reliability(said, share), about)]


def _classes(manifest: Manifest, evaluation: Evaluation) -> Sequence[tuple[str, Sequence[int]]]:
    """Return the confusion matrix, a row an actual label; empty for numbers and for more labels than a page can hold."""
    if not 0 < len(manifest.labels) <= CELLS:
        return []
    return list(zip(manifest.labels, confusion(manifest.labels, evaluation), strict=True))


def figure(value: object) -> str:
    """Return a value as a person reads it: six digits, thousands apart."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
