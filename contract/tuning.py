"""What SageMaker's algorithm resources and tuning jobs are told of a model, in their own words, from its declaration.

Every number is text there (M-3). A tuning job searches the knobs of one estimator: those of another would be ignored by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from contract.declaration import Declaration, Hyperparameter
from contract.job import MODES, TRAINING, VALIDATION
from contract.media import TRAINED
from contract.metrics import Metric, metric_names, metric_regex

TYPES = {"integer": "Integer", "continuous": "Continuous", "categorical": "Categorical", "boolean": "Categorical"}
SCALING = {"linear": "Linear", "logarithmic": "Logarithmic", "reverse_logarithmic": "ReverseLogarithmic"}
COMPRESSIONS = ("None", "Gzip")
OBJECTIVE_PARTS = ("validation", "cv")
"""What a better model may be told by: rows it has not seen."""


def training_specification(declaration: Declaration, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return what `TrainingSpecification` of CreateAlgorithm says of a model; image and instances are to be added (M-2)."""
    return {
        "TrainingChannels": channels(),
        "SupportedHyperParameters": supported_hyperparameters(declaration),
        "MetricDefinitions": metric_definitions(metrics),
        "SupportedTuningJobObjectiveMetrics": objectives(metrics),
        "SupportsDistributedTraining": True,  # T-36: lightgbm learns on all hosts, others share folds and searches out
    }


def channels() -> list[dict[str, Any]]:
    """Return `TrainingChannels`: what `train` reads (M-2)."""
    told = {
        "SupportedContentTypes": [name for name in TRAINED if name],
        "SupportedInputModes": list(MODES),
        "SupportedCompressionTypes": list(COMPRESSIONS),
    }
    return [
        {"Name": TRAINING[0], "Description": "Rows to learn from; through a pipe as CSV alone.", "IsRequired": True, **told},
        {
            "Name": VALIDATION[0],
            "Description": "Rows to measure on; without it a share is split off.",
            "IsRequired": False,
            **told,
        },
    ]


def supported_hyperparameters(declaration: Declaration) -> list[dict[str, Any]]:
    """Return `SupportedHyperParameters` of CreateAlgorithm: each knob with all that it takes."""
    return [
        {
            "Name": knob.name,
            "Description": _description(knob),
            "Type": TYPES[knob.kind],
            "Range": {f"{TYPES[knob.kind]}ParameterRangeSpecification": _specification(knob)},
            "IsTunable": knob.tunable,
            "IsRequired": False,  # M-3: what is required may have no default, and each of ours has one
            "DefaultValue": text(knob.default),
        }
        for knob in declaration.hyperparameters
    ]


def metric_definitions(metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """Return `MetricDefinitions` (T-37): every name that a job may print and the expression that reads its value."""
    return [{"Name": name, "Regex": metric_regex(name)} for name in metric_names(metrics)]


def objectives(metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """Return `SupportedTuningJobObjectiveMetrics`; those of `cv` are there where `cv_folds` asks for them."""
    return [_objective(part, metric) for part in OBJECTIVE_PARTS for metric in metrics]


def parameter_ranges(declaration: Declaration, estimator: str) -> dict[str, list[dict[str, Any]]]:
    """Return `ParameterRanges` of a tuning job: what is worth searching of one estimator's knobs.

    Raises:
        ValueError: there is no such estimator; for `auto` a tuning job has nothing to search.
    """
    if estimator not in declaration.estimators:
        raise ValueError(f"estimator is {estimator!r}; one of {', '.join(declaration.estimators)} can be tuned.")
    ranges: dict[str, list[dict[str, Any]]] = {
        f"{kind}ParameterRanges": [] for kind in ("Integer", "Continuous", "Categorical")
    }
    for knob in declaration.tunable(estimator):
        ranges[f"{TYPES[knob.kind]}ParameterRanges"].append(_range(knob))
    return ranges


def tuning_job(declaration: Declaration, metrics: Sequence[Metric], estimator: str) -> dict[str, Any]:
    """Return the parts of CreateHyperParameterTuningJob that follow from the model; 20 jobs, two at a time, are a start.

    `StaticHyperParameters` and `AlgorithmSpecification.MetricDefinitions` go into its `TrainingJobDefinition`.
    """
    return {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "HyperParameterTuningJobObjective": _objective("validation", metrics[0]),
            "ResourceLimits": {"MaxNumberOfTrainingJobs": 20, "MaxParallelTrainingJobs": 2},
            "ParameterRanges": parameter_ranges(declaration, estimator),
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"estimator": estimator},
            "AlgorithmSpecification": {"MetricDefinitions": metric_definitions(metrics)},
        },
    }


def text(value: float | str | bool) -> str:
    """Return a value as hyperparameters are written: digits without an exponent, `true`, the word."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    plain = format(Decimal(repr(value)), "f")
    return plain.removesuffix(".0")


def _objective(part: str, metric: Metric) -> dict[str, str]:
    return {"Type": metric.goal, "MetricName": f"{part}:{metric.name}"}


def _description(knob: Hyperparameter) -> str:
    return f"{knob.meaning}. For {', '.join(knob.estimators)}." if knob.estimators else f"{knob.meaning}."


def _specification(knob: Hyperparameter) -> dict[str, Any]:
    if knob.range:
        number = int if knob.kind == "integer" else float
        return {"MinValue": text(number(knob.range[0])), "MaxValue": text(number(knob.range[1]))}
    return {"Values": _values(knob)}


def _range(knob: Hyperparameter) -> dict[str, Any]:
    if knob.kind not in {"integer", "continuous"}:
        return {"Name": knob.name, "Values": _values(knob)}
    number = int if knob.kind == "integer" else float
    low, high = (text(number(bound)) for bound in knob.bounds)
    return {"Name": knob.name, "MinValue": low, "MaxValue": high, "ScalingType": SCALING[knob.scale]}


def _values(knob: Hyperparameter) -> list[str]:
    return list(knob.choices) or ["true", "false"]
