"""How many instances of each type the account may have, beside how many are asked for: the commonest reason why a job fails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.cloud import Cloud
from deploy.errors import DeployError
from deploy.preflight.checks import Asked, Finding, Status

RECENT = timedelta(minutes=30)
"""AWS counts what is in use every few minutes."""


@dataclass(frozen=True)
class Need:
    """Instances that a verb will ask for."""

    quota: str
    """Its name, as Service Quotas has it."""
    count: int


def needs(asked: Asked) -> list[Need]:
    """Return what training, an endpoint and a batch job take, by the settings."""
    training, endpoint, batch = asked.training, asked.endpoint, asked.batch
    use = "spot training job usage" if training.spot else "training job usage"
    return [
        Need(f"{training.training_type} for {use}", training.training_count),
        Need(f"{endpoint.instance_type} for endpoint usage", endpoint.instance_count),
        Need(f"{batch.batch_type} for transform job usage", batch.batch_count),
    ]


def quotas(asked: Asked) -> Iterator[Finding]:
    """Say of each instance type whether the account may have as many as are asked for."""
    wanted = {need.quota: need for need in needs(asked)}
    for told in asked.cloud.pages("service-quotas", "list_service_quotas", "Quotas", ServiceCode="sagemaker"):
        need = wanted.pop(told.get("QuotaName", ""), None)
        if need:
            yield _judged(asked.cloud, need, told)
        if not wanted:  # there are more than a thousand
            return
    for need in wanted.values():
        yield Finding(
            Status.WARN,
            f"{need.quota}: Service Quotas knows no such quota in {asked.cloud.region}",
            "See that the instance type is spelled right, and is to be had in this Region.",
        )


def _judged(cloud: Cloud, need: Need, told: dict[str, Any]) -> Finding:
    allowed, used = int(told.get("Value", 0)), _in_use(cloud, told.get("UsageMetric") or {})
    seen = f"{need.quota}: {need.count} wanted, {allowed} allowed" + (f", {used} in use" if used else "")
    ask = (
        f"Ask for more: aws service-quotas request-service-quota-increase --service-code sagemaker --quota-code "
        f"{told.get('QuotaCode')} --desired-value {need.count + used} --region {cloud.region}; or choose another instance type."
    )
    if allowed < need.count:
        return Finding(Status.FAIL, seen, ask)
    return Finding(Status.WARN, seen, ask) if allowed - used < need.count else Finding(Status.PASS, seen)


def _in_use(cloud: Cloud, metric: dict[str, Any]) -> int:
    """Return how many are in use, by the metric that goes with a quota; 0 where none does, or it can't be read."""
    if not metric:
        return 0
    now = datetime.now(UTC)
    try:
        told = cloud.read(
            "cloudwatch",
            "get_metric_statistics",
            Namespace=metric["MetricNamespace"],
            MetricName=metric["MetricName"],
            Dimensions=[{"Name": name, "Value": value} for name, value in metric.get("MetricDimensions", {}).items()],
            StartTime=now - RECENT,
            EndTime=now,
            Period=300,
            Statistics=["Maximum"],
        )
    except DeployError:
        return 0
    newest = max(told.get("Datapoints", []), key=lambda point: point["Timestamp"], default={"Maximum": 0})
    return int(newest["Maximum"])
