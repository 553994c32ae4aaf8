"""Parquet files to columns, by name, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import arro3.core as arrow
from arro3.io import read_parquet

from contract.declaration import Declaration
from contract.errors import BadData, SchemaMismatch
from training.arrow import FLOAT, TEXTS, codes_of, numbers_of
from training.columns import Batch, Column, Declared, choice_column, declared_columns, number_column
from training.layout import Layout
from training.sources import Source

BATCH_ROWS = 65_536
MAGIC = b"PAR1"


def read_batches(source: Source, declaration: Declaration) -> Iterator[Batch]:
    """Yield the declared columns of a file's rows.

    Integers, floats, decimals and booleans are numbers; texts, integers and booleans are choices by their spelling; null is a
    missing value.

    Raises:
        BadData: the file is damaged.
        SchemaMismatch: a declared column is missing, or of a type that can't mean its kind.
    """
    _check_ends(source)
    try:
        reader = read_parquet(source.path, batch_size=BATCH_ROWS)
        schema = reader.schema
    except BaseException as error:  # a panic of Rust's is no Exception
        raise _damaged(source, error) from error
    names = schema.names
    layout = Layout.from_header(names, declaration, source.name)
    types = [schema.field(index).type for index in layout.positions]
    _check_types(types, declared_columns(declaration), source)
    while (part := _next(reader, source)) is not None:
        columns = zip(layout.positions, layout.declared, strict=True)
        yield [_column(part.column(index), declared) for index, declared in columns]


def _check_ends(source: Source) -> None:
    """Look for the magic bytes: without them arro3 panics, which prints a trace of Rust's."""
    with source.path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(4, source.path.stat().st_size), 2)
        tail = file.read(4)
    if (head, tail) != (MAGIC, MAGIC):
        raise BadData(f"{source.name} is no whole Parquet file: PAR1 stands not at both its ends.", file=source.name)


def _next(reader: arrow.RecordBatchReader, source: Source) -> arrow.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise _damaged(source, error) from error


def _damaged(source: Source, error: BaseException) -> BadData:
    return BadData(f"{source.name} can't be read as Parquet: {str(error)[:300]}. Write it again.", file=source.name)


def _check_types(types: list[arrow.DataType], columns: list[Declared], source: Source) -> None:
    wrong = [
        f"{column.name} is {str(kind).strip().removeprefix('arro3.core.DataType<')[:-1]}, a {column.kind} was declared"
        for kind, column in zip(types, columns, strict=True)
        if not _can_mean(kind, column)
    ]
    if wrong:
        raise SchemaMismatch(f"{source.name} has columns of other types: {'; '.join(wrong)}.", columns=wrong)


def _can_mean(kind: arrow.DataType, column: Declared) -> bool:
    is_ = arrow.DataType
    kind = kind.value_type or kind  # of a dictionary
    if is_.is_null(kind) or is_.is_integer(kind) or is_.is_boolean(kind):
        return True
    if column.kind == "number":
        return is_.is_floating(kind) or is_.is_decimal(kind)
    return is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)


def _column(array: arrow.Array, declared: Declared) -> Column:
    if declared.kind == "number":
        return number_column(numbers_of(array.cast(FLOAT)))
    codes, names = codes_of(array.cast(TEXTS))
    return choice_column(codes, names, declared)
