"""Service quotas, which moto has for other services only: those that were given, and none else."""

from __future__ import annotations

from typing import Any

from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import World

PAGE = 100


def list_all(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer ListServiceQuotas and ListAWSDefaultServiceQuotas."""
    chosen = _of_service(world, asked)
    if not chosen:
        return None
    first, most = int(asked.request.get("NextToken", 0)), asked.request.get("MaxResults", PAGE)
    more = {"NextToken": str(first + most)} if len(chosen) > first + most else {}
    return {"Quotas": chosen[first : first + most], **more}


def get(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer GetServiceQuota and GetAWSDefaultServiceQuota."""
    chosen = _of_service(world, asked)
    if not chosen:
        return None
    code = asked.request["QuotaCode"]
    found = next((each for each in chosen if each.get("QuotaCode") == code), None)
    if found is None:
        raise Refused("NoSuchResourceException", f"There is no quota {code} of {asked.request['ServiceCode']}.")
    return {"Quota": found}


def _of_service(world: World, asked: Asked) -> list[dict[str, Any]]:
    return [each for each in world.quotas if each.get("ServiceCode") == asked.request["ServiceCode"]]
