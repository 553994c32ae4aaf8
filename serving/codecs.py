"""Media types: bytes to the matrix, predictions to bytes. Plain functions in two tables; HTTP is not known here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from contract.errors import NotAcceptable, SchemaMismatch, UnreadableBody, UnsupportedMediaType
from serving.predictor import Predictions
from serving.schema import Matrix, Schema, no_rows, short

Decoder = Callable[[bytes, Schema, str], Matrix]
"""(body, columns, charset) to the matrix; raises UnreadableBody, SchemaMismatch or BadData."""
Encoder = Callable[[Predictions], bytes]

CSV, JSON, JSONLINES, NPY = "text/csv", "application/json", "application/jsonlines", "application/x-npy"
CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "utf-16": "utf-16",
}
UNNAMED = {"", "application/x-www-form-urlencoded", "application/octet-stream"}  # H-16: what plain curl says, or nothing
BLOCK_ROWS = 8_192


def read_body(body: bytes, content_type: str, schema: Schema) -> Matrix:
    """Return the matrix that a request body holds.

    Args:
        body: as it came.
        content_type: the header; only its media type and charset count (H-16). Unnamed bodies are JSON or CSV by their look.
        schema: the model's columns.

    Raises:
        UnsupportedMediaType: the media type or the charset isn't read here.
        UnreadableBody, SchemaMismatch, BadData: see the decoders.
    """
    media_type, charset = _content_type(content_type)
    if media_type in UNNAMED:
        media_type = JSON if body.lstrip()[:1] in (b"{", b"[") else CSV
    decoder = DECODERS.get(media_type)
    if decoder is None:
        raise UnsupportedMediaType(
            f"Content-Type {short(media_type)} is not read here; send one of: {', '.join(DECODERS)}.", supported=list(DECODERS)
        )
    if not body.strip():
        raise UnreadableBody("The body is empty; at least one row was expected. GET /metadata has samples.")
    return decoder(body, schema, charset)


@lru_cache(maxsize=256)
def answer_type(accept: str, content_type: str, default: str = "") -> str:
    """Return the media type to answer in: Accept's best, else the configured default, else the kin of the body's (H-18).

    Raises:
        NotAcceptable: Accept names only what can't be written.
    """
    media_type, _ = _content_type(content_type)
    fallback = default or KIN.get(media_type, JSON)
    if not accept.strip():
        return fallback
    # Parameters (`application/json; charset=utf-8`, `;verbose=true`) choose nothing here, as with Content-Type (H-16).
    accepted = MIMEAccept([(item.partition(";")[0].strip(), quality) for item, quality in parse_accept_header(accept)])
    best = accepted.best_match([fallback, *ENCODERS])
    if best is None:
        raise NotAcceptable(f"Accept {short(accept)} names none of: {', '.join(ENCODERS)}.", supported=list(ENCODERS))
    return best


def decode_csv(body: bytes, schema: Schema, charset: str) -> Matrix:
    """Read one row a line; a first line of the features' names, in any order, is a header. Row numbers leave it out."""
    data = _recode(body, charset).rstrip(b"\r\n ")
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=""), strict=True)
    blocks: list[Matrix] = []
    order: list[int] | None = None
    first_row = 1
    try:
        rows = list(islice(reader, BLOCK_ROWS))
        if rows and _is_header(rows[0], schema):
            order = schema.positions([cell.strip() for cell in rows[0]])
            rows = rows[1:]
        while rows:
            blocks.append(schema.from_text(_arranged(rows, order, schema), first_row))
            first_row += len(rows)
            rows = list(islice(reader, BLOCK_ROWS))
    except csv.Error as error:
        raise UnreadableBody(f"The body is not CSV: {error} in line {reader.line_num}.", line=reader.line_num) from None
    except UnicodeDecodeError:
        raise _not_text(data, "utf-8") from None
    if not blocks:
        raise no_rows()
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def decode_json(body: bytes, schema: Schema, charset: str) -> Matrix:
    """Read rows under `instances`, a bare list of them, columns by name, or pandas' `dataframe_split`."""
    document = _load_json(body, charset)
    if isinstance(document, dict) and "instances" in document:
        document = document["instances"]
    elif isinstance(document, dict) and "dataframe_split" in document:
        return _from_split(document["dataframe_split"], schema)
    elif isinstance(document, dict) and not _is_row(document, schema):
        return _from_columns(document, schema)
    if isinstance(document, dict):
        document = [document]
    if not isinstance(document, list):
        raise UnreadableBody(f"{_kind(document)} stands where a list of rows was expected. GET /metadata has samples.")
    return _from_rows(document, schema)


def decode_jsonlines(body: bytes, schema: Schema, charset: str) -> Matrix:
    """Read a row a line: a list, `{"features": [..]}`, `{"data": {"features": [..]}}` (H-17), or names to values."""
    lines = _recode(body, charset).rstrip(b"\r\n ").split(b"\n")
    try:
        rows = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        rows = [_load_line(line, number) for number, line in enumerate(lines, 1)]
    return _from_rows(rows, schema)


def decode_npy(body: bytes, schema: Schema, charset: str) -> Matrix:
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


DECODERS: dict[str, Decoder] = {
    CSV: decode_csv,
    JSON: decode_json,
    JSONLINES: decode_jsonlines,
    "application/x-jsonlines": decode_jsonlines,
    "application/x-ndjson": decode_jsonlines,
    NPY: decode_npy,
}
KIN = {CSV: CSV, JSON: JSON, "application/x-npy": NPY} | dict.fromkeys(
    (JSONLINES, "application/x-jsonlines", "application/x-ndjson"), JSONLINES
)
"""What a body of each type is answered in when the request doesn't say."""


def encode_csv(predictions: Predictions) -> bytes:
    """Write an answer a line (H-19): the number, or the label and its probabilities. No newline at the end (H-31)."""
    if predictions.probabilities is None:
        return b"\n".join(_numbers(predictions.values))
    text = io.StringIO()
    rows = zip(predictions.values, orjson.loads(_dumps(predictions.probabilities)), strict=True)
    csv.writer(text, lineterminator="\n").writerows([label, *probabilities] for label, probabilities in rows)
    return text.getvalue()[:-1].encode()


def encode_json(predictions: Predictions) -> bytes:
    """Write `{"predictions": [..]}`."""
    return b'{"predictions":' + plain(predictions) + b"}"


def encode_book(predictions: Predictions) -> bytes:
    """Write `{"prediction": [..]}`, the shape of POST /predict."""
    return b'{"prediction":' + plain(predictions) + b"}"


def encode_jsonlines(predictions: Predictions) -> bytes:
    """Write `{"prediction": ..}` a line, without a newline at the end (H-31)."""
    if predictions.probabilities is None:
        return b'{"prediction":' + b'}\n{"prediction":'.join(_numbers(predictions.values)) + b"}"
    return b"\n".join(orjson.dumps({"prediction": answer}) for answer in _answers(predictions))


def encode_npy(predictions: Predictions) -> bytes:
    """Write a float32 array: [N], or [N, C] probabilities."""
    stream = io.BytesIO()
    np.save(stream, predictions.values if predictions.probabilities is None else predictions.probabilities, allow_pickle=False)
    return stream.getvalue()


ENCODERS: dict[str, Encoder] = {
    CSV: encode_csv,
    JSON: encode_json,
    JSONLINES: encode_jsonlines,
    "application/x-jsonlines": encode_jsonlines,
    "application/x-ndjson": encode_jsonlines,
    NPY: encode_npy,
}


def plain(predictions: Predictions) -> bytes:
    """Return the answers as a JSON list."""
    return _dumps(predictions.values) if predictions.probabilities is None else orjson.dumps(_answers(predictions))


def _answers(predictions: Predictions) -> list[dict[str, Any]]:
    probabilities = orjson.loads(_dumps(predictions.probabilities))
    return [
        {"label": str(label), "probabilities": dict(zip(predictions.labels, row, strict=True))}
        for label, row in zip(predictions.values, probabilities, strict=True)
    ]


def _numbers(values: NDArray[np.float32]) -> list[bytes]:
    return _dumps(values)[1:-1].split(b",")


def _dumps(values: Any) -> bytes:
    """Return JSON of an array; orjson writes float32 with the fewest digits that read back the same."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)


@lru_cache(maxsize=256)
def _content_type(header: str) -> tuple[str, str]:
    media_type, options = parse_options_header(header)
    return media_type.strip().lower(), options.get("charset", "utf-8").strip().lower()


def _recode(body: bytes, charset: str) -> bytes:
    """Return the body as UTF-8 without a byte-order mark."""
    if charset in {"utf-8", "utf8"}:
        return body.removeprefix(b"\xef\xbb\xbf")
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"Charset {short(charset)} is not read here; send UTF-8 (or {', '.join(CHARSETS)}).")
    try:
        return body.decode(CHARSETS[charset]).encode()
    except UnicodeDecodeError:
        raise _not_text(body, CHARSETS[charset]) from None


def _not_text(body: bytes, charset: str) -> UnreadableBody:
    """Return the error of a body that isn't of a charset; the place counts from the body's begin, not from a block's."""
    try:
        body.decode(charset)
    except UnicodeDecodeError as error:
        found = f"byte {body[error.start]:#04x} at {error.start:,} is none of its characters"
        return UnreadableBody(f"The body is not {charset}: {found}.")
    return UnreadableBody(f"The body is not {charset}.")


def _is_header(cells: Sequence[str], schema: Schema) -> bool:
    """Say whether a first line holds a feature's name (in whatever case) where its column can't have it as a value.

    A choice, a missing value and a number that happen to be a feature's name (`Na`, `0`) are data.
    """
    names = {name.casefold() for name in schema.names}
    return any(
        cell.strip().casefold() in names and (index >= len(schema.names) or not schema.takes(cell, index))
        for index, cell in enumerate(cells)
    )


def _arranged(rows: Sequence[Sequence[str]], order: list[int] | None, schema: Schema) -> Sequence[Sequence[str]]:
    width = len(schema.names)
    if order is None or order == list(range(width)):
        return rows
    return [[row[index] for index in order] if len(row) == width else row for row in rows]


def _load_json(body: bytes, charset: str) -> Any:
    text = _recode(body, charset)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:
            raise _not_text(text, "utf-8") from None
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


def _is_row(document: Mapping[str, Any], schema: Schema) -> bool:
    """Say whether an object is one row: `{"features": [..]}`, or names to plain values."""
    return bool(document) and (
        "features" in document or "data" in document or not any(isinstance(value, (dict, list)) for value in document.values())
    )


def _from_rows(rows: Sequence[Any], schema: Schema) -> Matrix:
    if not rows:
        raise no_rows()
    if all(type(row) is dict and "features" not in row and "data" not in row for row in rows):
        return schema.from_records(rows)
    return schema.from_values([_cells(row, number, schema) for number, row in enumerate(rows, 1)])


def _cells(row: Any, number: int, schema: Schema) -> Sequence[Any]:
    """Return one row's values in the features' order."""
    if isinstance(row, dict):
        inner = row.get("data", row)
        if isinstance(inner, dict) and "features" in inner:
            row = inner["features"]
        else:
            order = schema.positions(list(row))
            values = list(row.values())
            return [values[index] for index in order]
    if not isinstance(row, list):
        raise UnreadableBody(f"Row {number} is {_kind(row)}; a list of values or an object of names was expected.", row=number)
    return row


def _from_columns(document: Mapping[str, Any], schema: Schema) -> Matrix:
    """Read columns by name: `{"RM": [..]}`, or pandas' `{"RM": {"0": ..}}`."""
    schema.positions(list(document))
    labels: list[str] | None = None
    columns = []
    for name in schema.names:
        column = document[name]
        if isinstance(column, dict):
            labels = list(column) if labels is None else labels
            if set(column) != set(labels):
                raise SchemaMismatch(f"Column {name} has other row labels than the columns before it.", column=name)
            column = [column[label] for label in labels]
        if not isinstance(column, list):
            raise UnreadableBody(f"Column {name} is {_kind(column)}; a list or an object of rows was expected.", column=name)
        columns.append(column)
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(schema.names, columns, strict=True))
        raise SchemaMismatch(f"Columns have different lengths: {lengths}.")
    if not columns[0]:
        raise no_rows()
    return schema.from_values(list(zip(*columns, strict=True)))


def _from_split(split: Any, schema: Schema) -> Matrix:
    if not isinstance(split, dict) or not isinstance(split.get("columns"), list) or not isinstance(split.get("data"), list):
        raise UnreadableBody('dataframe_split takes {"columns": [names], "data": [[values], ..]}.')
    if not all(isinstance(name, str) for name in split["columns"]):
        raise UnreadableBody("dataframe_split's columns are names: a list of texts was expected.")
    order = schema.positions(split["columns"])
    if not split["data"]:
        raise no_rows()
    for number, row in enumerate(split["data"], 1):
        if not isinstance(row, list):
            raise UnreadableBody(f"Row {number} of dataframe_split is {_kind(row)}; a list was expected.", row=number)
    return schema.from_values(_arranged(split["data"], order, schema))


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
