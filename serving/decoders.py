"""Bytes to the matrix, one function a media type, and the table of them. HTTP is not known here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import orjson

from contract.errors import SchemaMismatch, UnreadableBody, UserError
from contract.media import CSV, JSON, JSONLINES, JSONLINES_ALIASES, NPY, PARQUET
from serving.cells import Matrix, short
from serving.charsets import not_text, recode
from serving.parquet import read_parquet
from serving.schema import Schema, no_rows
from serving.shapes import arranged, from_columns, from_rows, from_split, is_row, kind

Faults = dict[int, str]
"""Row number to what is wrong with it, where bad rows are to be passed over."""


LIMIT_BYTES = 25 * 2**20


@dataclass(slots=True)
class Format:
    """What the request says of its body beside the media type."""

    charset: str = "utf-8"
    header: str = ""
    """Of CSV: `present`, `absent`, or empty to tell by its look."""
    batch: bool = False
    """Whether bodies are parts of one file, of which only the first has the header (H-30)."""
    limit_bytes: int = LIMIT_BYTES
    """Of a packed body: what its matrix may take."""
    asked: dict[str, Any] = field(default_factory=dict)
    """Filled by the decoder: the `parameters` that JSON has beside its rows (V-4)."""


Decoder = Callable[[bytes, Schema, Format, "Faults | None"], Matrix]
"""Bytes to the matrix; raises UnreadableBody, SchemaMismatch or BadData. With a dict for faults, CSV and JSON Lines put
the rows they can't use there, and leave them out of the matrix."""

BLOCK_ROWS = 8_192

R = TypeVar("R")


def decode_csv(body: bytes, schema: Schema, form: Format, faults: Faults | None = None) -> Matrix:
    """Read one row a line; a first line of the features' names, in any order, is a header. Row numbers leave it out."""
    data = recode(body, form.charset).rstrip(b"\r\n ")
    matrix = _plain_csv(data, schema, form)
    return _csv(data, schema, form, faults) if matrix is None else matrix


def _plain_csv(data: bytes, schema: Schema, form: Format) -> Matrix | None:
    """Return the matrix of numbers alone, under a header or none, at the speed of NumPy; None where a closer look is needed."""
    matrix = None if form.header == "present" else schema.from_plain_text(data)
    if matrix is not None or form.header == "absent":
        return matrix
    head, _, rest = data.partition(b"\n")
    try:
        order = _header_order(list(csv.reader([head.decode()], strict=True)), schema, form)
    except (csv.Error, UnicodeDecodeError):
        return None
    matrix = schema.from_plain_text(rest) if order and rest else None
    return None if matrix is None else np.ascontiguousarray(matrix[:, order])


def _csv(data: bytes, schema: Schema, form: Format, faults: Faults | None) -> Matrix:
    """Read a row at a time, and find the first that can't be used."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=""), strict=True)
    blocks: list[Matrix] = []
    first_row = 1
    try:
        rows = list(islice(reader, BLOCK_ROWS))
        order = _header_order(rows, schema, form)
        rows = rows[1:] if order else rows
        while rows:
            block = _read_rows(arranged(rows, order, schema), first_row, schema.from_text, faults)
            blocks += [block] if len(block) else []
            first_row += len(rows)
            rows = list(islice(reader, BLOCK_ROWS))
    except csv.Error as error:
        raise UnreadableBody(f"The body is not CSV: {error} in line {reader.line_num}.", line=reader.line_num) from None
    except UnicodeDecodeError:
        raise not_text(data, "utf-8") from None
    if not blocks and not faults and not (form.batch and order):  # of a file's parts one may hold the header alone
        raise no_rows()
    return _joined(blocks, schema)


def decode_json(body: bytes, schema: Schema, form: Format, faults: Faults | None = None) -> Matrix:
    """Read rows under `instances`, a bare list of them, columns by name, or pandas' `dataframe_split`."""
    document = _load_json(body, form.charset)
    if isinstance(document, dict) and ("instances" in document or "dataframe_split" in document):
        if isinstance(parameters := document.get("parameters"), dict):
            form.asked.update(parameters)
        if "instances" not in document:
            return from_split(document["dataframe_split"], schema)
        document = document["instances"]
    elif isinstance(document, dict) and not is_row(document, schema):
        return from_columns(document, schema)
    if isinstance(document, dict):
        document = [document]
    if not isinstance(document, list):
        raise UnreadableBody(f"{kind(document)} stands where a list of rows was expected. GET /metadata has samples.")
    return from_rows(document, schema)


def decode_jsonlines(body: bytes, schema: Schema, form: Format, faults: Faults | None = None) -> Matrix:
    """Read a row a line: a list, `{"features": [..]}`, `{"data": {"features": [..]}}` (H-17), or names to values."""
    lines = recode(body, form.charset).rstrip(b"\r\n ").split(b"\n")

    def read(lines: Sequence[bytes], first_row: int) -> Matrix:
        try:
            rows = list(map(orjson.loads, lines))
        except orjson.JSONDecodeError:
            rows = [_load_line(line, number) for number, line in enumerate(lines, first_row)]
        return from_rows(rows, schema, first_row)

    starts = range(0, len(lines), BLOCK_ROWS)
    blocks = [_read_rows(lines[start : start + BLOCK_ROWS], start + 1, read, faults) for start in starts]
    return _joined([block for block in blocks if len(block)], schema)


def decode_npy(body: bytes, schema: Schema, form: Format, faults: Faults | None = None) -> Matrix:
    """Read a NumPy array [N, F]; a pickle in one would run code and is never loaded (H-20)."""
    stream = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy evaluates the header's text, which fails in a dozen ways (TokenError, MemoryError, ..)
        raise UnreadableBody(f"The body is not a .npy array: {str(error)[:200] or type(error).__name__}.") from None
    if dtype.hasobject:
        raise UnreadableBody("The .npy holds Python objects, which are never unpickled here; send an array of floats.")
    if dtype.kind not in "fiu":
        raise UnreadableBody(f"The .npy holds {short(str(dtype))}; floats or integers were expected.")
    if len(shape) != 2:
        raise SchemaMismatch(f"The .npy has shape {short(shape)}; (rows, {len(schema.names)}) was expected: {schema.listing}.")
    data = body[stream.tell() :]
    if not all(type(length) is int and length >= 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(data):
        says = f"shape {short(shape)} of {dtype.itemsize} bytes a value"
        raise UnreadableBody(f"The .npy header says {says}, but {len(data):,} bytes follow it.")
    array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return schema.from_array(array.astype(dtype.newbyteorder("="), copy=False))


def decode_parquet(body: bytes, schema: Schema, form: Format, faults: Faults | None = None) -> Matrix:
    """Read a Parquet file's columns by name."""
    return read_parquet(body, schema, form.limit_bytes)


DECODERS: dict[str, Decoder] = {
    CSV: decode_csv,
    JSON: decode_json,
    JSONLINES: decode_jsonlines,
    **dict.fromkeys(JSONLINES_ALIASES, decode_jsonlines),
    NPY: decode_npy,
    **dict.fromkeys(PARQUET, decode_parquet),
}


def _joined(blocks: Sequence[Matrix], schema: Schema) -> Matrix:
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.empty((0, len(schema.names)), dtype=np.float32)


def _read_rows(rows: Sequence[R], first_row: int, read: Callable[[Sequence[R], int], Matrix], faults: Faults | None) -> Matrix:
    """Read all rows at once; where that fails and bad rows are to be passed over, one by one."""
    try:
        return read(rows, first_row)
    except UserError:
        if faults is None:
            raise
    good = []
    for number, row in enumerate(rows, first_row):
        try:
            good.append(read([row], number))
        except UserError as error:
            faults[number] = error.message
    return np.concatenate(good) if good else np.empty((0, 0), dtype=np.float32)


def _header_order(rows: Sequence[Sequence[str]], schema: Schema, form: Format) -> list[int] | None:
    """Return where the features stand in a header, None where the first row is data.

    Raises:
        SchemaMismatch: the header has other names than the features', or, in batch, another order: the file's next parts
            come without a header (H-30) and would be read wrongly.
    """
    is_header = bool(rows) and form.header != "absent" and (form.header == "present" or _is_header(rows[0], schema))
    if not is_header:
        return None
    order = schema.positions([cell.strip() for cell in rows[0]])
    if form.batch and order != sorted(order):
        raise SchemaMismatch(
            "The header has another order than the model's. In a batch job only the file's first part has the header, and the "
            f"others would be read in the wrong order. Order the columns so: {schema.listing}."
        )
    return order


def _is_header(cells: Sequence[str], schema: Schema) -> bool:
    """Say whether a first line holds a feature's name (in whatever case) where its column can't have it as a value.

    A choice, a missing value and a number that happen to be a feature's name (`Na`, `0`) are data.
    """
    names = {name.casefold() for name in schema.names}
    return any(
        cell.strip().casefold() in names and (index >= len(schema.names) or not schema.takes(cell, index))
        for index, cell in enumerate(cells)
    )


def _load_json(body: bytes, charset: str) -> Any:
    text = recode(body, charset)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            raise not_text(text, "utf-8") from None
        where = f"line {error.lineno} column {error.colno}"
        raise UnreadableBody(f"The body is not JSON: {error.msg}, {where}.{_nan_hint(text)}") from None


def _load_line(line: bytes, number: int) -> Any:
    if not line.strip():
        raise UnreadableBody(f"Row {number} is blank; a JSON value a line was expected.", row=number)
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        what = f"{error.msg}, column {error.colno}"
        raise UnreadableBody(f"Row {number} is not JSON: {what}.{_nan_hint(line)}", row=number) from None


def _nan_hint(text: bytes) -> str:
    return " JSON has no NaN or Infinity: send null for a missing value." if b"NaN" in text or b"Infinity" in text else ""
