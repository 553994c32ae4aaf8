"""What moto's application-autoscaling does not tell: what it has done, and the tags of what it scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from local_test.cloud import inside
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import World

SPACES = ("sagemaker", "ecs", "lambda")
_TARGET = ("ServiceNamespace", "ResourceId", "ScalableDimension")


def activities(world: World, asked: Asked) -> dict[str, Any]:
    """Answer DescribeScalingActivities: those that were given, the newest first."""
    wanted = {name: asked.request[name] for name in _TARGET if name in asked.request}
    chosen = [each for each in reversed(world.activities) if all(each.get(name) == value for name, value in wanted.items())]
    return {"ScalingActivities": chosen[: asked.request.get("MaxResults", 50)]}


def register(world: World, asked: Asked) -> None:
    """Keep the tags of RegisterScalableTarget, which moto answers; they count when a target is made, not when it changes."""
    world.target_tags.setdefault(_key(asked.region, asked.request), dict(asked.request.get("Tags", {})))


def deregister(world: World, asked: Asked) -> None:
    """Forget the tags of a target and its policies, which moto would keep; moto answers DeregisterScalableTarget."""
    client, target = (
        inside.client(world, "application-autoscaling", asked.region),
        {name: asked.request[name] for name in _TARGET},
    )
    for policy in client.describe_scaling_policies(**target)["ScalingPolicies"]:
        client.delete_scaling_policy(PolicyName=policy["PolicyName"], **target)
    world.target_tags.pop(_key(asked.region, asked.request), None)


def tags(world: World, asked: Asked) -> dict[str, Any]:
    """Answer ListTagsForResource."""
    return {"Tags": _tags(world, asked)}


def tag(world: World, asked: Asked) -> dict[str, Any]:
    """Answer TagResource."""
    _tags(world, asked).update(asked.request["Tags"])
    return {}


def untag(world: World, asked: Asked) -> dict[str, Any]:
    """Answer UntagResource."""
    kept = _tags(world, asked)
    for key in asked.request["TagKeys"]:
        kept.pop(key, None)
    return {}


def tagged(world: World, region: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the ARN and the tags of every scalable target of a Region."""
    client = inside.client(world, "application-autoscaling", region)
    for space in SPACES if world.target_tags else ():
        for target in client.describe_scalable_targets(ServiceNamespace=space)["ScalableTargets"]:
            yield target["ScalableTargetARN"], world.target_tags.get(_key(region, target), {})


def _tags(world: World, asked: Asked) -> dict[str, str]:
    arn = asked.request["ResourceARN"]
    found = next((tags for each, tags in tagged(world, asked.region) if each == arn), None)
    if found is None:
        raise Refused("ResourceNotFoundException", f"There is no scalable target {arn}.")
    return found


def _key(region: str, target: dict[str, Any]) -> tuple[str, ...]:
    return (region, *(target[name] for name in _TARGET))
