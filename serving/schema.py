"""Cells to the model's matrix: the columns check, and the row and column of the first value that can't be used.

Columns are read whole, at the speed of their library; only when that fails are cells looked at one by one.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Feature
from contract.errors import BadData, SchemaMismatch, UnreadableBody
from serving.cells import (
    LARGEST,
    MAX_NAMES,
    NUMBERS,
    Matrix,
    fit_float32,
    index_cell,
    is_usable,
    short,
    text_cell,
    text_column,
    value_cell,
    value_column,
)

Reader = Callable[[Sequence[Any], Feature, Mapping[str, float]], "NDArray[np.float64] | None"]

LISTED_BYTES = 65_536
"""Text up to this size is cut into lines before it is parsed, larger text while it is: a list of lines is large then."""


class Schema:
    """The columns a model takes."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.names = [feature.name for feature in features]
        name, *others = self.names
        self._cells_of: Callable[[Mapping[str, Any]], tuple[Any, ...]] = (
            itemgetter(*self.names) if others else lambda record: (record[name],)
        )
        self._has_categories = any(feature.kind == "category" for feature in features)
        self._indexes = [{choice: float(index) for index, choice in enumerate(feature.choices)} for feature in features]

    @property
    def listing(self) -> str:
        """The features' names for a message, cut where there are very many."""
        rest = f" and {len(self.names) - MAX_NAMES} more" if len(self.names) > MAX_NAMES else ""
        return ", ".join(self.names[:MAX_NAMES]) + rest

    def positions(self, names: Sequence[str]) -> list[int]:
        """Return where each feature stands among the given column names, any order.

        Raises:
            SchemaMismatch: a feature is missing, or a name is unknown or doubled; the lists are on the error.
        """
        if len(names) != len(self.names) or set(names) != set(self.names):
            raise self._mismatch(names)
        return [names.index(name) for name in self.names]

    def takes(self, cell: str, index: int) -> bool:
        """Say whether a text cell is a value of the column at `index`."""
        try:
            text_cell(cell, self.features[index], self._indexes[index])
        except ValueError:
            return False
        return True

    def from_plain_text(self, data: bytes) -> Matrix | None:
        """Return the matrix of CSV without a header that holds numbers alone; None where it may hold anything else."""
        if self._has_categories or not data.isascii():
            return None
        if b"\n" not in data and b"_" not in data:
            return self._one_row(data)
        if len(data) <= LISTED_BYTES:
            lines: Any = data.decode("ascii").split("\n")
        else:
            lines = io.TextIOWrapper(io.BytesIO(data), encoding="ascii")
        try:
            numbers = np.loadtxt(lines, delimiter=",", dtype=np.float64, comments=None, ndmin=2)
        except ValueError:
            return None
        is_whole = numbers.shape == (data.count(b"\n") + 1, len(self.names))  # NumPy passes over blank lines
        return fit_float32(numbers) if is_whole else None

    def _one_row(self, line: bytes) -> Matrix | None:
        """Return what `from_plain_text` does of one line, in a third of the time that NumPy takes to begin."""
        try:
            cells = list(map(float, line.split(b",")))
        except ValueError:
            return None
        is_finite = min(cells) > -LARGEST and max(cells) < LARGEST and not math.isnan(sum(cells))
        return np.array([cells], dtype=np.float32) if is_finite and len(cells) == len(self.names) else None

    def from_text(self, rows: Sequence[Sequence[str]], first_row: int = 1) -> Matrix:
        """Return the matrix of rows of text cells in the features' order.

        Raises:
            SchemaMismatch: a row has another width.
            BadData: a cell isn't what its column takes.
        """
        return self._matrix(rows, first_row, text_column, text_cell)

    def from_values(self, rows: Sequence[Sequence[Any]], first_row: int = 1) -> Matrix:
        """Return the matrix of rows of JSON values in the features' order; true and false count as 1 and 0.

        Raises:
            SchemaMismatch: a row has another width.
            BadData: a value isn't what its column takes.
        """
        matrix = self._plain_matrix(rows)
        return self._matrix(rows, first_row, value_column, value_cell) if matrix is None else matrix

    def from_records(self, records: Sequence[Mapping[str, Any]], first_row: int = 1) -> Matrix:
        """Return the matrix of objects that map every feature to a JSON value; errors as `from_values`."""
        width = len(self.names)
        try:
            rows = list(map(self._cells_of, records))
        except KeyError:
            rows = []
        if not set(map(len, records)) <= {width} or len(rows) != len(records):
            names = set(self.names)
            number, record = next((number, record) for number, record in enumerate(records, first_row) if set(record) != names)
            raise self._mismatch(list(record), number)
        return self.from_values(rows, first_row)

    def from_columns(self, columns: Sequence[Any], first_row: int = 1) -> Matrix:
        """Return the matrix of one float64 array a number and one sequence of values a category, in the features' order.

        Raises:
            BadData: as `from_values`.
        """
        matrix = np.empty((len(columns[0]), len(columns)), dtype=np.float32)
        for index, (feature, choices, values) in enumerate(zip(self.features, self._indexes, columns, strict=True)):
            column = values if feature.kind == "number" else value_column(values, feature, choices)
            if column is not None:
                with np.errstate(over="ignore"):
                    matrix[:, index] = column
            if column is None or not is_usable(matrix[:, index], feature):
                matrix[:, index] = self._find_fault(np.asarray(values, dtype=object).tolist(), index, first_row, value_cell)
        return matrix

    def from_array(self, array: NDArray[Any]) -> Matrix:
        """Return a float array [N, F] as the matrix; errors as `from_values`."""
        if array.ndim != 2 or array.shape[1] != len(self.names):
            raise SchemaMismatch(
                f"The array has shape {array.shape}; (rows, {len(self.names)}) was expected: {self.listing}.",
                shape=list(array.shape),
            )
        if array.dtype.kind not in "fiu":
            raise BadData(f"The array has type {array.dtype}; floats or integers were expected.", dtype=str(array.dtype))
        if not len(array):
            raise no_rows()
        with np.errstate(over="ignore"):
            matrix = np.ascontiguousarray(array, dtype=np.float32)
        for column, feature in enumerate(self.features):
            values = matrix[:, column]
            if not is_usable(values, feature):
                self._find_fault(array[:, column].tolist(), column, 1, index_cell)
        return matrix

    def _plain_matrix(self, rows: Sequence[Sequence[Any]]) -> Matrix | None:
        """Return the matrix of rows of finite numbers; None where a row or a value is anything else."""
        width = len(self.names)
        if self._has_categories or set(map(len, rows)) != {width}:
            return None
        cells = list(chain.from_iterable(rows))
        if not set(map(type, cells)) <= NUMBERS:
            return None
        return fit_float32(np.fromiter(cells, dtype=np.float64, count=len(cells)).reshape(-1, width))

    def _matrix(self, rows: Sequence[Sequence[Any]], first_row: int, read: Reader, cell: Callable[..., float]) -> Matrix:
        width = len(self.names)
        if not set(map(len, rows)) <= {width}:
            number, row = next((number, row) for number, row in enumerate(rows, first_row) if len(row) != width)
            raise self._wrong_width(number, len(row))
        matrix = np.empty((len(rows), width), dtype=np.float32)
        for index, (feature, choices, values) in enumerate(
            zip(self.features, self._indexes, zip(*rows, strict=True), strict=True)
        ):
            column = read(values, feature, choices)
            if column is not None:
                with np.errstate(over="ignore"):
                    matrix[:, index] = column
            if column is None or not is_usable(matrix[:, index], feature):
                matrix[:, index] = self._find_fault(values, index, first_row, cell)
        return matrix

    def _find_fault(self, values: Sequence[Any], index: int, first_row: int, cell: Callable[..., float]) -> list[float]:
        """Return the column read cell by cell, which takes missing values too, or raise what the first bad one is."""
        feature, choices = self.features[index], self._indexes[index]
        numbers = []
        for row, value in enumerate(values, first_row):
            try:
                number = cell(value, feature, choices)
            except ValueError as fault:
                raise BadData(f"Row {row}, column {feature.name}: {fault}.", row=row, column=feature.name) from None
            numbers.append(number)
        return numbers

    def _wrong_width(self, row: int, width: int) -> SchemaMismatch:
        what = "is blank" if width == 0 else f"has {width} value{'s' if width > 1 else ''}"
        return SchemaMismatch(
            f"Row {row} {what}; the model takes {len(self.names)}: {self.listing}. GET /metadata describes each.",
            row=row,
            found=width,
            expected=len(self.names),
        )

    def _mismatch(self, names: Sequence[str], row: int | None = None) -> SchemaMismatch:
        counts = Counter(names)
        missing = [name for name in self.names if name not in counts]
        unknown = [_shown(name) for name in sorted(counts.keys() - set(self.names))[:MAX_NAMES]]
        doubled = [_shown(name) for name, count in counts.items() if count > 1]
        faults = [("missing", missing), ("unknown", unknown), ("twice", doubled)]
        what = "; ".join(f"{word}: {', '.join(found[:MAX_NAMES])}" for word, found in faults if found)
        where = f"Row {row}: columns" if row else "Columns"
        return SchemaMismatch(
            f"{where} are {what}. The model takes each of these once, in any order: {self.listing}.",
            **({"row": row} if row else {}),
            missing=missing[:MAX_NAMES],
            unknown=unknown,
        )


def no_rows() -> UnreadableBody:
    """Return the error of a body that holds no row."""
    return UnreadableBody("The body holds no row; at least one was expected. GET /metadata has samples.")


def _shown(name: str) -> str:
    """Return a column's name as a message has it: quoted where it's blank or would break the line, and cut."""
    return name if name and name.isprintable() and len(name) <= 40 else short(name)
