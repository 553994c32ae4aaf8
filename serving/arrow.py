"""A program of its own, which turns Parquet into the matrix for serving/parquet.py: what it reads may crash it, or never end.

It is given a descriptor, and through that bodies, one after the other; the end of its server is the end of them.
"""

from __future__ import annotations

import ctypes
import math
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import arro3.core as arrow
import numpy as np
import orjson
from arro3.io import read_parquet
from numpy.typing import NDArray

from contract.crashes import crash_quietly
from contract.declaration import Feature
from contract.errors import BerthError, PayloadTooLarge, SchemaMismatch, UnreadableBody
from serving.cells import Matrix
from serving.schema import Schema, no_rows

BATCH_ROWS = 8_192
TEXTS = arrow.DataType.dictionary(arrow.DataType.int32(), arrow.DataType.utf8())

T = TypeVar("T")


def main() -> None:
    """Answer bodies until there are no more."""
    channel = Connection(int(sys.argv[1]))
    own_bytes = confine()
    with suppress(EOFError, BrokenPipeError):
        while True:
            asked = orjson.loads(channel.recv_bytes())
            bound(asked["cpu_s"], own_bytes + asked["memory_bytes"])
            schema = Schema([Feature(**feature) for feature in asked["features"]])
            try:
                matrix = read(channel.recv_bytes(), schema, asked["rows"])
            except BerthError as error:
                channel.send_bytes(orjson.dumps({"error": error.code, "message": error.message, "facts": error.facts}))
                continue
            channel.send_bytes(orjson.dumps({"rows": len(matrix)}))
            channel.send_bytes(matrix.data)
            del matrix
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
                trim(0)  # glibc would keep what a large body took


def confine() -> int:
    """Be the first to go where memory ends, keep a crash to itself; return the address space in use."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    crash_quietly()
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def bound(cpu_s: int, memory_bytes: int) -> None:
    """Let the kernel end this process where the next body takes more; signal 24 tells of time, 6 of memory or a crash."""
    used = math.ceil(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_s, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


def read(body: bytes, schema: Schema, most_rows: int) -> Matrix:
    """Return the matrix of a file's rows.

    Integers, floats, decimals and booleans are numbers; texts, integers and booleans are choices by their spelling; null is a
    missing value.

    Args:
        body: the whole file.
        schema: the model's columns; the file has these and no others, in any order.
        most_rows: no more than these are decoded.

    Raises:
        UnreadableBody: it is damaged, or holds no row.
        SchemaMismatch: a column is missing, unknown, or of a type that can't mean its kind.
        BadData: a value isn't what its column takes.
        PayloadTooLarge: there are more rows.
    """
    reader = guarded(lambda: read_parquet(body, batch_size=BATCH_ROWS))
    columns = guarded(lambda: reader.schema)
    order = schema.positions(columns.names)
    for feature, index in zip(schema.features, order, strict=True):
        check_type(feature, columns.field(index).type)
    blocks: list[Matrix] = []
    filled = 0
    while (batch := guarded(lambda: next(reader, None))) is not None:
        if filled + batch.num_rows > most_rows:
            what = f"The Parquet holds more than the {most_rows:,} rows that are taken. Send fewer rows."
            raise PayloadTooLarge(what, limit_rows=most_rows)
        values = [values_of(batch.column(index), feature) for feature, index in zip(schema.features, order, strict=True)]
        blocks.append(schema.from_columns(values, filled + 1))
        filled += batch.num_rows
    if not filled:
        raise no_rows()
    return np.concatenate(blocks)


def guarded(work: Callable[[], T]) -> T:
    """Return what the work of the library returns; its panics are no Exception."""
    try:
        return work()
    except BaseException as error:
        reason = (str(error) or type(error).__name__)[:200]
    raise UnreadableBody(f"The body can't be read as Parquet: {reason}. Write it again.")


def check_type(feature: Feature, kind: arrow.DataType) -> None:
    """Refuse types that a column's kind can't have; of a dictionary that of its values counts."""
    is_ = arrow.DataType
    inner = (kind.value_type if is_.is_dictionary(kind) else None) or kind
    is_fine = is_.is_null(inner) or is_.is_integer(inner) or is_.is_boolean(inner)
    if feature.kind == "number":
        is_fine = is_fine or is_.is_floating(inner) or is_.is_decimal(inner)
    else:
        is_fine = is_fine or is_.is_string(inner) or is_.is_large_string(inner) or is_.is_string_view(inner)
    if not is_fine:
        found = str(kind).strip().removeprefix("arro3.core.DataType<")[:100].removesuffix(">")
        expected = "integers, floats, decimals or booleans" if feature.kind == "number" else "texts, integers or booleans"
        raise SchemaMismatch(f"Column {feature.name} is of type {found}; {expected} were expected.", column=feature.name)


def values_of(array: arrow.Array, feature: Feature) -> Any:
    """Return a column as float64, NaN where it is null; of a category the cells, each text of a batch being made once."""
    if feature.kind == "number":
        return guarded(lambda: numbers_of(array))
    texts = guarded(lambda: array.cast(TEXTS))
    indexes = numbers_of(arrow.dictionary_indices(texts))
    names = np.array([*guarded(arrow.dictionary_dictionary(texts).to_pylist), None], dtype=object)
    return names[np.where(np.isnan(indexes), -1, indexes).astype(np.intp)]


def numbers_of(array: arrow.Array) -> NDArray[np.float64]:
    """Return numbers as float64, NaN where they are null: of those arro3 makes no NumPy array."""
    array = array.cast(arrow.DataType.float64())
    return np.array(array.to_pylist() if array.null_count else array.to_numpy(), dtype=np.float64)


if __name__ == "__main__":
    main()
