"""What SageMaker can make: one table, and the create, describe, list, delete and tags of every row, from botocore's model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from local_test.cloud import algorithms, endpoints, jobs, models, packages, tuning
from local_test.cloud.shapes import operation
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, Record, World, now

PAGE = 10
"""What a List gives at once, unless told."""


@dataclass(frozen=True)
class Resource:
    """One kind of thing, and what is its own about it."""

    name: str
    """In operations and members: CreateX, XName, XArn, XStatus."""
    kind: str
    """In the ARN."""
    title: str
    """In AWS's messages."""
    check: Callable[[World, Asked], None] = lambda world, asked: None
    """Refuses what can't be made."""
    start: Callable[[World, Record], None] = lambda world, record: None
    """Sets the first status, and plans the next."""
    glance: Callable[[World, Record], None] = lambda world, record: None
    """What happens whenever it is described."""
    end: Callable[[World, Record], None] = World.drop
    """Deletes it, or refuses to."""
    called: Callable[[World, Asked], str] | None = None
    """Its name, where that is not a member of the request."""
    again: Callable[[World, Asked], Record | None] = lambda world, asked: None
    """What the same request made before, where it carries a token."""
    is_job: bool = False
    """Its name is used up for ever, and its errors have other words."""

    def arn(self, region: str, name: str) -> str:
        """Return the ARN of a name; the platform writes it in small letters."""
        return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{self.kind}/{name.lower()}"


RESOURCES = {
    each.name: each
    for each in (
        Resource("Model", "model", "model", models.check),
        Resource("EndpointConfig", "endpoint-config", "endpoint configuration", endpoints.check_config),
        Resource("Endpoint", "endpoint", "endpoint", endpoints.check, endpoints.start, endpoints.glance, endpoints.end),
        Resource(
            "TrainingJob",
            "training-job",
            "training job",
            jobs.check,
            jobs.start_training,
            jobs.glance,
            jobs.end,
            is_job=True,
        ),
        Resource("TransformJob", "transform-job", "transform job", jobs.check_transform, jobs.start_transform, is_job=True),
        Resource(
            "HyperParameterTuningJob",
            "hyper-parameter-tuning-job",
            "tuning job",
            tuning.check,
            tuning.start,
            is_job=True,
            glance=tuning.glance,
            end=jobs.end,
        ),
        Resource("Algorithm", "algorithm", "algorithm", start=algorithms.start, end=algorithms.end),
        Resource(
            "ModelPackageGroup",
            "model-package-group",
            "model package group",
            start=packages.start_group,
            end=packages.end_group,
        ),
        Resource(
            "ModelPackage",
            "model-package",
            "model package",
            packages.check,
            packages.start,
            called=packages.name,
            again=packages.repeated,
        ),
    )
}


def create(world: World, asked: Asked, resource: Resource) -> dict[str, Any]:
    """Make something; the answer is its ARN."""
    request = dict(asked.request)
    tags = {tag["Key"]: tag["Value"] for tag in request.pop("Tags", ())}
    made = resource.again(world, asked)
    if made:
        return {f"{resource.name}Arn": made.arn}
    name = resource.called(world, asked) if resource.called else request[f"{resource.name}Name"]
    arn = resource.arn(asked.region, name)
    if world.find(asked.region, resource.name, name):
        raise _taken(resource, arn)
    resource.check(world, asked)
    record = Record(resource.name, name, arn, asked.region, request, tags, now())
    resource.start(world, record)
    world.keep(record)
    return {f"{resource.name}Arn": arn}


def describe(world: World, asked: Asked, resource: Resource) -> dict[str, Any]:
    """Say what is known of something, and let time pass for it."""
    record = found(world, asked, resource, asked.request[f"{resource.name}Name"])
    look(world, record, resource)
    if world.find(asked.region, resource.name, record.name) is None:
        raise missing(resource, record.arn)
    return _of_shape(record, operation("sagemaker", f"Describe{resource.name}").output_shape)


def delete(world: World, asked: Asked, resource: Resource) -> dict[str, Any]:
    """Delete something, or begin to."""
    resource.end(world, found(world, asked, resource, asked.request[f"{resource.name}Name"]))
    return {}


def list_all(world: World, asked: Asked, resource: Resource) -> dict[str, Any]:
    """List what fits the filters, a page at a time."""
    for record in world.of_kind(asked.region, resource.name):
        if record.status == "Deleting":
            look(world, record, resource)
    chosen = [each for each in world.of_kind(asked.region, resource.name) if _fits(each, asked.request)]
    return page(chosen, asked)


def page(records: list[Record], asked: Asked) -> dict[str, Any]:
    """Return one page of a List operation, in the order it asks for."""
    request, shape = asked.request, operation("sagemaker", asked.operation).output_shape
    by_name = request.get("SortBy") == "Name"
    ordered = sorted(records, key=lambda each: (each.name if by_name else "", each.created))
    if request.get("SortOrder", "Ascending" if by_name else "Descending") == "Descending":
        ordered.reverse()
    first, most = int(request.get("NextToken", 0)), request.get("MaxResults", PAGE)
    member = next(name for name, each in shape.members.items() if each.type_name == "list")
    items = [_of_shape(each, shape.members[member].member) for each in ordered[first : first + most]]
    more = {"NextToken": str(first + most)} if len(ordered) > first + most else {}
    return {member: items, **more}


def found(world: World, asked: Asked, resource: Resource, called: str) -> Record:
    """Return what has a name or an ARN.

    Raises:
        Refused: nothing has.
    """
    record = world.find(asked.region, resource.name, called) or by_arn(world, called)
    if record is None or record.kind != resource.name:
        raise missing(resource, called if called.startswith("arn:") else resource.arn(asked.region, called))
    return record


def by_arn(world: World, arn: str) -> Record | None:
    """Return what has an ARN, or nothing."""
    return next((record for record in world.records.values() if record.arn == arn), None)


def missing(resource: Resource, arn: str) -> Refused:
    """Return the error for what isn't there."""
    said = "Requested resource not found." if resource.is_job else f'Could not find {resource.title} "{arn}".'
    return Refused("ValidationException", said)


def look(world: World, record: Record, resource: Resource) -> None:
    """Let something be seen once more; after some looks its next step happens."""
    resource.glance(world, record)
    record.looks += 1
    while record.plan and record.looks > world.looks:
        record.looks = 1
        record.plan.pop(0)()


def tags_of(record: Record) -> list[dict[str, str]]:
    """Return the tags, in the API's form."""
    return [{"Key": key, "Value": value} for key, value in record.tags.items()]


def _taken(resource: Resource, arn: str) -> Refused:
    if resource.is_job:
        said = f"{resource.title.capitalize()} names must be unique within an AWS account and region, and {arn} exists already."
        return Refused("ResourceInUse", said)
    return Refused("ValidationException", f'Cannot create already existing {resource.title} "{arn}".')


def _of_shape(record: Record, shape: Any) -> dict[str, Any]:
    """Return those members of a shape that are known of a record."""
    known = {
        **record.request,
        f"{record.kind}Name": record.name,
        f"{record.kind}Arn": record.arn,
        "CreationTime": record.created,
        **record.facts,
    }
    return {name: known[name] for name in shape.members if known.get(name) is not None}


def _fits(record: Record, filters: Mapping[str, Any]) -> bool:
    created = record.created.timestamp()
    return (
        filters.get("NameContains", "").lower() in record.name.lower()
        and filters.get("StatusEquals", record.status) == record.status
        and filters.get("CreationTimeAfter", 0) <= created <= filters.get("CreationTimeBefore", created)
        and _is_asked(record, filters)
    )


def _is_asked(record: Record, filters: Mapping[str, Any]) -> bool:
    """Say whether a model package is of the group, the approval and the type asked for."""
    if record.kind != "ModelPackage":
        return True
    group = record.request.get("ModelPackageGroupName")
    wanted = filters.get("ModelPackageGroupName")
    kind = filters.get("ModelPackageType", "Versioned" if wanted else "Unversioned")
    return (
        (wanted is None or packages.bare(wanted) == group)
        and filters.get("ModelApprovalStatus", record.facts["ModelApprovalStatus"]) == record.facts["ModelApprovalStatus"]
        and kind in {"Both", "Versioned" if group else "Unversioned"}
    )


def owned(arns: Iterable[str]) -> bool:
    """Say whether ARNs are of kinds that stand in this table, rather than moto's."""
    kinds = {resource.kind for resource in RESOURCES.values()}
    return all(arn.partition(":sagemaker:")[2].split(":", 2)[-1].partition("/")[0] in kinds for arn in arns)
