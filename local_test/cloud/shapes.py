"""Whether a value is what AWS's own model of an operation says: botocore's checks, and those it leaves to the service."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

_CLASSES = {"L": r"\w", "M": "", "Z": r"\s", "N": r"\d", "S": r"!-/:-@\[-`{-~", "P": r"!-/:-@\[-`{-~", "Alnum": r"\w"}
"""Java's classes of characters, as near as Python's `re` has them: wider by some letters, never narrower in ASCII."""


@cache
def service(name: str) -> ServiceModel:
    """Return botocore's model of a service, by the name that boto3.client takes."""
    return ServiceModel(Loader().load_service_model(name, "service-2"), name)


@cache
def has(service_name: str, name: str) -> bool:
    """Say whether a service has an operation."""
    return name in service(service_name).operation_names


def operation(service_name: str, name: str) -> OperationModel:
    """Return botocore's model of an operation."""
    return service(service_name).operation_model(name)


def wrong(value: Mapping[str, Any], shape: Shape | None) -> str:
    """Return what is wrong with a request or an answer, in AWS's manner of saying it; empty if nothing is."""
    if shape is None:
        return "" if not value else f"nothing was expected, not {sorted(value)}"
    report = ParamValidator().validate(value, shape)
    found = [report.generate_report()] if report.has_errors() else []
    found += () if found else _beyond(value, shape, "")
    return f"{len(found)} validation error{'s' * (len(found) > 1)} detected: {'; '.join(found)}" if found else ""


def _beyond(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Yield where a value passes what botocore's validator doesn't look at: the most, the pattern, the choices."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _beyond(value[name], member, f"{path}.{name}" if path else name)
    elif shape.type_name == "list":
        yield from _too_many(value, shape, path)
        for index, item in enumerate(value):
            yield from _beyond(item, shape.member, f"{path}.{index + 1}.member")
    elif shape.type_name == "map":
        yield from _too_many(value, shape, path)
        for key, item in value.items():
            yield from _beyond(key, shape.key, f"{path}.key")
            yield from _beyond(item, shape.value, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from _text(value, shape, path)
    elif shape.type_name in {"integer", "long", "float", "double"} and value > shape.metadata.get("max", value):
        yield f"Value '{value}' at '{path}' failed to satisfy constraint: at most {shape.metadata['max']}"


def _too_many(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if len(value) > shape.metadata.get("max", len(value)):
        yield f"Value at '{path}' failed to satisfy constraint: at most {shape.metadata['max']} members, not {len(value)}"


def _text(value: str, shape: Shape, path: str) -> Iterator[str]:
    facts = shape.metadata
    said = f"Value '{value[:80]}' at '{path}' failed to satisfy constraint: Member must"
    if len(value) > facts.get("max", len(value)):
        yield f"{said} have length less than or equal to {facts['max']}"
    if value not in facts.get("enum", [value]):
        yield f"{said} satisfy enum value set: {facts['enum']}"
    pattern = _pattern(facts.get("pattern", ""))
    if pattern and not pattern.fullmatch(value):
        yield f"{said} satisfy regular expression pattern: {facts['pattern']}"


@cache
def _pattern(text: str) -> re.Pattern[str] | None:
    """Return a pattern of the model's, which is Java's, or nothing where Python can't read it."""
    python = re.sub(r"\\p\{(\w+)\}", lambda found: _CLASSES.get(found[1], r"\w"), text)
    try:
        return re.compile(python, re.DOTALL) if text else None
    except re.error:
        return None
