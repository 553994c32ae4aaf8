"""An algorithm: the platform looks at its image, and runs its validation, before it is Completed."""

from __future__ import annotations

from functools import partial
from typing import Any

from local_test.cloud.wire import Refused
from local_test.cloud.world import Record, World


def start(world: World, record: Record) -> None:
    """Begin with the check."""
    record.turn("InProgress")
    record.facts |= {"AlgorithmStatusDetails": _details(record, "InProgress")}
    record.plan = [partial(_settle, world, record)]


def end(world: World, record: Record) -> None:
    """Delete it, unless it is being checked."""
    if record.status == "InProgress":
        raise Refused("ConflictException", f"{record.arn} is being validated: delete it when it is Completed or Failed.")
    world.drop(record)


def _settle(world: World, record: Record) -> None:
    script = world.script("algorithm", record.name)
    record.turn("Failed" if script.is_failed else "Completed")
    record.facts["AlgorithmStatusDetails"] = _details(record, record.status, script.why("The validation failed."))


def _details(record: Record, status: str, reason: str = "") -> dict[str, Any]:
    profiles = record.request.get("ValidationSpecification", {}).get("ValidationProfiles", ())
    more = {"FailureReason": reason} if status == "Failed" else {}
    return {
        "ValidationStatuses": [{"Name": profile["ProfileName"], "Status": status, **more} for profile in profiles],
        "ImageScanStatuses": [{"Name": record.name, "Status": status, **more}],
    }
