"""Columns of cells to numbers: at the speed of their library, and one cell at a time for what that can't tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.cells import MISSING_WORDS, is_missing, read_number
from contract.declaration import Feature

Matrix = NDArray[np.float32]
"""(n_rows, n_features) float32, C-contiguous, in the manifest's order; a category is its index, a missing value NaN."""

LARGEST = 3.4028235677973366e38
"""Beyond it float32 rounds to infinity."""
MAX_NAMES = 30
NAN = math.nan
NUMBERS = {float, int, bool}
"""The types that JSON's true, false and numbers are read as."""
SPELLED_NAN = dict.fromkeys([*MISSING_WORDS, *map(str.upper, MISSING_WORDS), "NaN"], "nan")
"""What float() takes for a missing value, by the words that stand for one."""


def fit_float32(numbers: NDArray[np.float64]) -> Matrix | None:
    """Return numbers as float32; None where one is missing, infinite, or too large for it."""
    is_finite = len(numbers) and numbers.min() > -LARGEST and numbers.max() < LARGEST
    return numbers.astype(np.float32) if is_finite else None


def is_usable(values: Matrix, feature: Feature) -> bool:
    """Say whether a column of float32 is finite but for missing values where they are allowed, and indexes choices."""
    if not np.isfinite(values).all() and not (feature.nullable and not np.isinf(values).any()):
        return False
    if feature.kind == "number":
        return True
    present = values[~np.isnan(values)]
    return bool(((present >= 0) & (present < len(feature.choices)) & (present == np.floor(present))).all())


def text_column(cells: Sequence[str], feature: Feature, choices: Mapping[str, float]) -> NDArray[np.float64] | None:
    """Return a column of text cells as numbers; None where a cell by cell look has to decide."""
    if feature.kind == "category":
        return _indexes(cells, choices)
    spelled = list(map(SPELLED_NAN.get, cells, cells)) if feature.nullable else cells
    try:
        column = np.fromiter(map(float, spelled), dtype=np.float64, count=len(cells))
    except ValueError:
        return None
    # float() also takes 1_000, other scripts' digits and other spellings of nan.
    joined = "".join(cells)
    missing = sum(map(SPELLED_NAN.__contains__, cells)) if feature.nullable else 0
    return None if "_" in joined or not joined.isascii() or np.isnan(column).sum() != missing else column


def text_cell(cell: str, feature: Feature, choices: Mapping[str, float]) -> float:
    """Return a text cell's number; raises ValueError with what is wrong with it."""
    stripped = cell.strip()
    if stripped in choices:
        return choices[stripped]
    if is_missing(cell):
        return _missing(feature)
    if feature.kind == "category":
        raise ValueError(_unknown_choice(cell, feature))
    number = read_number(cell)
    if number is None or not _fits(number):
        raise ValueError(f"{short(cell)} is not a finite number of float32's range")
    return number


def value_column(values: Sequence[Any], feature: Feature, choices: Mapping[str, float]) -> NDArray[np.float64] | None:
    """Return a column of JSON values as numbers; None where a cell by cell look has to decide."""
    types = set(map(type, values))
    if feature.kind == "category":
        return _indexes(values, choices) if types == {str} else None
    # Texts and lists must not reach NumPy: an array of texts takes the longest one's room for each.
    return np.array(values, dtype=np.float64) if types <= (NUMBERS | {type(None)} if feature.nullable else NUMBERS) else None


def value_cell(value: Any, feature: Feature, choices: Mapping[str, float]) -> float:
    """Return a JSON value's number; raises ValueError with what is wrong with it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _missing(feature)
    if feature.kind == "category":
        name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(name, str) or name.strip() not in choices:
            raise ValueError(_unknown_choice(value, feature))
        return choices[name.strip()]
    if isinstance(value, str):
        raise ValueError(f"the text {short(value)} stands where a number was expected; numbers take no quotes")
    if not isinstance(value, (int, float)) or not _fits(value):
        raise ValueError(f"{short(value)} is not a finite number of float32's range")
    return float(value)


def index_cell(value: Any, feature: Feature, _: Mapping[str, float]) -> float:
    """Read a cell of a numeric array, where a category is given as the index of its choice."""
    if math.isnan(value):
        return _missing(feature)
    if feature.kind == "category" and value not in range(len(feature.choices)):
        raise ValueError(
            f"{value!r} is not the index of a choice, 0 to {len(feature.choices) - 1}: {', '.join(feature.choices)}"
        )
    if not _fits(value):
        raise ValueError(f"{value!r} is not a finite number of float32's range")
    return float(value)


def _indexes(values: Sequence[str], choices: Mapping[str, float]) -> NDArray[np.float64] | None:
    indexes = list(map(choices.get, values))
    return None if None in indexes else np.array(indexes, dtype=np.float64)


def _missing(feature: Feature) -> float:
    if not feature.nullable:
        raise ValueError("it is empty, null or NaN; a value was expected")
    return NAN


def _unknown_choice(value: Any, feature: Feature) -> str:
    return f"{short(value)} is not one of its choices: {', '.join(feature.choices[:MAX_NAMES])}"


def _fits(number: float) -> bool:
    return abs(number) < LARGEST


def short(value: Any) -> str:
    """Return a caller's value for a message, on one line and cut where it's long."""
    if isinstance(value, str):
        value = value[:100]
    text = repr(value)
    return text if len(text) <= 43 else text[:40] + "..."
