"""Rules on single hyperparameters: their types, their bounds as text, and the values they are given (M-3, M-5)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from deploy.cloud import Request
from deploy.market.sold import Fault, Sold, repeated

RANGE = "ParameterRangeSpecification"
MOST_VALUES = 30
FREE, CATEGORY, NUMBERS = "FreeText", "Categorical", {"Integer": int, "Continuous": float}


def bounds_faults(name: str, knob: Request) -> Iterator[Fault]:
    """Yield what is wrong with a hyperparameter's type and range."""
    kind, given = knob.get("Type", ""), knob.get("Range", {})
    expected = [] if kind == FREE else [f"{kind}{RANGE}"]
    if kind == FREE and knob.get("IsTunable"):
        yield f"Hyperparameter {name} is text and tunable", "Declare it a number or a category, or not tunable"
    if knob.get("IsTunable") and not given and kind != FREE:
        yield f"Hyperparameter {name} is tunable without a range", "Give its range"
    if given and list(given) != expected:
        yield f"Hyperparameter {name} is {kind} with {', '.join(given)}", f"Give it {', '.join(expected) or 'no range'}"
    elif given and kind == CATEGORY:
        yield from _categories(name, given[f"{kind}{RANGE}"].get("Values", []))
    elif given:
        yield from _numbers(name, kind, given[f"{kind}{RANGE}"])


def default_faults(name: str, knob: Request) -> Iterator[Fault]:
    """Yield what is wrong with a hyperparameter's default."""
    if "DefaultValue" not in knob:
        return
    if knob.get("IsRequired"):
        yield f"Hyperparameter {name} is required and has a default", "Leave out one of the two"
    if why := outside(knob, knob["DefaultValue"]):
        yield f"Hyperparameter {name} has the default {knob['DefaultValue']}, {why}", "Bring it inside"


def value_faults(sold: Sold) -> Iterator[Fault]:
    """Yield what the validation's training job sets otherwise than declared."""
    for job in sold.trainings:
        given = job.get("HyperParameters", {})
        for name, value in given.items():
            if name not in sold.knobs:
                yield f"The validation sets hyperparameter {name}, which is not declared", "Declare it, or leave it out"
            elif why := outside(sold.knobs[name], value):
                yield f"The validation sets hyperparameter {name} to {value}, {why}", "Bring it inside"
        for name, knob in sold.knobs.items():
            if knob.get("IsRequired") and name not in given:
                yield f"The validation does not set hyperparameter {name}, which is required", "Set it"


def outside(knob: Request, value: Any) -> str:
    """Return why a value is none that a hyperparameter takes; empty where it is one."""
    kind = knob.get("Type", "")
    bounds = knob.get("Range", {}).get(f"{kind}{RANGE}", {})
    if kind == CATEGORY and bounds:
        values: Sequence[str] = bounds.get("Values", [])
        return "" if value in values else f"which is none of {', '.join(map(str, values))}"
    if kind not in NUMBERS:
        return ""
    number, low, high = (read(kind, one) for one in (value, bounds.get("MinValue", "-inf"), bounds.get("MaxValue", "inf")))
    if number is None:
        return f"which is no number of type {kind}"
    if low is not None and high is not None and not low <= number <= high:
        return f"outside of {bounds.get('MinValue')} to {bounds.get('MaxValue')}"
    return ""


def read(kind: str, text: Any) -> float | None:
    """Return the number that a text is of a type, with infinities; None where it is none."""
    if not isinstance(text, str):
        return None
    if text in {"inf", "-inf"}:
        return float(text)
    try:
        number = NUMBERS[kind](text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _categories(name: str, values: Sequence[str]) -> Iterator[Fault]:
    if not 1 <= len(values) <= MOST_VALUES:
        yield f"Hyperparameter {name} has {len(values)} values", f"Give 1 to {MOST_VALUES}"
    if twice := repeated(list(values)):
        yield f"Hyperparameter {name} has {', '.join(map(str, twice))} twice", "Name each value once"


def _numbers(name: str, kind: str, bounds: Request) -> Iterator[Fault]:
    ends = [bounds.get("MinValue"), bounds.get("MaxValue")]
    for end in ends:
        if not isinstance(end, str):
            yield f"Hyperparameter {name} has the bound {end!r}, which is no text", f'Write it as text: "{end}"'
        elif (number := read(kind, end)) is None or math.isinf(number):
            yield f"Hyperparameter {name} is {kind} with the bound {end}", "Write a number of that type"
    low, high = (read(kind, end) for end in ends)
    if low is not None and high is not None and low > high:
        yield f"Hyperparameter {name} goes from {ends[0]} to {ends[1]}", "Give the lower bound first"
