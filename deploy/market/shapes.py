r"""A request against botocore's model of SageMaker, by its validator and by the bounds that it leaves to the service.

A pattern that Python's expressions can't say (letters of any script, `\p{L}`) is left to the service.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

SHOWN = 60
"""Characters of a value in a message."""


def shape_faults(operation: str, request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a request has that its operation does not take: unknown and missing members, types, lengths, words."""
    shape = _service().operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        yield from report.generate_report().splitlines()
    yield from _beyond(shape, request, "request")


def is_whole(operation: str, request: Mapping[str, Any]) -> bool:
    """Say whether lists are lists and objects objects, so that one can look into them."""
    return _fits(_service().operation_model(operation).input_shape, request)


@cache
def _service() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"))


def _fits(shape: Shape, value: Any) -> bool:
    if isinstance(shape, StructureShape):
        return isinstance(value, dict) and all(
            _fits(shape.members[name], one) for name, one in value.items() if name in shape.members
        )
    if isinstance(shape, ListShape):
        return isinstance(value, list) and all(_fits(shape.member, one) for one in value)
    return not isinstance(shape, MapShape) or isinstance(value, dict)


def _beyond(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if isinstance(value, (str, list, dict)):
        yield from _length(shape, value, where)
    if isinstance(shape, StringShape) and isinstance(value, str):
        yield from _word(shape, value, where)
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, one in value.items():
            if name in shape.members:
                yield from _beyond(shape.members[name], one, f"{where}.{name}")
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _beyond(shape.member, one, f"{where}[{index}]")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        for name, one in value.items():
            yield from _beyond(shape.key, name, f"{where}'s name")
            yield from _beyond(shape.value, one, f"{where}.{name}")


def _length(shape: Shape, value: str | list[Any] | dict[str, Any], where: str) -> Iterator[str]:
    """The validator holds a lower bound, but no upper one."""
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield f"{where} has {len(value):,} {'characters' if isinstance(value, str) else 'entries'}; {most:,} is the most"


def _word(shape: StringShape, value: str, where: str) -> Iterator[str]:
    pattern = shape.metadata.get("pattern", "")
    if shape.enum and value not in shape.enum:
        some = ", ".join(shape.enum) if len(shape.enum) < 10 else f"{len(shape.enum)} words that the API knows"
        yield f"{where} is {value[:SHOWN]!r}; one of {some} was expected"
    elif pattern and r"\p{" not in pattern and not re.fullmatch(pattern, value, re.DOTALL):
        yield f"{where} is {value[:SHOWN]!r}, which does not match {pattern}"
