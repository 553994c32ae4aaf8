"""The rows that were read so far, in one float32 matrix that grows in place; and their faults, by file, row and column."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Declaration
from contract.errors import BadData
from training.columns import Batch, Declared, declared_columns

MAX_FAULTS = 10
FIRST_ROWS = 65_536


@dataclass
class FileFaults:
    """What is wrong in one file."""

    name: str
    rows: int = 0
    """Read so far, those with faults included."""
    bad_rows: int = 0
    count: int = 0
    """Of faults; a row may have several."""
    named: list[tuple[int, str, str]] = field(default_factory=list)
    """The first ten: row from 1, column, what is wrong."""

    def lines(self) -> str:
        """Return the first ten faults, a line each, and how many there are in all."""
        lines = [f"{self.name} row {row}, column {column}: {what}." for row, column, what in self.named]
        if self.count > len(self.named):
            lines.append(f"{self.count:,} faults in all; the first {MAX_FAULTS} are named.")
        return "\n".join(lines)


class Rows:
    """Collects batches.

    Memory is grown by an eighth with realloc, which moves pages and copies nothing: at its peak reading holds all rows and
    a batch, where joining parts at the end would hold all rows twice.
    """

    def __init__(self, declaration: Declaration, *, drop: bool) -> None:
        self._declared: list[Declared] = declared_columns(declaration)
        self._target = declaration.target
        self._drop = drop
        self._matrix = np.empty((0, len(declaration.features)), dtype=np.float32)
        self._targets = np.empty(0, dtype=np.float64)
        self._length = 0
        self.dropped = 0
        self.out_of_range = 0

    def __len__(self) -> int:
        return self._length

    def add(self, batch: Batch, file: FileFaults) -> None:
        """Take a batch over; rows with a fault are left out and noted."""
        faults = [column.faults(declared) for column, declared in zip(batch, self._declared, strict=True)]
        bad = np.logical_or.reduce(faults)
        rows = len(bad)
        if bad.any():
            self._note(batch, faults, bad, file)
            good = np.flatnonzero(~bad)
            self._append([column.values[good] for column in batch])
        else:
            self._append([column.values for column in batch])
        file.rows += rows

    def finish_file(self, file: FileFaults) -> None:
        """Say how many rows of a file were dropped.

        Raises:
            BadData: it has faults, and rows with faults are not to be dropped; the first ten are named.
        """
        if not file.count:
            return
        row, column, what = file.named[0]
        if not self._drop:
            raise BadData(file.lines(), file=file.name, row=row, column=column, count=file.count)
        self.dropped += file.bad_rows
        first = f"the first is row {row}, column {column}: {what}"
        print(f"data: {file.name}: {file.bad_rows:,} of {file.rows:,} rows dropped; {first}", flush=True)

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
        """Return the matrix (n_rows, n_features) and the target (n_rows,), float64 or labels as text; nothing can be added.

        Raises:
            BadData: every row was dropped.
        """
        if self.dropped and not self._length:
            raise BadData(f"All {self.dropped:,} rows have a fault, and bad_rows=drop leaves none. The log names the first.")
        self._resize(self._length)
        if self._target.kind == "number":
            return self._matrix, self._targets
        return self._matrix, np.array(self._target.labels, dtype=np.str_)[self._targets.astype(np.intp)]

    def _note(self, batch: Batch, faults: list[NDArray[np.bool_]], bad: NDArray[np.bool_], file: FileFaults) -> None:
        found = [
            (file.rows + int(row) + 1, declared.name, column.describe(int(row), declared))
            for column, declared, faulty in zip(batch, self._declared, faults, strict=True)
            for row in np.flatnonzero(faulty)[:MAX_FAULTS]
        ]
        file.named = [*file.named, *sorted(found)][:MAX_FAULTS]
        file.count += sum(int(faulty.sum()) for faulty in faults)
        file.bad_rows += int(bad.sum())

    def _append(self, values: list[NDArray[np.float64]]) -> None:
        start, end = self._length, self._length + len(values[-1])
        if end > len(self._matrix):
            self._resize(max(end, FIRST_ROWS, len(self._matrix) * 9 // 8))
        for index, column in enumerate(values[:-1]):
            self._matrix[start:end, index] = column
        self._targets[start:end] = values[-1]
        self._length = end
        if self._target.range:
            low, high = self._target.range
            self.out_of_range += int(((values[-1] < low) | (values[-1] > high)).sum())

    def _resize(self, rows: int) -> None:
        self._matrix.resize((rows, self._matrix.shape[1]), refcheck=False)
        self._targets.resize(rows, refcheck=False)
