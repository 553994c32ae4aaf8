"""A batch of rows, column by column, whatever file it came from: values, and which of them can't be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.cells import is_missing
from contract.declaration import Declaration, Feature, Target

LARGEST = float(np.finfo(np.float32).max)

Values = NDArray[np.float64]
Declared = Feature | Target
Cell = Callable[[int], object]


@dataclass(frozen=True)
class Column:
    """One declared column of a batch."""

    values: Values
    """(n_rows,): numbers, or the index of a choice or label; NaN is a missing value, or one that can't be used."""
    unusable: NDArray[np.bool_]
    """(n_rows,): where something stands that the column can't have."""
    cell: Cell
    """What stands in a row, for a message."""

    def faults(self, declared: Declared) -> NDArray[np.bool_]:
        """Return where the column has a fault, a missing value counting as one where it isn't nullable."""
        return self.unusable if _is_nullable(declared) else self.unusable | np.isnan(self.values)

    def describe(self, row: int, declared: Declared) -> str:
        """Return what is wrong in a row."""
        if not self.unusable[row]:
            return "empty; a value was expected (a feature that may be empty is declared nullable)"
        is_number = declared.kind == "number"
        expected = "a finite number of float32's range" if is_number else f"one of {', '.join(choices_of(declared))}"
        return f"{str(self.cell(row))[:40]!r} is not {expected}"


Batch = Sequence[Column]
"""The declared columns, features first and then the target."""


def declared_columns(declaration: Declaration) -> list[Declared]:
    """Return the columns of a batch."""
    return [*declaration.features, declaration.target]


def choices_of(declared: Declared) -> tuple[str, ...]:
    """Return what a category or a class may be; nothing for a number."""
    return declared.choices if isinstance(declared, Feature) else declared.labels


def number_column(values: Values, cell: Cell | None = None, wrong: NDArray[np.bool_] | None = None) -> Column:
    """Return a column of numbers; infinity and what float32 can't hold are no values, nor is what the caller says is wrong."""
    unusable = np.abs(values) > LARGEST
    if wrong is not None:
        unusable |= wrong
    return Column(np.where(unusable, np.nan, values) if unusable.any() else values, unusable, cell or values.__getitem__)


def choice_column(codes: NDArray[np.intp], names: Sequence[str], declared: Declared) -> Column:
    """Return a column of choices or labels.

    Args:
        codes: (n_rows,) index into `names`; -1 for a missing value.
        names: the texts that occur; a word for missing that is no choice is a missing value.
        declared: the column.
    """
    indexes = {choice: index for index, choice in enumerate(choices_of(declared))}
    found = [indexes.get(name.strip(), -1 if is_missing(name) else -2) for name in names]
    chosen = np.array([*found, -1], dtype=np.intp)[codes]
    return Column(np.where(chosen < 0, np.nan, chosen), chosen == -2, lambda row: names[codes[row]])


def _is_nullable(declared: Declared) -> bool:
    return isinstance(declared, Feature) and declared.nullable
