"""What a model declares of itself: features, target, hyperparameters. `model/` makes it, the manifest carries it.

From this one declaration come validation, the columns check, the pages, the payloads and the listings.
"""

from __future__ import annotations

import math
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

AUTO = "auto"
"""The choice of `estimator` that stands for a search over the others, and over their tunable knobs."""

SCALES = ("linear", "logarithmic", "reverse_logarithmic")

MOST_KNOBS, MOST_CHOICES = 100, 30
"""M-2, M-3: what an algorithm resource takes."""


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
    """What a number may be; a job that asks for more is refused."""
    choices: tuple[str, ...] = ()
    estimators: tuple[str, ...] = ()
    tunable: bool = False
    """Whether a better value may be searched for: by a tuning job, or by `estimator=auto`."""
    scale: Literal["linear", "logarithmic", "reverse_logarithmic"] = "linear"
    """How values are spread over `search`: logarithmic where 0.01 is to 0.1 what 0.1 is to 1; reverse where 0.99 is to 0.9."""
    search: tuple[float, float] | None = None
    """The part of `range` worth searching; None means all of it."""

    @property
    def bounds(self) -> tuple[float, float]:
        """What is searched of a number: `search`, else `range`."""
        return self.search or self.range or (-math.inf, math.inf)

    def belongs_to(self, estimator: str) -> bool:
        """Return whether an estimator has this knob."""
        return not self.estimators or estimator in self.estimators


@dataclass(frozen=True)
class Declaration:
    """A model's description of itself; `check` it before use."""

    name: str
    title: str
    about: str
    features: tuple[Feature, ...]
    target: Target
    hyperparameters: tuple[Hyperparameter, ...]
    intended_use: str = ""
    """For the report and the model card: what the model is good for."""
    limits: str = ""
    """For the same: what it must not be used for, and why; what is wrong with its data."""

    @property
    def feature_names(self) -> list[str]:
        """The features' names, in the order of the matrix's columns."""
        return [feature.name for feature in self.features]

    @property
    def estimators(self) -> tuple[str, ...]:
        """The algorithms that can be chosen, without `auto`, which chooses among them."""
        chosen = next((knob for knob in self.hyperparameters if knob.name == "estimator"), None)
        return tuple(name for name in chosen.choices if name != AUTO) if chosen else ()

    def tunable(self, estimator: str) -> list[Hyperparameter]:
        """Return the knobs to search for one algorithm, which is itself chosen and so not among them."""
        return [
            knob for knob in self.hyperparameters if knob.tunable and knob.name != "estimator" and knob.belongs_to(estimator)
        ]

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
            intended_use=document.get("intended_use", ""),
            limits=document.get("limits", ""),
        )


def check(declaration: Declaration) -> Declaration:
    """Return the declaration when it holds together.

    Raises:
        BadDeclaration: it does not; every fault is on a line of its own.
    """
    faults = [*_name_faults(declaration), *_feature_faults(declaration), *_target_faults(declaration.target)]
    if len(declaration.hyperparameters) > MOST_KNOBS:  # M-2
        faults.append(f"hyperparameters: {len(declaration.hyperparameters)} declared; the platform takes {MOST_KNOBS}.")
    for knob in declaration.hyperparameters:
        faults += [*_hyperparameter_faults(knob), *_search_faults(knob)]
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
    if len(knob.choices) > MOST_CHOICES:  # M-3
        yield f"{where}: {len(knob.choices)} choices declared; the platform takes {MOST_CHOICES}."


def _search_faults(knob: Hyperparameter) -> Iterator[str]:
    """Yield what a tuning job would refuse of a knob's scale and search range."""
    where = f"hyperparameter {knob.name!r}"
    if knob.kind not in {"integer", "continuous"}:
        if knob.scale != "linear" or knob.search:
            yield f"{where}: only a number has a scale and a range to search; a {knob.kind} is searched by its values."
        return
    if knob.search and not knob.tunable:
        yield f"{where}: it has a range to search but isn't tunable; set tunable=True or leave the range out."
    if knob.range and knob.search and not knob.range[0] <= knob.search[0] < knob.search[1] <= knob.range[1]:
        yield f"{where}: search {knob.search} is no growing part of its range {knob.range}."
    if knob.scale not in SCALES:
        yield f"{where}: scale {knob.scale!r} is not one of {', '.join(SCALES)}."
    elif knob.scale == "logarithmic" and knob.bounds[0] <= 0:
        yield f"{where}: a logarithmic scale begins above 0, not at {knob.bounds[0]:g}; give `search` a lower end above 0."
    elif knob.scale == "reverse_logarithmic" and (knob.kind == "integer" or not 0 <= knob.bounds[0] < knob.bounds[1] < 1):
        yield f"{where}: a reverse logarithmic scale takes a continuous number from 0 to below 1."


def _repeated(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]
