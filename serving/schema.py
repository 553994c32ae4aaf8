"""Cells to the model's matrix: the columns check, and the row and column of the first value that can't be used.

Columns are read whole, at the speed of their library; only when that fails are cells looked at one by one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.cells import is_missing, read_number
from contract.declaration import Feature
from contract.errors import BadData, SchemaMismatch, UnreadableBody

Matrix = NDArray[np.float32]
"""(n_rows, n_features) float32, C-contiguous, in the manifest's order; a category is its index, a missing value NaN."""
Reader = Callable[[Sequence[Any], Feature, Mapping[str, float]], "NDArray[np.float64] | None"]

MAX_NAMES = 30
NAN = math.nan


class Schema:
    """The columns a model takes."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.names = [feature.name for feature in features]
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
            _text_cell(cell, self.features[index], self._indexes[index])
        except ValueError:
            return False
        return True

    def from_text(self, rows: Sequence[Sequence[str]], first_row: int = 1) -> Matrix:
        """Return the matrix of rows of text cells in the features' order.

        Raises:
            SchemaMismatch: a row has another width.
            BadData: a cell isn't what its column takes.
        """
        return self._matrix(rows, first_row, _text_column, _text_cell)

    def from_values(self, rows: Sequence[Sequence[Any]], first_row: int = 1) -> Matrix:
        """Return the matrix of rows of JSON values in the features' order; true and false count as 1 and 0.

        Raises:
            SchemaMismatch: a row has another width.
            BadData: a value isn't what its column takes.
        """
        return self._matrix(rows, first_row, _value_column, _value_cell)

    def from_records(self, records: Sequence[Mapping[str, Any]], first_row: int = 1) -> Matrix:
        """Return the matrix of objects that map every feature to a JSON value; errors as `from_values`."""
        names, width = self.names, len(self.names)
        rows = []
        for number, record in enumerate(records, first_row):
            try:
                row = [record[name] for name in names]
            except KeyError:
                raise self._mismatch(list(record), number) from None
            if len(record) != width:
                raise self._mismatch(list(record), number)
            rows.append(row)
        return self.from_values(rows, first_row)

    def from_columns(self, columns: Sequence[Any], first_row: int = 1) -> Matrix:
        """Return the matrix of one float64 array a number and one sequence of values a category, in the features' order.

        Raises:
            BadData: as `from_values`.
        """
        matrix = np.empty((len(columns[0]), len(columns)), dtype=np.float32)
        for index, (feature, choices, values) in enumerate(zip(self.features, self._indexes, columns, strict=True)):
            column = values if feature.kind == "number" else _value_column(values, feature, choices)
            if column is not None:
                with np.errstate(over="ignore"):
                    matrix[:, index] = column
            if column is None or not _is_usable(matrix[:, index], feature):
                matrix[:, index] = self._find_fault(np.asarray(values, dtype=object).tolist(), index, first_row, _value_cell)
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
            if not _is_usable(values, feature):
                self._find_fault(array[:, column].tolist(), column, 1, _value_index_cell)
        return matrix

    def _matrix(self, rows: Sequence[Sequence[Any]], first_row: int, read: Reader, cell: Callable[..., float]) -> Matrix:
        width = len(self.names)
        if not set(map(len, rows)) <= {width}:
            number, row = next((number, row) for number, row in enumerate(rows, first_row) if len(row) != width)
            raise self._wrong_width(number, len(row))
        matrix = np.empty((len(rows), width), dtype=np.float32)
        for index, (feature, choices) in enumerate(zip(self.features, self._indexes, strict=True)):
            values = [row[index] for row in rows]
            column = read(values, feature, choices)
            if column is not None:
                with np.errstate(over="ignore"):
                    matrix[:, index] = column
            if column is None or not _is_usable(matrix[:, index], feature):
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


def _is_usable(values: Matrix, feature: Feature) -> bool:
    """Say whether a column of float32 is finite but for missing values where they are allowed, and indexes choices."""
    if not np.isfinite(values).all() and not (feature.nullable and not np.isinf(values).any()):
        return False
    if feature.kind == "number":
        return True
    present = values[~np.isnan(values)]
    return bool(((present >= 0) & (present < len(feature.choices)) & (present == np.floor(present))).all())


def _text_column(cells: Sequence[str], feature: Feature, choices: Mapping[str, float]) -> NDArray[np.float64] | None:
    if feature.kind == "category":
        indexes = [choices.get(cell) for cell in cells]
        return None if None in indexes else np.array(indexes, dtype=np.float64)
    try:
        column = np.fromiter(map(float, cells), dtype=np.float64, count=len(cells))
    except ValueError:
        return None
    # float() also takes 1_000, other scripts' digits and nan; a cell by cell look decides on those.
    joined = "".join(cells)
    return None if "_" in joined or not joined.isascii() or np.isnan(column).any() else column


def _text_cell(cell: str, feature: Feature, choices: Mapping[str, float]) -> float:
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


def _value_column(values: Sequence[Any], feature: Feature, choices: Mapping[str, float]) -> NDArray[np.float64] | None:
    if feature.kind == "category":
        indexes = [choices.get(value) if isinstance(value, str) else None for value in values]
        return None if None in indexes else np.array(indexes, dtype=np.float64)
    # Texts and lists must not reach NumPy: an array of texts takes the longest one's room for each.
    return np.array(values, dtype=np.float64) if set(map(type, values)) <= {float, int, bool} else None


def _value_cell(value: Any, feature: Feature, choices: Mapping[str, float]) -> float:
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


def _value_index_cell(value: Any, feature: Feature, _: Mapping[str, float]) -> float:
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


def _missing(feature: Feature) -> float:
    if not feature.nullable:
        raise ValueError("it is empty, null or NaN; a value was expected")
    return NAN


def _unknown_choice(value: Any, feature: Feature) -> str:
    return f"{short(value)} is not one of its choices: {', '.join(feature.choices[:MAX_NAMES])}"


def _fits(number: float) -> bool:
    return abs(number) < 3.4028235677973366e38  # beyond it float32 rounds to infinity


def short(value: Any) -> str:
    """Return a caller's value for a message, on one line and cut where it's long."""
    if isinstance(value, str):
        value = value[:100]
    text = repr(value)
    return text if len(text) <= 43 else text[:40] + "..."


def _shown(name: str) -> str:
    """Return a column's name as a message has it: quoted where it's blank or would break the line, and cut."""
    return name if name and name.isprintable() and len(name) <= 40 else short(name)
