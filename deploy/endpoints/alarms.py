"""The alarms that turn an update of an endpoint back: those that are named, or ones that are made for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deploy.cloud import Cloud
from deploy.endpoints.variants import VARIANT
from deploy.errors import NotThere, Refused
from deploy.settings import Update

NAMESPACE = "AWS/SageMaker"


def guards(cloud: Cloud, endpoint: str, update: Update) -> list[str]:
    """Return the names of the alarms that may turn an update back; make those that are missing.

    Raises:
        NotThere: an alarm that is named does not exist.
        Refused: one is in ALARM before the update begins, which would be turned back at once.
    """
    if not update.guard:
        return []
    names = list(update.alarms)
    if not names:
        for alarm in _made_for(endpoint, update):
            make_alarm(cloud, alarm)
            names.append(alarm["AlarmName"])
    states = states_of(cloud, names)
    if missing := [name for name in update.alarms if name not in states]:
        raise NotThere(f"There is no alarm {', '.join(missing)} in {cloud.region}. Make it, or leave out --alarms.")
    if ringing := [name for name, state in states.items() if state == "ALARM"]:
        raise Refused(
            f"{', '.join(ringing)} is in ALARM now: an update would be turned back at once. Cure what it tells of; or, where "
            "the update is the cure, update without alarms: --no-guard."
        )
    return names


def make_alarm(cloud: Cloud, alarm: dict[str, Any]) -> None:
    """Make an alarm where it is not there as it should be."""
    name = alarm["AlarmName"]
    there = cloud.read("cloudwatch", "describe_alarms", AlarmNames=[name])["MetricAlarms"]
    if there and agrees(there[0], alarm):
        return
    cloud.change("cloudwatch", "put_metric_alarm", f"{'Change' if there else 'Make'} alarm {name}", **alarm)


def agrees(found: Any, wanted: Any) -> bool:
    """Say whether what AWS has is what was asked for; what AWS adds by itself does not count."""
    if isinstance(wanted, Mapping):
        return all(name in found and agrees(found[name], value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(agrees, found, wanted))
    return bool(found == wanted)


def states_of(cloud: Cloud, names: Sequence[str]) -> dict[str, str]:
    """Return the state of each alarm that exists: OK, ALARM or INSUFFICIENT_DATA."""
    if not names:
        return {}
    found = cloud.read("cloudwatch", "describe_alarms", AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    return {str(alarm["AlarmName"]): str(alarm["StateValue"]) for kind in ALARM_KINDS for alarm in found.get(kind, [])}


ALARM_KINDS = ("MetricAlarms", "CompositeAlarms")


def _made_for(endpoint: str, update: Update) -> Iterator[dict[str, Any]]:
    """Yield the alarms for an endpoint that has none of its own.

    `Invocation5XXErrors` is 1 or 0 for each request, so that its average is the share of failures; `ModelLatency` is in
    microseconds (DOC:monitoring-cloudwatch). What callers do wrong (4xx) turns nothing back. A minute without requests is fine.
    """
    shared = {
        "Namespace": NAMESPACE,
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": VARIANT}],
        "Period": 60,
        "EvaluationPeriods": 1,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    yield {
        "AlarmName": f"{endpoint}-errors",
        "AlarmDescription": f"More than {update.error_percent:g}% of the requests to {endpoint} were answered with 5xx.",
        "MetricName": "Invocation5XXErrors",
        "Statistic": "Average",
        "Threshold": update.error_percent / 100,
        **shared,
    }
    if update.latency_ms:
        yield {
            "AlarmName": f"{endpoint}-latency",
            "AlarmDescription": f"One in a hundred requests to {endpoint} took more than {update.latency_ms:g} ms.",
            "MetricName": "ModelLatency",
            "ExtendedStatistic": "p99",
            "Threshold": update.latency_ms * 1000,
            **shared,
        }
