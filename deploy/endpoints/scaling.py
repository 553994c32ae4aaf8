"""`autoscale`: as many instances as there is work for; an asynchronous endpoint has none when there is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.endpoints.alarms import NAMESPACE, agrees, make_alarm
from deploy.endpoints.combinations import refuse_scaling
from deploy.endpoints.standing import DIMENSION, Standing, needed, reach, resource_of, target_of
from deploy.errors import Refused
from deploy.names import checked
from deploy.options import takes
from deploy.prices import hourly
from deploy.settings import Account, Endpoint, Scaling

SERVICE = "application-autoscaling"
Policy = dict[str, Any]


@click.command()
@takes(Account, Endpoint, Scaling)
def autoscale(account: Account, wanted: Endpoint, scaling: Scaling) -> None:
    """Let an endpoint have as many instances as there is work for, between two numbers.

    Real-time: by requests a minute and instance. Asynchronous: by requests that wait, down to none. --fixed ends it.
    """
    refuse_scaling(scaling)
    cloud = Cloud(account)
    there = _quiet(cloud, needed(cloud, checked(wanted.endpoint or account.name)))
    if scaling.fixed:
        _end(cloud, there)
    else:
        refuse_scaling(scaling, there.kind)
        _register(cloud, there, scaling)
        _track(cloud, there, scaling)
        _wake(cloud, there, scaling)
    click.echo("Next: python -m deploy status")


def names_of(endpoint: str) -> tuple[str, str]:
    """Return the names of what an endpoint scales by: the policy that tracks its work, and what wakes it from zero.

    The second is a policy and an alarm.
    """
    return f"{endpoint}-work", f"{endpoint}-wake"


def _quiet(cloud: Cloud, there: Standing) -> Standing:
    """Return an endpoint that is in service: AWS registers no other."""
    if there.status == "InService" or cloud.account.dry_run:
        return there
    if not cloud.account.wait:
        raise Refused(f"Endpoint {there.name} is {there.status}. Run this again when it is InService, or let it wait: --wait.")
    reach(cloud, there.name, there.coming or there.config)
    return needed(cloud, there.name)


def _register(cloud: Cloud, there: Standing, scaling: Scaling) -> None:
    target = target_of(cloud, there.name)
    wanted = {"MinCapacity": scaling.min_count, "MaxCapacity": scaling.max_count}
    if agrees(target, wanted):
        click.echo(f"Endpoint {there.name} has {scaling.min_count} to {scaling.max_count} instances already.")
        return
    use = "Async" if there.kind == "async" else "Hosting"
    cloud.change(
        SERVICE,
        "register_scalable_target",
        f"Let endpoint {there.name} have {scaling.min_count} to {scaling.max_count} instances",
        costs=f"at most {hourly(cloud, use, there.instance_type, scaling.max_count)}",
        **_variant(there),
        **wanted,
        **({"Tags": None} if target else {}),  # API:RegisterScalableTargetRequest: they are taken when it is made
    )


def _track(cloud: Cloud, there: Standing, scaling: Scaling) -> None:
    """Make the policy that keeps work and instances in step."""
    tracking: Policy = {"ScaleInCooldown": scaling.scale_in_s, "ScaleOutCooldown": scaling.scale_out_s}
    if there.kind == "async":
        tracking |= {
            "TargetValue": scaling.backlog,
            "CustomizedMetricSpecification": {
                "MetricName": "ApproximateBacklogSizePerInstance",
                "Namespace": NAMESPACE,
                "Dimensions": [{"Name": "EndpointName", "Value": there.name}],
                "Statistic": "Average",
            },
        }
        work = f"{scaling.backlog:g} waiting requests for each"
    else:
        tracking |= {
            "TargetValue": scaling.invocations,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        }
        work = f"{scaling.invocations:g} requests a minute for each"
    name, _ = names_of(there.name)
    _policy(cloud, there, name, work, TargetTrackingScalingPolicyConfiguration=tracking)


def _wake(cloud: Cloud, there: Standing, scaling: Scaling) -> None:
    """Make what starts the first instance of an endpoint that has none; remove it where there always is one.

    Where there is no instance, none waits for each: only `HasBacklogWithoutCapacity` is (DOC:async-inference-autoscale).
    """
    _, name = names_of(there.name)
    if scaling.min_count > 0:
        _remove(cloud, there, name)
        return
    step = {
        "AdjustmentType": "ChangeInCapacity",
        "MetricAggregationType": "Average",
        "Cooldown": scaling.scale_in_s,
        "StepAdjustments": [{"MetricIntervalLowerBound": 0.0, "ScalingAdjustment": 1}],
    }
    arn = _policy(cloud, there, name, "the first when a request waits", StepScalingPolicyConfiguration=step)
    make_alarm(
        cloud,
        {
            "AlarmName": name,
            "AlarmDescription": f"Requests wait for endpoint {there.name}, which has no instance.",
            "Namespace": NAMESPACE,
            "MetricName": "HasBacklogWithoutCapacity",
            "Dimensions": [{"Name": "EndpointName", "Value": there.name}],
            "Statistic": "Average",
            "Period": 60,
            "EvaluationPeriods": 2,
            "DatapointsToAlarm": 2,
            "Threshold": 1.0,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "missing",
            "AlarmActions": [arn],
        },
    )


def _policy(cloud: Cloud, there: Standing, name: str, work: str, **policy: Any) -> str:
    """Make a policy where it is not there as it should be, and return its ARN."""
    found = _policies(cloud, there).get(name, {})
    if agrees(found, policy):
        click.echo(f"Scaling policy {name}: it is there.")
        return str(found["PolicyARN"])
    kind = "StepScaling" if "StepScalingPolicyConfiguration" in policy else "TargetTrackingScaling"
    answer = cloud.change(
        SERVICE,
        "put_scaling_policy",
        f"{'Change' if found else 'Make'} scaling policy {name}: {work}",
        PolicyName=name,
        PolicyType=kind,
        **_variant(there),
        **policy,
    )
    return str(answer.get("PolicyARN") or cloud.arn("autoscaling", f"scalingPolicy:{name}"))


def _end(cloud: Cloud, there: Standing) -> None:
    """Remove all by which an endpoint scales, and leave it the instances that it has."""
    for name in reversed(names_of(there.name)):
        _remove(cloud, there, name)
    if target_of(cloud, there.name):
        cloud.change(SERVICE, "deregister_scalable_target", f"Let endpoint {there.name} scale no longer", **_variant(there))
    else:
        click.echo(f"Endpoint {there.name} does not scale.")


def _remove(cloud: Cloud, there: Standing, name: str) -> None:
    if cloud.read("cloudwatch", "describe_alarms", AlarmNames=[name])["MetricAlarms"]:
        cloud.change("cloudwatch", "delete_alarms", f"Delete alarm {name}", AlarmNames=[name])
    if name in _policies(cloud, there):
        cloud.change(SERVICE, "delete_scaling_policy", f"Delete scaling policy {name}", PolicyName=name, **_variant(there))


def _policies(cloud: Cloud, there: Standing) -> Mapping[str, Mapping[str, Any]]:
    found = cloud.pages(SERVICE, "describe_scaling_policies", "ScalingPolicies", **_variant(there))
    return {str(policy["PolicyName"]): policy for policy in found}


def _variant(there: Standing) -> Policy:
    return {"ServiceNamespace": "sagemaker", "ResourceId": resource_of(there.name), "ScalableDimension": DIMENSION}
