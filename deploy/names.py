"""Names that follow from what they name: the same thing has the same name, so that a second run finds the first one's work."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from deploy.errors import BadSettings

LONGEST = 63
"""H-44."""
DIGITS = 10


def fingerprint(*parts: Any) -> str:
    """Return ten hexadecimal digits that tell what the parts are, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]


def named(project: str, *parts: Any, longest: int = LONGEST) -> str:
    """Return the name of what a project makes out of some parts: its requests, settings, digests."""
    return f"{prefix(project, longest)}-{fingerprint(*parts)}"


def is_named(project: str, name: str, longest: int = LONGEST) -> bool:
    """Return whether a name is one that `named` gives to what a project makes."""
    return re.fullmatch(rf"{re.escape(prefix(project, longest))}-[0-9a-f]{{{DIGITS}}}", name) is not None


def prefix(project: str, longest: int = LONGEST) -> str:
    """Return how the names of what a project makes begin."""
    return checked(project)[: longest - DIGITS - 1].rstrip("-")


def checked(name: str) -> str:
    """Return a name as it is (H-44); raises BadSettings where SageMaker would not take it."""
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name):
        raise BadSettings(
            f"{name!r} is no name that SageMaker takes: 1 to {LONGEST} letters, digits and single hyphens between."
        )
    return name


def without(request: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a request without what does not tell what it makes."""
    return {name: value for name, value in request.items() if name not in names}
