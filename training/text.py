"""Rows of CSV text to columns: whole blocks through Arrow, and cell by cell where Arrow found what it couldn't read.

Arrow takes only what means the same to both: what it refuses, or takes and isn't sure of, the slow path decides on.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import arro3.core as arrow
import numpy as np
from arro3.io import read_csv

from contract.cells import is_missing, read_number
from contract.declaration import Declaration, Feature
from contract.errors import BadData
from training.arrow import FLOAT, TEXTS, Unclear, codes_of, numbers_of
from training.columns import Batch, Column, Declared, choice_column, choices_of, number_column
from training.layout import Layout

BATCH_ROWS = 16_384
END_NUMBER, END_TEXT = 1e37, "\x1f"
"""A row of these, put behind a block: if it isn't the last row that is read, a quote was left open and swallowed it."""


def first_row(block: bytes, file: str) -> tuple[list[str], bytes]:
    """Return the cells of the first row, and the bytes that spell it, line end included.

    Raises:
        BadData: the bytes are no CSV in UTF-8.
    """
    try:
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(block), encoding="utf-8", newline=""), skipinitialspace=True)
        cells = [cell.strip() for cell in next(reader, [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{file} is not CSV in UTF-8: {error}.", file=file) from error
    rest = io.BytesIO(block)
    return cells, b"".join(rest.readline() for _ in range(reader.line_num))


def looks_like_data(cells: Sequence[str], declaration: Declaration) -> bool:
    """Say whether a first row is one of a file without a header: as wide, no declared name, each cell what its column takes."""
    order: list[Declared] = [declaration.target, *declaration.features]
    names = {column.name for column in order}
    return (
        len(cells) == len(order)
        and not names & set(cells)
        and all(_takes(cell, column) for cell, column in zip(cells, order, strict=True))
    )


def read_block(block: bytes, layout: Layout, file: str, lines_before: int) -> list[Batch]:
    """Return the declared columns of whole rows, in batches.

    Args:
        block: the rows, without a header.
        layout: where the columns stand.
        file: its name, for an error.
        lines_before: how many lines of the file came before the block.

    Raises:
        BadData: the bytes are no CSV of the layout's width.
    """
    try:
        return _read_fast(block, layout)
    except Unclear:
        from training.cells import read_cells  # pandas, which most jobs need not load

        return [read_cells(block, layout, file, lines_before)]


def _takes(cell: str, column: Declared) -> bool:
    if column.kind != "number" and cell.strip() in choices_of(column):
        return True
    if is_missing(cell):
        return isinstance(column, Feature) and column.nullable
    return column.kind == "number" and read_number(cell) is not None


def _read_fast(block: bytes, layout: Layout) -> list[Batch]:
    """Read with Arrow; raises Unclear where the slow path has to decide."""
    guarded = b'"' in block
    if guarded:
        block = block + (b"" if block.endswith(b"\n") else b"\n") + _end_row(layout)
    places = dict(zip(layout.positions, layout.declared, strict=True))
    null = arrow.DataType.null()  # a column of it is passed over unread
    types = [_type(places[index]) if index in places else null for index in range(layout.width)]
    schema = arrow.Schema([arrow.Field(str(index), kind) for index, kind in enumerate(types)])
    try:
        parts = list(read_csv(block, schema, has_header=False, batch_size=BATCH_ROWS))
    except Exception as error:  # arro3 raises Exception itself
        raise Unclear from error
    if guarded:
        parts = _without_end(parts, layout)
    return [[_column(part.column(index), column) for index, column in places.items()] for part in parts if part.num_rows]


def _type(column: Declared) -> arrow.DataType:
    return FLOAT if column.kind == "number" else TEXTS


def _end_row(layout: Layout) -> bytes:
    cells = [""] * layout.width
    for index, column in zip(layout.positions, layout.declared, strict=True):
        cells[index] = repr(END_NUMBER) if column.kind == "number" else END_TEXT
    return ",".join(cells).encode() + b"\n"


def _without_end(parts: list[arrow.RecordBatch], layout: Layout) -> list[arrow.RecordBatch]:
    last = parts[-1]
    for index, column in zip(layout.positions, layout.declared, strict=True):
        found = last.column(index)[last.num_rows - 1].as_py()
        if found != (END_NUMBER if column.kind == "number" else END_TEXT):
            raise Unclear
    return [*parts[:-1], last.slice(0, last.num_rows - 1)]


def _column(array: arrow.Array, declared: Declared) -> Column:
    if declared.kind == "number":
        values = numbers_of(array)
        missing = np.isnan(values)
        # -nan is no word for a missing value here, but it is a number to Arrow.
        column = number_column(values, wrong=np.signbit(values) & missing if missing.any() else None)
    else:
        column = choice_column(*codes_of(array), declared)
    if column.faults(declared).any():
        raise Unclear
    return column
