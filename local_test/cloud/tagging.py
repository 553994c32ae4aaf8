"""What has a tag, whoever keeps it: moto's resources, those that its list leaves out, and the stand-in's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local_test.cloud import inside, resources, scaling
from local_test.cloud.resources import RESOURCES
from local_test.cloud.wire import Asked
from local_test.cloud.world import World

PAGE = 50


def found(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer GetResources; the stand-in's own question goes to moto."""
    if asked.inside:
        return None
    request = asked.request
    filters = {name: request[name] for name in ("TagFilters", "ResourceTypeFilters") if request.get(name)}
    pages = inside.client(world, "resourcegroupstaggingapi", asked.region).get_paginator("get_resources").paginate(**filters)
    items = [each for page in pages for each in page["ResourceTagMappingList"]]
    known = {each["ResourceARN"] for each in items}
    more = [*_left_out(world, asked.region), *_own(world, asked.region)]
    items += [_mapping(arn, tags) for arn, tags in more if arn not in known and _fits(arn, tags, request)]
    first, most = int(request.get("PaginationToken") or 0), request.get("ResourcesPerPage", PAGE)
    token = str(first + most) if len(items) > first + most else ""
    return {"PaginationToken": token, "ResourceTagMappingList": items[first : first + most]}


def _own(world: World, region: str) -> list[tuple[str, dict[str, str]]]:
    """Return ARN and tags of what the stand-in has in a Region; what is being deleted was seen once more."""
    with world.lock:
        for record in [each for each in world.records.values() if each.region == region and each.status == "Deleting"]:
            resources.look(world, record, RESOURCES[record.kind])
        return [(record.arn, record.tags) for record in world.records.values() if record.region == region]


def _left_out(world: World, region: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what AWS's list has and moto's has not: repositories, rules of events, scalable targets."""
    ecr, events = inside.client(world, "ecr", region), inside.client(world, "events", region)
    for repository in ecr.describe_repositories()["repositories"]:
        arn = repository["repositoryArn"]
        yield arn, _plain(ecr.list_tags_for_resource(resourceArn=arn)["tags"])
    for rule in events.list_rules()["Rules"]:
        yield rule["Arn"], _plain(events.list_tags_for_resource(ResourceARN=rule["Arn"])["Tags"])
    yield from scaling.tagged(world, region)


def _plain(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def _fits(arn: str, tags: Mapping[str, str], request: Mapping[str, Any]) -> bool:
    """Say whether something has the tags and is of a type that is asked for: `sagemaker`, `sagemaker:endpoint`."""
    service, _, rest = arn.split(":", 2)[2].partition(":")
    kind = rest.split(":", 2)[2].partition("/")[0]
    types = request.get("ResourceTypeFilters") or [service]
    wanted = request.get("TagFilters") or ()
    return bool(tags) and not {service, f"{service}:{kind}"}.isdisjoint(types) and all(_has(tags, each) for each in wanted)


def _has(tags: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    key, values = wanted["Key"], wanted.get("Values")
    return key in tags and (not values or tags[key] in values)


def _mapping(arn: str, tags: Mapping[str, str]) -> dict[str, Any]:
    return {"ResourceARN": arn, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
