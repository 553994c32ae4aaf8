"""The model registry: groups, their numbered versions, and the approval that gates a deployment."""

from __future__ import annotations

from functools import partial
from typing import Any

from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, Record, World, now

_CHANGED = ("ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard", "ModelLifeCycle")
"""What UpdateModelPackage replaces."""


def repeated(world: World, asked: Asked) -> Record | None:
    """Return what the same ClientToken made before: a request that is sent again makes nothing new."""
    token = asked.request.get("ClientToken")
    made = world.of_kind(asked.region, "ModelPackage")
    return next((each for each in made if token and each.request.get("ClientToken") == token), None)


def name(world: World, asked: Asked) -> str:
    """Return what a package will be called: its own name, or GROUP/VERSION."""
    group = bare(asked.request.get("ModelPackageGroupName", ""))
    if not group:
        return str(asked.request.get("ModelPackageName", ""))
    known = world.find(asked.region, "ModelPackageGroup", group)
    return f"{group}/{known.facts['_versions'] + 1}" if known else f"{group}/1"


def check(world: World, asked: Asked) -> None:
    """Refuse a package with no name or with two, or of a group that isn't there."""
    group = bare(asked.request.get("ModelPackageGroupName", ""))
    if bool(group) == bool(asked.request.get("ModelPackageName")):
        raise Refused("ValidationException", "Exactly one of ModelPackageGroupName and ModelPackageName must be given.")
    if group and world.find(asked.region, "ModelPackageGroup", group) is None:
        arn = f"arn:aws:sagemaker:{asked.region}:{ACCOUNT}:model-package-group/{group.lower()}"
        raise Refused("ValidationException", f"ModelPackageGroup {arn} does not exist.")


def start(world: World, record: Record) -> None:
    """Number a version, and begin."""
    group = record.request.get("ModelPackageGroupName", "")
    approval = record.request.get("ModelApprovalStatus") or ("PendingManualApproval" if group else None)
    record.facts |= {"ModelApprovalStatus": approval, "ModelPackageStatusDetails": {"ValidationStatuses": []}}
    if group:
        record.request["ModelPackageGroupName"] = bare(group)
        known = world.records[record.region, "ModelPackageGroup", bare(group)]
        known.facts["_versions"] += 1  # a number is never given twice, even if its version is deleted
        record.facts |= {"ModelPackageVersion": known.facts["_versions"], "ModelPackageName": bare(group)}
    record.turn("InProgress")
    record.plan = [partial(_settle, world, record)]


def start_group(world: World, record: Record) -> None:
    """A group is there at once."""
    record.facts |= {"_versions": 0, "CreatedBy": {}}
    record.turn("Completed")


def end_group(world: World, record: Record) -> None:
    """Delete a group, unless it has versions."""
    versions = [
        each
        for each in world.of_kind(record.region, "ModelPackage")
        if each.request.get("ModelPackageGroupName") == record.name
    ]
    if versions:
        raise Refused("ConflictException", f"{record.arn} has {len(versions)} model packages: delete them first.")
    world.drop(record)


def update(world: World, record: Record, request: dict[str, Any]) -> None:
    """Change approval, metadata or card of a package."""
    record.facts |= {name: request[name] for name in _CHANGED if name in request}
    metadata = {**record.request.get("CustomerMetadataProperties", {}), **request.get("CustomerMetadataProperties", {})}
    gone = request.get("CustomerMetadataPropertiesToRemove", ())
    record.request["CustomerMetadataProperties"] = {key: value for key, value in metadata.items() if key not in gone}
    record.facts["LastModifiedTime"] = now()


def bare(called: str) -> str:
    """Return the name of a group that is given by name or ARN."""
    return called.rpartition("/")[2]


def _settle(world: World, record: Record) -> None:
    script = world.script("model-package", record.name)
    record.turn("Failed" if script.is_failed else "Completed")
    if script.is_failed:
        failed = {"Name": bare(record.name), "Status": "Failed", "FailureReason": script.why("The validation failed.")}
        record.facts["ModelPackageStatusDetails"] = {"ValidationStatuses": [failed]}
