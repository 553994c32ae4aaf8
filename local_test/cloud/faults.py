"""Faults that a test plans: which call is to fail, and how that looks to the caller."""

from __future__ import annotations

from werkzeug import Response

from local_test.cloud import wire
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, Fault, World

KINDS = ("throttled", "refused", "broken", "dropped", "lost")
"""dropped: closed before anything was done; lost: done, but the answer never arrives."""


def plan(world: World, number: int, kind: str, times: int = 1, operation: str = "") -> None:
    """Have the number-th call from now fail, and as many after it as `times` says beyond one.

    Raises:
        ValueError: there is no such kind, or nothing would fail.
    """
    if kind not in KINDS or number < 1 or times < 1:
        raise ValueError(f"a fault has a kind of {', '.join(KINDS)}, a number and times from 1, not {kind}, {number}, {times}")
    with world.lock:
        world.faults.append(Fault(kind, number - 1, times, operation))


def due(world: World, asked: Asked) -> str:
    """Return the kind of fault that hits a call, or nothing; count it."""
    hit = ""
    with world.lock:
        for fault in world.faults:
            if fault.operation not in {"", asked.operation}:
                continue
            if fault.wait:
                fault.wait -= 1
            elif fault.times and not hit:
                fault.times -= 1
                hit = fault.kind
        world.faults = [fault for fault in world.faults if fault.times]
    return hit


def answered(asked: Asked, kind: str) -> Response:
    """Return the answer of a call that is throttled, refused or broken."""
    forms = asked.protocol in {"query", "rest-xml"}
    if kind == "throttled":
        if asked.service == "s3":
            return wire.error(asked, Refused("SlowDown", "Please reduce your request rate.", 503))
        return wire.error(asked, Refused("Throttling" if forms else "ThrottlingException", "Rate exceeded"))
    if kind == "refused":
        who = f"arn:aws:iam::{ACCOUNT}:user/berth"
        said = f"User: {who} is not authorized to perform: {asked.service.removesuffix('-runtime')}:{asked.operation}"
        return wire.error(asked, Refused("AccessDenied" if forms else "AccessDeniedException", said, 403 if forms else 400))
    return wire.error(asked, Refused("InternalError" if asked.service == "s3" else "InternalFailure", "An internal error", 500))
