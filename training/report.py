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
from training.card import CELLS, confusion, model_card, model_quality
from training.drawing import Drawer, Drawing
from training.evaluate import Evaluation
from training.explain import explain
from training.explanation import Explanation, short
from training.split import evenly

PAGE, CARD, QUALITY = REPORT
POINTS = 500
"""Rows whose actual value is drawn against the predicted one, at most."""


def draw(manifest: Manifest, evaluation: Evaluation, drawer: Drawer) -> dict[str, str]:
    """Return the report's files, by their names in the model directory."""
    drawer.ask(_drawings_of_rows(manifest, evaluation))
    seed = int(manifest.hyperparameters.get("seed", 0))
    features = manifest.declaration.features
    explanation = explain(features, evaluation.held_out, evaluation.predict, manifest.labels, seed)
    of_rows = drawer.figures()
    drawer.ask(_drawings_of_features(manifest, explanation))
    card, quality = model_card(manifest, evaluation, explanation), model_quality(manifest, evaluation)
    figures = _named(manifest, evaluation, of_rows, drawer.figures())
    return {PAGE: _page(manifest, evaluation, explanation, figures), CARD: _json(card), QUALITY: _json(quality)}


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _page(manifest: Manifest, evaluation: Evaluation, explanation: Explanation, figures: Mapping[str, Any]) -> str:
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
        **figures,
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


def _drawings_of_rows(manifest: Manifest, evaluation: Evaluation) -> list[Drawing]:
    """Return what shows how good the answers for held-out rows are, and last the intervals' coverage where it is known."""
    drawings = [_reliability(evaluation)] if manifest.labels else _errors(evaluation, _axis(manifest))
    intervals = evaluation.intervals
    return [*drawings, ("coverage", (intervals.coverage,))] if intervals and intervals.coverage else drawings


def _drawings_of_features(manifest: Manifest, explanation: Explanation) -> list[Drawing]:
    """Return what shows which features the answers rest on, and how."""
    unit = manifest.declaration.target.unit
    cost = "accuracy lost" if manifest.labels else f"RMSE gained{f' ({unit})' if unit else ''}"
    label = "probability" if manifest.labels else _axis(manifest)
    curves = enumerate(explanation.curves)
    return [
        ("importances", (explanation.importances, cost)),
        *(("curve", (curve, number, label, manifest.labels, explanation.bounds)) for number, curve in curves),
    ]


def _axis(manifest: Manifest) -> str:
    target = manifest.declaration.target
    return short(f"{target.name} ({target.unit})" if target.unit else target.name, 34)


def _named(
    manifest: Manifest, evaluation: Evaluation, of_rows: Sequence[Markup], of_features: Sequence[Markup]
) -> Mapping[str, Any]:
    """Return the figures by their names in the page, those of quality with what they say."""
    captions = _captions(manifest, evaluation)
    return {
        "quality": list(zip(of_rows, captions, strict=False)),
        "coverage": of_rows[len(captions)] if len(of_rows) > len(captions) else None,
        "importances": of_features[0],
        "curves": of_features[1:],
    }


def _captions(manifest: Manifest, evaluation: Evaluation) -> list[str]:
    if manifest.labels:
        return [
            "Reliability: of answers with some probability, how many were right. On the line the probabilities can be trusted."
        ]
    rows = len(evaluation.held_out)
    about = "Actual against predicted. On the line both agree"
    about += "; the band is the prediction interval." if evaluation.intervals else "."
    about += f" {POINTS:,} rows of {rows:,} are drawn." if rows > POINTS else ""
    return [about, "Residuals: right of zero the model was too low."]


def _errors(evaluation: Evaluation, answer: str) -> list[Drawing]:
    actual, predicted = evaluation.held_out.table.target.astype(np.float64), evaluation.held_out.answers.values
    half_width = evaluation.intervals.half_width if evaluation.intervals else None
    shown = evenly(len(actual), POINTS)
    return [
        ("predicted_actual", (actual[shown], predicted[shown], answer, half_width)),
        ("residuals", (actual, predicted, answer)),
    ]


def _reliability(evaluation: Evaluation) -> Drawing:
    probabilities: Any = evaluation.held_out.answers.probabilities
    right = evaluation.held_out.answers.values == evaluation.held_out.table.target
    stated = np.clip(probabilities.max(axis=1), 0, 1)
    share, said = calibration_curve(
        right, stated, n_bins=min(10, max(2, len(right) // 20)), strategy="quantile", pos_label=True
    )
    return "reliability", (said, share)


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
