"""Reading settings from the environment; a bad value stops the start and names its variable."""

from __future__ import annotations

import re
from collections.abc import Mapping

from contract.errors import BadSetting

_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no", ""}


def read_integer(environ: Mapping[str, str], name: str, default: int, bounds: tuple[int, int]) -> int:
    """Return a whole number within bounds (both included); unset or empty gives the default.

    Raises:
        BadSetting: it is no whole number, or out of bounds.
    """
    raw = environ.get(name, "").strip()
    if not raw:
        return default
    low, high = bounds
    if not re.fullmatch(r"-?[0-9]{1,18}", raw) or not low <= int(raw) <= high:
        raise BadSetting(f"{name} is {raw[:60]!r}; it takes a whole number from {low:,} to {high:,}.", setting=name)
    return int(raw)


def read_flag(environ: Mapping[str, str], name: str) -> bool:
    """Return a yes-or-no setting, false when unset; case doesn't matter (H-25: local mode sends `True`).

    Raises:
        BadSetting: it is neither yes nor no.
    """
    raw = environ.get(name, "").strip()
    if raw.lower() not in _TRUE | _FALSE:
        raise BadSetting(f"{name} is {raw!r}; it takes true or false.", setting=name)
    return raw.lower() in _TRUE


def read_choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return one of the choices; unset or empty gives the first.

    Raises:
        BadSetting: it is none of them.
    """
    raw = environ.get(name, "").strip() or choices[0]
    if raw not in choices:
        raise BadSetting(f"{name} is {raw!r}; it takes one of: {', '.join(choices)}.", setting=name)
    return raw
