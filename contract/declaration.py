"""What a model declares of itself: features, target, hyperparameters. `model/` makes it, the manifest carries it.

From this one declaration come validation, the columns check, the pages, the payloads and the listings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from contract.errors import BadDeclaration

# Keys that requests use around a row (design: request shapes): a feature of that name could not be told from them.
RESERVED = frozenset({"instances", "predictions", "features", "data", "columns", "index", "dataframe_split", "parameters"})

# T-15: tuning jobs and the SDK add keys of their own.
PLATFORM_PREFIXES = ("_tuning_", "sagemaker_")


@dataclass(frozen=True)
class Feature:
    """One input column: a `number`, or a `category` read as the index of its choice."""

    name: str
    meaning: str
    kind: Literal["number", "category"] = "number"
    unit: str = ""
    range: tuple[float, float] | None = None
    """Values that make sense; shown to people, not enforced."""
    choices: tuple[str, ...] = ()
    """What a category may be; another value is an error that names these."""
    nullable: bool = False
    """Whether an empty cell, null or NaN is a value."""


@dataclass(frozen=True)
class Target:
    """What is predicted: a `number`, or a `class` out of `labels`."""

    name: str
    meaning: str
    kind: Literal["number", "class"] = "number"
    unit: str = ""
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    """Of a number: values that make sense; rows outside it are counted and kept."""


@dataclass(frozen=True)
class Hyperparameter:
    """One knob of training. `estimators` names those that have it; empty means all."""

    name: str
    meaning: str
    kind: Literal["integer", "continuous", "categorical", "boolean"]
    default: int | float | str | bool
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    estimators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """A model's description of itself; `check` it before use."""

    name: str
    title: str
    about: str
    features: tuple[Feature, ...]
    target: Target
    hyperparameters: tuple[Hyperparameter, ...]

    @property
    def feature_names(self) -> list[str]:
        """The features' names, in the order of the matrix's columns."""
        return [feature.name for feature in self.features]

    def to_json(self) -> dict[str, Any]:
        """Return the declaration as JSON types; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Declaration:
        """Return the declaration a manifest carries; keys it doesn't know are left out."""
        return cls(
            name=document["name"],
            title=document["title"],
            about=document["about"],
            features=tuple(_from_json(Feature, feature) for feature in document["features"]),
            target=_from_json(Target, document["target"]),
            hyperparameters=tuple(_from_json(Hyperparameter, knob) for knob in document["hyperparameters"]),
        )


def check(declaration: Declaration) -> Declaration:
    """Return the declaration when it holds together.

    Raises:
        BadDeclaration: it does not; every fault is on a line of its own.
    """
    faults = [*_name_faults(declaration), *_feature_faults(declaration), *_target_faults(declaration.target)]
    for knob in declaration.hyperparameters:
        faults += _hyperparameter_faults(knob)
    if faults:
        raise BadDeclaration("\n".join([f"model/ has {len(faults)} fault(s) in its declaration:", *faults]))
    return declaration


def _from_json(cls: type[Any], document: Mapping[str, Any]) -> Any:
    known = {field.name for field in fields(cls)}
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in known})


def _name_faults(declaration: Declaration) -> Iterator[str]:
    if len(declaration.name) > 63 or not re.fullmatch(r"[A-Za-z0-9](-*[A-Za-z0-9])*", declaration.name):  # H-44
        yield f"name {declaration.name!r}: it takes up to 63 letters, digits and inner hyphens, as SageMaker's names do."
    if not declaration.features:
        yield "features: there are none; a model takes at least one."
    columns = [*declaration.feature_names, declaration.target.name]
    for name in _repeated(columns):
        yield f"column {name!r} is declared twice; names must differ, the target's too."
    for name in _repeated([knob.name for knob in declaration.hyperparameters]):
        yield f"hyperparameter {name!r} is declared twice."


def _feature_faults(declaration: Declaration) -> Iterator[str]:
    for feature in declaration.features:
        where = f"feature {feature.name!r}"
        if feature.name != feature.name.strip() or not feature.name:
            yield f"{where}: a name is not empty and has no space at its ends."
        if feature.name in RESERVED:
            yield f"{where}: that name has a meaning in requests; rename the column. Reserved: {', '.join(sorted(RESERVED))}."
        if feature.kind == "category":
            yield from _choice_faults(where, "choices", feature.choices)
        elif feature.kind != "number":
            yield f"{where}: kind {feature.kind!r} is neither 'number' nor 'category'."
        elif feature.choices:
            yield f"{where}: only a category has choices."
        if feature.range and not feature.range[0] < feature.range[1]:
            yield f"{where}: range {feature.range} does not grow."


def _target_faults(target: Target) -> Iterator[str]:
    where = f"target {target.name!r}"
    if target.name != target.name.strip() or not target.name:
        yield f"{where}: a name is not empty and has no space at its ends."
    if target.kind == "class":
        yield from _choice_faults(where, "labels", target.labels, least=2)
    elif target.kind != "number":
        yield f"{where}: kind {target.kind!r} is neither 'number' nor 'class'."
    elif target.labels:
        yield f"{where}: only a class has labels."
    if target.range and target.kind != "number":
        yield f"{where}: only a number has a range."
    elif target.range and not target.range[0] < target.range[1]:
        yield f"{where}: range {target.range} does not grow."


def _choice_faults(where: str, what: str, values: Sequence[str], least: int = 1) -> Iterator[str]:
    if len(values) < least:
        yield f"{where}: {len(values)} {what} declared; at least {least} needed."
    if not all(isinstance(value, str) and value == value.strip() and value for value in values):
        yield f"{where}: {what} are texts, not empty and with no space at their ends."
    for value in _repeated(values):
        yield f"{where}: {value!r} stands twice among its {what}."


def _hyperparameter_faults(knob: Hyperparameter) -> Iterator[str]:
    where = f"hyperparameter {knob.name!r}"
    kinds: dict[str, type | tuple[type, ...]] = {
        "integer": int,
        "continuous": (int, float),
        "categorical": str,
        "boolean": bool,
    }
    expected = kinds.get(knob.kind)
    if expected is None:
        yield f"{where}: kind {knob.kind!r} is not one of integer, continuous, categorical, boolean."
    elif not isinstance(knob.default, expected) or (knob.kind != "boolean" and isinstance(knob.default, bool)):
        yield f"{where}: default {knob.default!r} is not of kind {knob.kind}."
    elif knob.kind == "categorical" and knob.default not in knob.choices:
        yield f"{where}: default {knob.default!r} is not among its choices."
    elif knob.range and not (isinstance(knob.default, (int, float)) and knob.range[0] <= knob.default <= knob.range[1]):
        yield f"{where}: default {knob.default!r} is outside its range {knob.range}."
    if knob.name.startswith(PLATFORM_PREFIXES):
        yield f"{where}: names that start so are the platform's and are passed over; rename it."
    if knob.kind in {"integer", "continuous"} and not knob.range:
        yield f"{where}: a number needs a range."


def _repeated(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]
