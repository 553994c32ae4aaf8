"""Parquet files to columns, by name, a batch of rows at a time, decoded in a child process: on damage arro3 may end its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, TypeVar

import arro3.core as arrow
from arro3.io import read_parquet

from contract.crashes import crash_quietly
from contract.declaration import Declaration
from contract.errors import BadData, BerthError, SchemaMismatch
from training.arrow import FLOAT, TEXTS, codes_of, numbers_of
from training.child import Crashed, Tell, stream
from training.columns import Batch, Column, Declared, choice_column, declared_columns, number_column
from training.layout import Layout
from training.sources import Source

BATCH_ROWS = 65_536
MAGIC = b"PAR1"

T = TypeVar("T")


def read_batches(source: Source, declaration: Declaration) -> Generator[Batch, None, None]:
    """Yield the declared columns of a file's rows.

    Integers, floats, decimals and booleans are numbers; texts, integers and booleans are choices by their spelling; null is a
    missing value.

    Raises:
        BadData: the file is damaged, or needs more memory than there is.
        SchemaMismatch: a declared column is missing, or of a type that can't mean its kind.
    """
    _check_ends(source)
    columns = declared_columns(declaration)
    with closing(_told(source, declaration)) as told:
        while batch := list(islice(told, len(columns))):
            yield [_column(values, column) for values, column in zip(batch, columns, strict=True)]


def _told(source: Source, declaration: Declaration) -> Generator[Any, None, None]:
    """Yield what the child tells: column after column, batch after batch."""
    with closing(stream(_decode, (source, declaration))) as told:
        try:
            for values in told:
                if isinstance(values, BerthError):
                    raise values
                yield values
        except Crashed as crash:
            raise _damaged(source, crash) from crash


def _decode(tell: Tell, source: Source, declaration: Declaration) -> None:
    """Run in the child."""
    crash_quietly()  # a panic of Rust's prints a trace, as if `train` had failed
    try:
        for values in _values(source, declaration):
            tell(values)
    except BerthError as error:
        error.__cause__ = error.__context__ = None  # who has loaded Dask pickles these too, and a panic can't be
        tell(error)


def _values(source: Source, declaration: Declaration) -> Iterator[Any]:
    """Yield the numbers of a column, or the codes of a choice's; they can be pickled, which columns can't."""
    reader = _guarded(lambda: read_parquet(source.path, batch_size=BATCH_ROWS), source)
    schema = _guarded(lambda: reader.schema, source)
    layout = Layout.from_header(schema.names, declaration, source.name)
    _check_types([schema.field(index).type for index in layout.positions], layout.declared, source)
    while (part := _guarded(lambda: next(reader, None), source)) is not None:
        for index, column in zip(layout.positions, layout.declared, strict=True):
            array = part.column(index)
            yield numbers_of(array.cast(FLOAT)) if column.kind == "number" else codes_of(array.cast(TEXTS))


def _column(values: Any, declared: Declared) -> Column:
    if declared.kind == "number":
        return number_column(values)
    codes, names = values
    return choice_column(codes, names, declared)


def _check_ends(source: Source) -> None:
    """Look for the magic bytes: most files that are no Parquet need no child to tell."""
    with source.path.open("rb") as file:
        head = file.read(4)
        file.seek(-min(4, source.path.stat().st_size), 2)
        tail = file.read(4)
    if (head, tail) != (MAGIC, MAGIC):
        raise BadData(f"{source.name} is no whole Parquet file: PAR1 stands not at both its ends.", file=source.name)


def _guarded(work: Callable[[], T], source: Source) -> T:
    try:
        return work()
    except BaseException as error:  # a panic of Rust's is no Exception
        raise _damaged(source, error) from error


def _damaged(source: Source, why: BaseException) -> BadData:
    what = f"{source.name} can't be read as Parquet: {(str(why) or type(why).__name__)[:300]}. "
    return BadData(what + "Write it again; if memory is short, use a larger instance or smaller files.", file=source.name)


def _check_types(types: list[arrow.DataType], columns: Sequence[Declared], source: Source) -> None:
    wrong = [
        f"{column.name} is {str(kind).strip().removeprefix('arro3.core.DataType<')[:-1]}, a {column.kind} was declared"
        for kind, column in zip(types, columns, strict=True)
        if not _can_mean(kind, column)
    ]
    if wrong:
        raise SchemaMismatch(f"{source.name} has columns of other types: {'; '.join(wrong)}.", columns=wrong)


def _can_mean(kind: arrow.DataType, column: Declared) -> bool:
    is_ = arrow.DataType
    kind = (kind.value_type if is_.is_dictionary(kind) else None) or kind
    if is_.is_null(kind) or is_.is_integer(kind) or is_.is_boolean(kind):
        return True
    if column.kind == "number":
        return is_.is_floating(kind) or is_.is_decimal(kind)
    return is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
