"""The controls, over HTTP below /_cloud/: what `Cloud` asks for, from this process or another."""

from __future__ import annotations

import dataclasses
import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from werkzeug import Request, Response

from local_test.cloud import faults
from local_test.cloud.resources import RESOURCES
from local_test.cloud.world import OUTCOMES, Script, World

PREFIX = "/_cloud/"
SCRIPTED = {each.kind for each in RESOURCES.values()} - {"model", "endpoint-config", "model-package-group"}
"""What takes time, and may end one way or another."""


def answered(world: World, request: Request, reset: Callable[[], None]) -> Response:
    """Do what a control says: POST with a JSON object; the answer is JSON."""
    name = request.path.removeprefix(PREFIX)
    control = {**CONTROLS, "reset": lambda world: reset()}.get(name)
    if control is None:
        return Response(f"There is no control {name}; there are {', '.join(sorted([*CONTROLS, 'reset']))}.", 404)
    try:
        given = control(world, **json.loads(request.get_data() or b"{}"))
    except (TypeError, ValueError) as error:
        return Response(f"{name}: {error}", 400)
    return Response(json.dumps(given, default=str), 200, content_type="application/json")


def _calls(world: World) -> list[dict[str, Any]]:
    return [dataclasses.asdict(call) for call in world.calls]


def _defects(world: World) -> list[str]:
    found, world.defects = world.defects, []
    return found


def _script(world: World, kind: str, name: str, artifact: str | None = None, **more: Any) -> None:
    body = None if artifact is None else b64decode(artifact)
    if kind not in SCRIPTED:
        raise ValueError(f"a script is for one of {', '.join(sorted(SCRIPTED))}, not {kind}")
    if more.get("outcome", "completed") not in OUTCOMES:
        raise ValueError(f"an outcome is one of {', '.join(OUTCOMES)}, not {more['outcome']}")
    lists: dict[str, Any] = {key: tuple(more.pop(key)) for key in ("objectives", "logs") if key in more}
    world.scripts[kind, name] = Script(artifact=body, **{**more, **lists})


def _serve(world: World, name: str, url: str) -> None:
    world.served[name] = url


def _prices(world: World, products: list[dict[str, Any]]) -> None:
    world.prices = products


def _findings(world: World, repository: str, digest: str, findings: list[dict[str, Any]]) -> None:
    world.findings[repository, digest] = findings


def _activities(world: World, activities: list[dict[str, Any]]) -> None:
    world.activities = activities


def _quotas(world: World, quotas: list[dict[str, Any]]) -> None:
    world.quotas = quotas


def _deny(world: World, actions: list[str]) -> None:
    world.denied = set(actions)


def _calm(world: World) -> None:
    world.faults = []


def _looks(world: World, number: int) -> None:
    world.looks = number


CONTROLS: dict[str, Callable[..., Any]] = {
    "calls": _calls,
    "defects": _defects,
    "fail": faults.plan,
    "script": _script,
    "serve": _serve,
    "prices": _prices,
    "findings": _findings,
    "activities": _activities,
    "quotas": _quotas,
    "calm": _calm,
    "deny": _deny,
    "looks": _looks,
}
