"""A tuning job: its training jobs stand at once, complete with it, and the best of them is told."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from local_test.cloud import jobs
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import Record, Script, World, now

_DEFINED = ("RoleArn", "OutputDataConfig", "ResourceConfig", "StoppingCondition", "InputDataConfig", "VpcConfig")


def check(world: World, asked: Asked) -> None:
    """Refuse a job without a definition of its training jobs."""
    if "TrainingJobDefinition" not in asked.request and "TrainingJobDefinitions" not in asked.request:
        raise Refused("ValidationException", "TrainingJobDefinition or TrainingJobDefinitions must be given.")


def start(world: World, record: Record) -> None:
    """Begin, with as many training jobs as are allowed."""
    config = record.request["HyperParameterTuningJobConfig"]
    number = config["ResourceLimits"]["MaxNumberOfTrainingJobs"] if "ResourceLimits" in config else 1
    record.turn("InProgress")
    record.facts |= {"Strategy": config["Strategy"], "ResourceLimits": config.get("ResourceLimits")}
    record.facts["_children"] = [_child(world, record, index) for index in range(number)]
    record.plan = [partial(_tuned, world, record)]
    _count(record)


def glance(world: World, record: Record) -> None:
    """Count again."""
    _count(record)


def stop(world: World, record: Record) -> None:
    """Begin to stop it and all of its training jobs."""
    if record.status in jobs.ENDED:
        raise Refused("ValidationException", f"The request was rejected because the job is in status {record.status}.")
    record.turn("Stopping")
    record.plan, record.looks = [partial(_end, world, record, Script("stopped"))], 0


def children(record: Record) -> list[Record]:
    """Return a tuning job's training jobs."""
    return list(record.facts["_children"])


def _child(world: World, record: Record, index: int) -> Record:
    """Make one training job, as the definition says, with hyperparameters from the ranges."""
    definition = record.request.get("TrainingJobDefinition") or record.request["TrainingJobDefinitions"][0]
    ranges = record.request["HyperParameterTuningJobConfig"].get("ParameterRanges") or definition.get(
        "HyperParameterRanges", {}
    )
    tuned = _chosen(ranges, index)
    name = f"{record.name}-{index + 1:03d}-{hashlib.sha256(f'{record.name}{index}'.encode()).hexdigest()[:8]}"
    request = {each: definition[each] for each in _DEFINED if each in definition}
    request["AlgorithmSpecification"] = definition["AlgorithmSpecification"]
    request["HyperParameters"] = {**definition.get("StaticHyperParameters", {}), **tuned}
    arn = f"{record.arn.rpartition(':')[0]}:training-job/{name.lower()}"
    child = Record("TrainingJob", name, arn, record.region, request, dict(record.tags), now())
    jobs.start_training(world, child)
    child.plan = []  # it ends with the tuning job
    child.facts |= {"TuningJobArn": record.arn, "TuningJobName": record.name, "TunedHyperParameters": tuned}
    world.keep(child)
    return child


def _chosen(ranges: Mapping[str, Any], index: int) -> dict[str, str]:
    """Return a value of every range: the least first, then nearer to the most."""
    chosen: dict[str, str] = {}
    for kind, many in ranges.items():
        for each in (
            many if kind in {"IntegerParameterRanges", "ContinuousParameterRanges", "CategoricalParameterRanges"} else ()
        ):
            if "Values" in each:
                chosen[each["Name"]] = each["Values"][index % len(each["Values"])]
                continue
            least, most = float(each["MinValue"]), float(each["MaxValue"])
            value = most - (most - least) / (index + 1)
            chosen[each["Name"]] = str(int(value) if kind.startswith("Integer") else value)
    return chosen


def _tuned(world: World, record: Record) -> None:
    _end(world, record, world.script("hyper-parameter-tuning-job", record.name))


def _end(world: World, record: Record, script: Script) -> None:
    """End every training job, and tell the best."""
    objective = _objective(record)
    for index, child in enumerate(children(record)):
        value = script.objectives[index] if index < len(script.objectives) else float(index + 1)
        one = Script(script.outcome, script.reason, {objective["MetricName"]: value}, (), script.artifact, script.logs)
        jobs.settle(world, child, one)
        if child.status == "Completed":
            said = {"Type": objective["Type"], "MetricName": objective["MetricName"], "Value": value}
            child.facts |= {"FinalHyperParameterTuningJobObjectiveMetric": said, "ObjectiveStatus": "Succeeded"}
    record.turn({"failed": "Failed", "capacity": "Failed", "stopped": "Stopped"}.get(script.outcome, "Completed"))
    record.facts |= {"HyperParameterTuningEndTime": now(), "BestTrainingJob": _best(record, objective)}
    record.facts |= {"FailureReason": script.why("All training jobs failed.")} if record.status == "Failed" else {}
    _count(record)


def _objective(record: Record) -> dict[str, Any]:
    definition = record.request.get("TrainingJobDefinition") or record.request["TrainingJobDefinitions"][0]
    config = record.request["HyperParameterTuningJobConfig"]
    fallback = {"Type": "Minimize", "MetricName": "objective"}
    return config.get("HyperParameterTuningJobObjective") or definition.get("TuningObjective") or fallback


def _best(record: Record, objective: Mapping[str, Any]) -> dict[str, Any] | None:
    done = [child for child in children(record) if child.status == "Completed"]
    sign = 1 if objective["Type"] == "Minimize" else -1
    best = min(done, key=lambda child: sign * child["FinalHyperParameterTuningJobObjectiveMetric"]["Value"], default=None)
    if best is None:
        return None
    facts = ("TrainingStartTime", "TrainingEndTime", "TrainingJobStatus", "TunedHyperParameters", "ObjectiveStatus")
    told = {name: best[name] for name in (*facts, "FinalHyperParameterTuningJobObjectiveMetric")}
    return {"TrainingJobName": best.name, "TrainingJobArn": best.arn, "CreationTime": best.created, **told}


def _count(record: Record) -> None:
    """Count training jobs by how they stand."""
    statuses = [child.status for child in children(record)]
    counted = {name: statuses.count(name) for name in ("Completed", "InProgress", "Stopped")}
    failed, left = statuses.count("Failed"), counted["InProgress"]
    record.facts["TrainingJobStatusCounters"] = {**counted, "RetryableError": 0, "NonRetryableError": failed}
    record.facts["ObjectiveStatusCounters"] = {"Succeeded": counted["Completed"], "Pending": left, "Failed": failed}
