"""Rules on what an algorithm says of its training: channels, hyperparameters, metrics, objectives (M-2, M-3, T-36)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from contract.declaration import PLATFORM_PREFIXES
from deploy.cloud import Request
from deploy.market.knobs import bounds_faults, default_faults
from deploy.market.sold import Fault, Sold, repeated

NUMBER = r"[-+0-9.eE]+"


def channel_faults(sold: Sold) -> Iterator[Fault]:
    """Yield what is wrong with the channels as such; how many there may be is the API's model's."""
    if not sold.is_algorithm:
        return
    channels = sold.training.get("TrainingChannels", [])
    for name in repeated([one.get("Name") for one in channels]):
        yield f"Channel {name} is declared twice", "Declare it once"
    if not any(one.get("IsRequired") for one in channels):
        yield "No channel is required", "Require the one that `train` can't do without: training"
    for one in channels:
        if not one.get("SupportedContentTypes"):
            yield f"Channel {one.get('Name')} names no content type", "Name those that `train` reads"


def hyperparameter_faults(sold: Sold) -> Iterator[Fault]:
    """Yield what is wrong with the hyperparameters, one after the other."""
    for name in repeated([one.get("Name") for one in sold.training.get("SupportedHyperParameters", [])]):
        yield f"Hyperparameter {name} is declared twice", "Declare it once"
    for name, knob in sold.knobs.items():
        if name.startswith(PLATFORM_PREFIXES):
            yield f"Hyperparameter {name} begins as the platform's own do (T-15)", "Rename it"
        yield from bounds_faults(name, knob)
        yield from default_faults(name, knob)


def metric_faults(sold: Sold) -> Iterator[Fault]:
    """Yield each metric whose expression reads no number, or not one, from any line that the job prints."""
    definitions = sold.training.get("MetricDefinitions", [])
    for name in repeated([one.get("Name") for one in definitions]):
        yield f"Metric {name} is defined twice", "Define it once"
    for one in definitions:
        yield from _expression(one, sold)


def objective_faults(sold: Sold) -> Iterator[Fault]:
    """Yield each objective that is no metric, and knobs to tune without one to tune by."""
    known = {one.get("Name") for one in sold.training.get("MetricDefinitions", [])}
    objectives = sold.training.get("SupportedTuningJobObjectiveMetrics", [])
    for one in objectives:
        if one.get("MetricName") not in known:
            yield f"Objective {one.get('MetricName')} is none of the metrics", "Define the metric, or leave the objective out"
    if not objectives and any(knob.get("IsTunable") for knob in sold.knobs.values()):
        yield "Hyperparameters are tunable, but there is no objective to tune by", "Name one of the metrics"


def distributed_faults(sold: Sold) -> Iterator[Fault]:
    """Yield where the validation trains on more instances than buyers may."""
    for job in sold.trainings:
        count = job.get("ResourceConfig", {}).get("InstanceCount", 1)
        if count > 1 and not sold.training.get("SupportsDistributedTraining"):
            yield f"The validation trains on {count} instances", "Set SupportsDistributedTraining, or train on one"


def _expression(definition: Request, sold: Sold) -> Iterator[Fault]:
    name, expression = definition.get("Name", ""), definition.get("Regex", "")
    try:
        compiled = re.compile(expression)
    except re.error as error:
        yield f"The expression {expression} of metric {name} is none: {error}", "Correct it"
        return
    if compiled.groups != 1:
        yield f"The expression {expression} of metric {name} has {compiled.groups} groups", "Give it one, around the number"
        return
    read = [found[1] for line in sold.lines if (found := compiled.search(line))]
    if sold.lines and not read:
        yield f"The expression {expression} of metric {name} matches no line of the job's", "Make it match what `train` prints"
    for text in read[:1]:
        if not re.fullmatch(NUMBER, text or ""):
            yield f"The expression of metric {name} reads {text!r}", "Put its group around the number"
