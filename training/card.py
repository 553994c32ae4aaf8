"""What a model registry takes of a job: a model card, and quality metrics, in SageMaker's shapes (H-45)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from sklearn.metrics import precision_recall_fscore_support

from contract.manifest import Manifest
from training.evaluate import Evaluation
from training.explanation import Explanation

TEXT, NAME, CELLS, LISTED = 2048, 255, 20, 50
"""The card's schema bounds texts and names in characters, a matrix to 20 by 20, metrics to 50; the whole to 100,000."""
AXIS = 63

Document = dict[str, Any]


def model_card(manifest: Manifest, evaluation: Evaluation, explanation: Explanation) -> Document:
    """Return the ModelCardContent of CreateModelPackage.

    Source: "Model package model card schema", docs.aws.amazon.com/sagemaker/latest/dg/model-registry-details.html.
    """
    declaration, origin = manifest.declaration, manifest.origin
    return {
        "model_overview": {"model_creator": f"Berth {origin.get('image_version', '')}".strip()},
        "intended_uses": {
            "purpose_of_model": declaration.about[:TEXT],
            **({"intended_uses": declaration.intended_use[:TEXT]} if declaration.intended_use else {}),
            "risk_rating": "Unknown",
        },
        "training_details": _training(manifest),
        "evaluation_details": [
            {
                "name": "held-out rows",
                "evaluation_observation": f"{len(evaluation.held_out):,} rows that training did not see.",
                "metric_groups": _groups(manifest, evaluation, explanation),
            }
        ],
        "additional_information": {
            **({"ethical_considerations": declaration.limits[:TEXT]} if declaration.limits else {}),
            "caveats_and_recommendations": "Rows unlike those of the training data get predictions that nothing vouches for; "
            "report/report.html beside this card tells which ranges were seen.",
            "custom_details": _details(manifest),
        },
    }


def model_quality(manifest: Manifest, evaluation: Evaluation) -> Document:
    """Return the statistics that ModelMetrics.ModelQuality names, as Model Monitor's own jobs write them.

    Source: "Model quality metrics", docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html.
    """
    dataset = {"item_count": len(evaluation.held_out), "evaluation_time": manifest.origin["ended"]}
    measured: Document = {
        name.removeprefix("validation:"): {
            "value": value,
            "standard_deviation": manifest.confidence.get(name, {}).get("standard_deviation", "NaN"),
        }
        for name, value in manifest.metrics.items()
        if name.startswith("validation:")
    }
    if not manifest.labels:
        return {"version": 0.0, "dataset": dataset, "regression_metrics": measured}
    matrix = {
        actual: dict(zip(manifest.labels, row, strict=True))
        for actual, row in zip(manifest.labels, confusion(manifest.labels, evaluation), strict=True)
    }
    measured |= _weighted(evaluation)
    return {
        "version": 0.0,
        "dataset": dataset,
        "multiclass_classification_metrics": {"confusion_matrix": matrix, **measured},
    }


def confusion(labels: tuple[str, ...], evaluation: Evaluation) -> list[list[int]]:
    """Return how many held-out rows of each label (a row) were answered with which (a column)."""
    pairs = Counter(zip(evaluation.held_out.table.target.tolist(), evaluation.held_out.answers.values.tolist(), strict=True))
    return [[pairs[actual, answered] for answered in labels] for actual in labels]


def _weighted(evaluation: Evaluation) -> dict[str, Mapping[str, Any]]:
    actual, answered = evaluation.held_out.table.target, evaluation.held_out.answers.values
    found = precision_recall_fscore_support(actual, answered, average="weighted", zero_division=0.0)
    names = ("weighted_precision", "weighted_recall", "weighted_f1")
    return {name: {"value": float(value), "standard_deviation": "NaN"} for name, value in zip(names, found, strict=False)}


def _training(manifest: Manifest) -> Document:
    origin, job = manifest.origin, {}
    if origin.get("training_job_arn"):
        job["training_arn"] = origin["training_job_arn"][:1024]
    learnt = [{"name": name, "value": value} for name, value in manifest.metrics.items() if not name.startswith("validation:")]
    knobs = [{"name": name[:NAME], "value": str(value)[:NAME]} for name, value in manifest.hyperparameters.items()]
    observations = f"{manifest.data['train_rows']:,} rows were learnt from, {manifest.data['validation_rows']:,} held out."
    if origin.get("stopped_early"):
        observations += " A signal stopped the fit early; the model is as far as it had come."
    if origin.get("resumed_after_rounds"):
        observations += f" The fit went on from a checkpoint after {origin['resumed_after_rounds']:,} rounds."
    return {
        "training_observations": observations,
        "training_job_details": {
            **job,
            "user_provided_training_metrics": learnt[:LISTED],
            "user_provided_hyper_parameters": knobs[:100],
        },
    }


def _groups(manifest: Manifest, evaluation: Evaluation, explanation: Explanation) -> list[Document]:
    metrics = [
        {"name": name[:NAME], "type": "number", "value": value, **_bounds(manifest.confidence.get(name))}
        for name, value in manifest.metrics.items()
        if name.startswith("validation:")
    ]
    groups = [{"name": "metrics", "metric_data": metrics}]
    if explanation.importances:
        groups.append({"name": "permutation importance", "metric_data": [_importance(explanation)]})
    if evaluation.intervals and evaluation.intervals.coverage:
        points = [[level, share] for level, share in evaluation.intervals.coverage.items()]
        graph = {"name": "share of rows within the interval", "type": "linear_graph", "value": points}
        groups.append({"name": "prediction intervals", "metric_data": [{**graph, "x_axis_name": "level"}]})
    if 0 < len(manifest.labels) <= CELLS:
        axis = [label[:AXIS] for label in manifest.labels]
        matrix = {"name": "confusion matrix", "type": "matrix", "value": confusion(manifest.labels, evaluation)}
        groups.append({"name": "confusion", "metric_data": [{**matrix, "x_axis_name": axis, "y_axis_name": axis}]})
    return groups


def _bounds(confidence: Mapping[str, float] | None) -> Document:
    if confidence is None:
        return {}
    return {"notes": f"95 % interval from {confidence['low']:.6g} to {confidence['high']:.6g}"}


def _importance(explanation: Explanation) -> Document:
    shown = explanation.importances[:LISTED]
    return {
        "name": "what shuffling a feature costs",
        "type": "bar_chart",
        "value": [item.mean for item in shown],
        "x_axis_name": [item.feature.name[:AXIS] for item in shown],
        "y_axis_name": "RMSE" if not explanation.is_class else "accuracy",
    }


def _details(manifest: Manifest) -> dict[str, str]:
    declaration = manifest.declaration
    told = {
        "name": declaration.name,
        "title": declaration.title,
        "target": f"{declaration.target.name}: {declaration.target.meaning}",
        "features": ", ".join(declaration.feature_names),
        "training_data_sha256": str(manifest.data["sha256"]),
        "image_revision": str(manifest.origin.get("image_revision", "")),
        "training_job_name": str(manifest.origin.get("training_job_name", "")),
        "ended": str(manifest.origin["ended"]),
    }
    return {name: text[:1024] for name, text in told.items() if text}
