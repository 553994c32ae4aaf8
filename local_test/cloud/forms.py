"""AWS's query protocol, by the model's shapes: a form becomes a request, an answer becomes XML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count, takewhile
from typing import Any
from xml.sax.saxutils import escape

from botocore.model import Shape

NUMBERS = {"integer": int, "long": int, "float": float, "double": float}


def parsed(form: Mapping[str, str], shape: Shape | None, at: str = "") -> Any:
    """Return what stands in a form below a name: `Names.member.1=a` is {"Names": ["a"]}."""
    if shape is None:
        return {}
    if shape.type_name == "structure":
        inner = {name: f"{at}.{name}" if at else name for name in shape.members}
        return {name: parsed(form, shape.members[name], path) for name, path in inner.items() if _has(form, path)}
    if shape.type_name == "list":
        places = (f"{at}.{number}" if shape.serialization.get("flattened") else f"{at}.member.{number}" for number in count(1))
        return [parsed(form, shape.member, place) for place in takewhile(lambda place: _has(form, place), places)]
    if shape.type_name == "boolean":
        return form[at] == "true"
    return NUMBERS.get(shape.type_name, str)(form[at])


def answered(operation: str, given: Mapping[str, Any], shape: Shape | None) -> str:
    """Return an operation's answer."""
    inner = "".join(_elements(given, shape)) if shape else ""
    result = f"<{operation}Result>{inner}</{operation}Result>"
    return f"<{operation}Response>{result}<ResponseMetadata><RequestId>0</RequestId></ResponseMetadata></{operation}Response>"


def _has(form: Mapping[str, str], path: str) -> bool:
    return any(name == path or name.startswith(f"{path}.") for name in form)


def _elements(value: Any, shape: Any) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if name in value:
                yield f"<{name}>{''.join(_elements(value[name], member))}</{name}>"
    elif shape.type_name == "list":
        for item in value:
            yield f"<member>{''.join(_elements(item, shape.member))}</member>"
    else:
        yield str(value).lower() if isinstance(value, bool) else escape(str(value))
