"""Drift at a glance: how many values lie outside what training saw, are missing, or are which choice of a category.

Counted where the matrix is (a thread of an inference slot for large bodies) and added up elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Feature
from serving.cells import Matrix

BLOCK_ROWS = 8_192
"""Rows compared at once: a large body's comparisons would take several times its matrix."""

Counts = NDArray[Any]
"""(n_counters,) integers or, of one row, booleans; in the order of `Drift.counters`."""


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts the values of one column from `low` to `high`, both included; without them the missing ones."""

    feature: str
    column: int
    what: str
    """`below_minimum`, `above_maximum`, `missing`, or the name of a choice."""
    is_choice: bool = False
    low: float | None = None
    high: float | None = None


class Drift:
    """What is counted of a model's features, given what training saw of each (`Manifest.ranges`)."""

    def __init__(self, features: Sequence[Feature], ranges: Mapping[str, Mapping[str, Any]]) -> None:
        counters = [
            counter
            for column, feature in enumerate(features)
            for counter in _counters(feature, column, ranges.get(feature.name, {}))
        ]
        self._bounds = [_bounds(feature, ranges.get(feature.name, {})) for feature in features]
        intervals = [counter for counter in counters if counter.low is not None]
        missing = [counter for counter in counters if counter.low is None]
        self.counters = [*intervals, *missing]
        self._columns = np.array([counter.column for counter in intervals], dtype=np.intp)
        self._lows = np.array([counter.low for counter in intervals], dtype=np.float32)
        self._highs = np.array([counter.high for counter in intervals], dtype=np.float32)
        self._nullable = np.array([counter.column for counter in missing], dtype=np.intp)

    def count(self, matrix: Matrix) -> Counts | None:
        """Return each counter's number of values among the rows; None where all are zero, as of most rows that come alone."""
        if len(matrix) == 1:
            return None if self._is_inside(matrix) else self._hits(matrix)[0]
        counts = np.zeros(len(self.counters), dtype=np.int64)
        for start in range(0, len(matrix), BLOCK_ROWS):
            counts += self._hits(matrix[start : start + BLOCK_ROWS]).sum(axis=0)
        return counts

    def _is_inside(self, row: Matrix) -> bool:
        """Say whether every value of one row is a number that training saw between others; NumPy takes longer to begin."""
        for value, (below, above) in zip(row[0].tolist(), self._bounds, strict=True):  # noqa: SIM110  # `all` takes twice as long
            if not below < value < above:
                return False
        return True

    def _hits(self, rows: Matrix) -> NDArray[np.bool_]:
        values = rows.take(self._columns, axis=1)
        inside = (values >= self._lows) & (values <= self._highs)  # a missing value is in no interval
        if not len(self._nullable):
            return inside
        return np.concatenate((inside, np.isnan(rows.take(self._nullable, axis=1))), axis=1)


def _counters(feature: Feature, column: int, seen: Mapping[str, Any]) -> Iterator[Counter]:
    if feature.kind == "category":
        for index, choice in enumerate(feature.choices):
            yield Counter(feature.name, column, choice, is_choice=True, low=index, high=index)
    elif _has_range(seen):
        below, above = _bounds(feature, seen)
        yield Counter(feature.name, column, "below_minimum", low=-np.inf, high=below)
        yield Counter(feature.name, column, "above_maximum", low=above, high=np.inf)
    if feature.nullable:
        yield Counter(feature.name, column, "missing")


def _has_range(seen: Mapping[str, Any]) -> bool:
    return seen.get("minimum") is not None and seen.get("maximum") is not None


def _bounds(feature: Feature, seen: Mapping[str, Any]) -> tuple[float, float]:
    """Return the largest number below what is counted for nothing, and the smallest above; of a category all is counted."""
    if feature.kind == "category":
        return np.inf, -np.inf
    if not _has_range(seen):
        return -np.inf, np.inf
    below = np.nextafter(np.float32(seen["minimum"]), np.float32(-np.inf))
    above = np.nextafter(np.float32(seen["maximum"]), np.float32(np.inf))
    return float(below), float(above)
