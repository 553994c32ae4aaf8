"""The tensors of the Open Inference Protocol to the matrix, whether they stand in JSON or in binary parts behind it.

Source: open-inference-protocol, specification/protocol/inference_rest.md; Triton's extension_binary_data.md for the parts,
which follow the JSON in the order of their inputs. Sizes are checked against bytes that are there before anything is made.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.errors import BadData, SchemaMismatch, UnreadableBody
from serving.cells import Matrix, short
from serving.schema import Schema, no_rows

DTYPES = {"BOOL": "u1", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8"}
DTYPES |= {"UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
TEXT = "BYTES"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input, as many values as its shape says."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """[N] or [N, width]."""
    values: NDArray[Any] | Sequence[str]
    """Row by row: numbers, or texts that are read as cells of a CSV are."""

    def rows(self, schema: Schema) -> Matrix:
        """Return its values as the matrix of some columns."""
        width = len(schema.names)
        if isinstance(self.values, np.ndarray):
            return schema.from_array(self.values.reshape(-1, width))
        return schema.from_text([self.values[start : start + width] for start in range(0, len(self.values), width)])


def split_body(body: bytes, header_length: str) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON document, and the bytes that follow it where the header says how long it is.

    Raises:
        UnreadableBody: the header lies, or it is no JSON object.
    """
    size = len(body)
    if header_length:
        if not re.fullmatch(r"[0-9]{1,18}", header_length) or int(header_length) > size:
            raise UnreadableBody(
                f"Inference-Header-Content-Length is {short(header_length)}; the size of the JSON at the body's begin was "
                f"expected, at most the body's {size:,} bytes."
            )
        size = int(header_length)
    whole = memoryview(body)
    document = _load_json(whole[:size])
    if not isinstance(document, dict):
        raise UnreadableBody('The body is no JSON object; {"inputs": [..]} was expected.')
    return document, whole[size:]


def _load_json(text: memoryview) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if b"NaN" in (raw := bytes(text)):  # no JSON, but what tritonclient writes for a missing value
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(raw, parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
        where = f"line {error.lineno} column {error.colno}"
        raise UnreadableBody(f"The body is not JSON: {error.msg}, {where}. Binary parts need their header.") from None


def read_tensors(document: Mapping[str, Any], rest: memoryview) -> list[Tensor]:
    """Return the inputs; every byte behind the JSON belongs to one of them.

    Raises:
        UnreadableBody: an input isn't what the protocol describes, or its sizes contradict each other.
        SchemaMismatch: its shape has too many dimensions.
        BadData: a value isn't of the datatype.
    """
    tensors, offset = [], 0
    for entry in entries_of(document, "inputs"):
        where = f"Input {short(typed(entry, 'name', str, 'An input'))}"
        size = parameters_of(entry, where).get("binary_data_size")
        if (size is None) == (entry.get("data") is None):
            raise UnreadableBody(f"{where} takes either data or the parameter binary_data_size.")
        part = None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(rest) - offset:
                left = f"{len(rest) - offset:,} bytes are left of those behind the JSON"
                raise UnreadableBody(f"{where}: binary_data_size is {short(size)}, but {left}.")
            part, offset = rest[offset : offset + size], offset + size
        tensors.append(_tensor(entry, where, part))
    if offset != len(rest):
        raise UnreadableBody(f"{len(rest):,} bytes follow the JSON, and inputs name {offset:,} of them.")
    return tensors


def _tensor(entry: Mapping[str, Any], where: str, part: memoryview | None) -> Tensor:
    datatype = typed(entry, "datatype", str, where)
    if datatype != TEXT and datatype not in DTYPES:
        raise UnreadableBody(f"{where}: datatype {short(datatype)} is none of: {', '.join(DTYPES)}, {TEXT}.")
    shape = typed(entry, "shape", list, where)
    if len(shape) not in (1, 2) or not all(type(length) is int and length >= 0 for length in shape):
        raise SchemaMismatch(f"{where}: shape is {short(shape)}; [rows] or [rows, columns] was expected.")
    if not all(shape):
        raise no_rows()
    values = _from_json(entry["data"], datatype, shape, where) if part is None else _from_binary(part, datatype, shape, where)
    return Tensor(entry["name"], datatype, tuple(shape), values)


def _from_json(data: Any, datatype: str, shape: Sequence[int], where: str) -> NDArray[Any] | Sequence[str]:
    """Return the values of JSON data, flat or nested as the shape says; null is a missing value."""
    if isinstance(data, list) and data and isinstance(data[0], list):
        if len(shape) != 2 or len(data) != shape[0] or not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise UnreadableBody(f"{where}: data is not nested as its shape {short(shape)} says.")
        data = list(chain.from_iterable(data))
    if not isinstance(data, list) or len(data) != math.prod(shape):
        count = f"{len(data):,} values" if isinstance(data, list) else "no list"
        raise UnreadableBody(f"{where}: shape {short(shape)} means {math.prod(shape):,} values, but data holds {count}.")
    allowed = _json_types(datatype)
    if not set(map(type, data)) <= allowed:
        _refuse(next(index for index, value in enumerate(data) if type(value) not in allowed), data, datatype, shape, where)
    if datatype == TEXT:
        return ["" if value is None else value for value in data]
    if not datatype.startswith("FP"):
        bounds = (0, 1) if datatype == "BOOL" else _bounds(datatype)
        if min(data) < bounds[0] or max(data) > bounds[1]:
            _refuse(next(i for i, v in enumerate(data) if not bounds[0] <= v <= bounds[1]), data, datatype, shape, where)
        return np.array(data, dtype=DTYPES[datatype])
    # Not rounded to the datatype here: the matrix is float32 whatever it says, so that every body gives the same numbers.
    return np.array([math.nan if value is None else value for value in data], dtype=np.float64)


def _json_types(datatype: str) -> set[type]:
    if datatype.startswith("FP"):
        return {float, int, type(None)}
    if datatype == TEXT:
        return {str, type(None)}
    return {bool} if datatype == "BOOL" else {int}


def _bounds(datatype: str) -> tuple[int, int]:
    limits = np.iinfo(np.dtype(DTYPES[datatype]))
    return int(limits.min), int(limits.max)


def _refuse(index: int, data: Sequence[Any], datatype: str, shape: Sequence[int], where: str) -> NoReturn:
    row = index // (shape[1] if len(shape) == 2 else 1) + 1
    raise BadData(f"{where}, row {row}: {short(data[index])} is no {datatype}.", row=row)


def _from_binary(part: memoryview, datatype: str, shape: Sequence[int], where: str) -> NDArray[Any] | Sequence[str]:
    """Return the values of a binary part: little-endian numbers, or texts behind their lengths of four bytes."""
    count = math.prod(shape)
    if datatype == TEXT:
        return _texts(part, count, where)
    itemsize = np.dtype(DTYPES[datatype]).itemsize
    if count * itemsize != len(part):
        expected = f"{count * itemsize:,} bytes of {datatype}"
        raise UnreadableBody(f"{where}: shape {short(shape)} means {expected}, but binary_data_size is {len(part):,}.")
    values = np.frombuffer(part, dtype=DTYPES[datatype])
    return (values != 0).astype("u1") if datatype == "BOOL" else values


def _texts(part: memoryview, count: int, where: str) -> list[str]:
    texts: list[str] = []
    offset = 0
    while offset < len(part):
        begin = offset + 4
        offset = begin + struct.unpack_from("<I", part, offset)[0] if begin <= len(part) else begin
        if offset > len(part):
            raise UnreadableBody(f"{where}: text {len(texts) + 1} reaches beyond the {len(part):,} bytes of its binary part.")
        try:
            texts.append(str(part[begin:offset], "utf-8"))
        except UnicodeDecodeError:
            raise UnreadableBody(f"{where}: text {len(texts) + 1} is not UTF-8.") from None
    if len(texts) != count:
        raise UnreadableBody(f"{where}: the shape means {count:,} texts, but its binary part holds {len(texts):,}.")
    return texts


def matrix_of(tensors: Sequence[Tensor], schema: Schema) -> Matrix:
    """Return one tensor [N, F] of any name, or one a feature of [N] or [N, 1], as the matrix.

    Raises:
        SchemaMismatch: a feature is missing, unknown or doubled, or has another number of rows.
        BadData: a value isn't what its column takes.
    """
    width, first = len(schema.names), tensors[0]
    if len(tensors) == 1 and first.shape[1:] == (width,):
        return first.rows(schema)
    if len(tensors) == 1 and first.name not in schema.names:
        raise SchemaMismatch(
            f"Input {short(first.name)} has shape {list(first.shape)}; [rows, {width}] was expected, or an input for each of: "
            f"{schema.listing}."
        )
    order = schema.positions([tensor.name for tensor in tensors])
    for tensor in tensors:
        if tensor.shape not in ((first.shape[0],), (first.shape[0], 1)):
            expected = f"[{first.shape[0]}] was expected, as many rows as {short(first.name)} has"
            raise SchemaMismatch(f"Input {short(tensor.name)} has shape {list(tensor.shape)}; {expected}.")
    return np.hstack([tensors[at].rows(Schema([each])) for at, each in zip(order, schema.features, strict=True)])


def entries_of(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return a list of objects, at least one; raises UnreadableBody."""
    entries = document.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UnreadableBody(f"{key} is not a list of objects with a name each.")
    return entries


def typed(entry: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    """Return an object's value of one type; raises UnreadableBody."""
    value = entry.get(key)
    if not isinstance(value, kind):
        expected = "a text" if kind is str else "a list of whole numbers"
        raise UnreadableBody(f"{where}: {key} is {short(value)}; {expected} was expected.")
    return value


def parameters_of(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return an object's parameters, none where there are none; raises UnreadableBody."""
    parameters = entry.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise UnreadableBody(f"{where}: parameters is {short(parameters)}; an object was expected.")
    return parameters or {}


def flag(entry: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    """Return a parameter that is true or false; raises UnreadableBody."""
    value = parameters_of(entry, where).get(key, default)
    if not isinstance(value, bool):
        raise UnreadableBody(f"{where}: the parameter {key} is {short(value)}; true or false was expected.")
    return value
