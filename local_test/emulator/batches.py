"""How a batch transform job cuts an object into records, and packs records into mini-batches: no record is ever cut (H-30)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MIB = 1 << 20
RECORDIO_MAGIC = 0xCED7230A  # T-22
LENGTH_BITS = 29
"""Of RecordIO's length word; the three above say whether a record goes on in the next frame."""


class BadObject(ValueError):
    """An object that can't be cut, or a record that no request can hold."""


@dataclass(frozen=True)
class Record:
    """One unit of an object."""

    frame: bytes
    """As it stands in the object: what MultiRecord sends. A line has its newline."""
    payload: bytes
    """Without framing and padding: what SingleRecord sends of a binary format."""


def read_whole(file: IO[bytes]) -> Iterator[Record]:
    """Yield the object itself."""
    body = file.read()
    yield Record(body, body)


def read_lines(file: IO[bytes]) -> Iterator[Record]:
    """Yield lines, newlines kept: the first line is no header to the platform (H-30)."""
    for line in file:
        yield Record(line, line)


def read_recordio(file: IO[bytes]) -> Iterator[Record]:
    """Yield records of MXNet's format (T-22): magic, length, payload, filled up to four bytes.

    Raises:
        BadObject: it is not that format, ends too soon, or has a record in several frames, which nobody's writer makes.
    """
    while header := file.read(8):
        magic, word = struct.unpack("<II", header) if len(header) == 8 else (0, 0)
        if magic != RECORDIO_MAGIC:
            raise BadObject(f"a RecordIO record begins with {RECORDIO_MAGIC:#x}; found {header.hex(' ')}")
        if word >> LENGTH_BITS:
            raise BadObject("a RecordIO record in several frames is not read here")
        body = _exactly(file, word + -word % 4, "RecordIO")
        yield Record(header + body, body[:word])


def read_tfrecord(file: IO[bytes]) -> Iterator[Record]:
    """Yield records of TensorFlow's format: length in 8 bytes, its checksum, payload, its checksum; those aren't verified.

    Raises:
        BadObject: it ends too soon.
    """
    while start := file.read(1):
        header = start + _exactly(file, 11, "TFRecord")
        (length,) = struct.unpack_from("<Q", header)
        body = _exactly(file, length + 4, "TFRecord")
        yield Record(header + body, body[:length])


READERS: dict[str, Callable[[IO[bytes]], Iterator[Record]]] = {
    "None": read_whole,
    "Line": read_lines,
    "RecordIO": read_recordio,
    "TFRecord": read_tfrecord,
}
"""SplitType to what reads it (H-30)."""


def mini_batches(path: Path, split_type: str, strategy: str, max_payload_mb: int) -> Iterator[list[Record]]:
    """Yield what goes into one request each: one record, or as many as fit; 0 MB is no limit (H-26).

    Args:
        path: the object.
        split_type: a key of READERS.
        strategy: `MultiRecord` or `SingleRecord`.
        max_payload_mb: what a request may hold, in units of 2**20 bytes.

    Raises:
        BadObject: a record is larger than a request may be, or the object is not in the format.
    """
    limit = max_payload_mb * MIB
    with path.open("rb") as file:
        records = _bounded(READERS[split_type](file), limit)
        if strategy == "SingleRecord":
            yield from ([record] for record in records)
        else:
            yield from _packed(records, limit)


def body_of(records: Iterable[Record], strategy: str) -> bytes:
    """Return the body of the request that carries a mini-batch."""
    return b"".join(record.payload if strategy == "SingleRecord" else record.frame for record in records)


def _bounded(records: Iterable[Record], limit: int) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        if limit and len(record.frame) > limit:
            raise BadObject(f"record {number} has {len(record.frame):,} bytes; MaxPayloadInMB allows {limit:,}")
        yield record


def _packed(records: Iterable[Record], limit: int) -> Iterator[list[Record]]:
    batch: list[Record] = []
    size = 0
    for record in records:
        if batch and limit and size + len(record.frame) > limit:
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.frame)
    if batch:
        yield batch


def _exactly(file: IO[bytes], size: int, form: str) -> bytes:
    body = file.read(size)
    if len(body) < size:
        raise BadObject(f"the object ends within a {form} record: {size:,} bytes were expected, {len(body):,} are there")
    return body
