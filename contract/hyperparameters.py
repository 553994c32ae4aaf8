"""Hyperparameters as they arrive, flat text in three spellings (T-14), against their declaration."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from contract.declaration import PLATFORM_PREFIXES, Hyperparameter
from contract.errors import BadHyperparameters

Value = int | float | str | bool


def parse_hyperparameters(raw: Mapping[str, str], declared: Sequence[Hyperparameter]) -> dict[str, Value]:
    """Return a value for every declared hyperparameter, defaults filled in.

    Args:
        raw: text as `hyperparameters.json` has it. Keys of the platform's own are passed over.
        declared: what may be set.

    Raises:
        BadHyperparameters: names are unknown or values out of range; every fault is on a line of its own.
    """
    known = {knob.name: knob for knob in declared}
    values: dict[str, Value] = {knob.name: knob.default for knob in declared}
    faults = []
    for name, text in raw.items():
        if name.startswith(PLATFORM_PREFIXES):
            continue
        if name not in known:
            faults.append(_unknown(name, known))
            continue
        try:
            values[name] = _parse(text, known[name])
        except ValueError as error:
            faults.append(f"{name} is {_short(text)}; {error}.")
    if faults:
        headline = faults[0] if len(faults) == 1 else f"{len(faults)} hyperparameters can't be used:"
        raise BadHyperparameters("\n".join([headline] if len(faults) == 1 else [headline, *faults]), faults=faults)
    return values


def ignored_hyperparameters(raw: Mapping[str, str], declared: Sequence[Hyperparameter], estimator: str) -> list[str]:
    """Return the names that were set but belong to other estimators.

    They are no error: a job from an algorithm resource arrives with every declared default filled in.
    """
    return [knob.name for knob in declared if knob.name in raw and knob.estimators and estimator not in knob.estimators]


def describe(knob: Hyperparameter) -> str:
    """Say in words what a hyperparameter takes."""
    if knob.kind == "boolean":
        return "true or false"
    if knob.kind == "categorical":
        return f"one of {', '.join(knob.choices)}"
    low, high = knob.range or (-math.inf, math.inf)
    return f"a whole number from {low:.0f} to {high:.0f}" if knob.kind == "integer" else f"a number from {low:g} to {high:g}"


def _parse(text: str, knob: Hyperparameter) -> Value:
    for candidate in _readings(text):
        value = _coerce(candidate, knob)
        if value is not None:
            return value
    raise ValueError(f"it takes {describe(knob)}")


def _readings(text: str) -> list[Any]:
    """Return what the text may mean, likeliest first: raw, as JSON, and as JSON within a JSON text."""
    readings: list[Any] = [text]
    while isinstance(readings[-1], str) and len(readings) < 4:
        try:
            readings.append(json.loads(readings[-1]))
        except (ValueError, RecursionError):
            break
    return readings


def _coerce(value: Any, knob: Hyperparameter) -> Value | None:
    if knob.kind == "categorical":
        return value if isinstance(value, str) and value in knob.choices else None
    if knob.kind == "boolean":
        word = str(value).strip().lower()
        return word == "true" if word in {"true", "false"} else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    low, high = knob.range or (-math.inf, math.inf)
    if not low <= value <= high or value in {math.inf, -math.inf}:  # NaN is within no bounds
        return None
    if knob.kind == "integer":
        return int(value) if value == int(value) else None  # tuning may send 5.0
    return float(value)


def _unknown(name: str, known: Mapping[str, Hyperparameter]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}."
    return f"{name if len(name) <= 60 else _short(name)} is not a hyperparameter of this model; {hint}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
