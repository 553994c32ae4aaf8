"""Pipe mode: one FIFO an epoch, read once to its end (T-21), and RecordIO framing (T-22). A stop is seen while it waits."""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from contract.errors import BadChannel, BadData
from contract.job import Channel
from training.sources import CHUNK_BYTES, content_format, unpacked

PATIENCE_S = 600
"""How long the FIFO may take to appear, and the first byte to come: the platform starts streaming late, not never."""
POLL_S = 0.2
MAGIC = struct.pack("<I", 0xCED7230A)
LENGTH_BITS = 29
PROTOBUF_STARTS = (b"\n", b"\x12")  # the tags of a Record's features and label


def read_pipe(channel: Channel) -> Generator[bytes, None, None]:
    """Yield the bytes of a channel's first epoch: CSV, unpacked and without frames.

    The rows stay in memory, so one epoch is all that is read. Closing the generator closes the FIFO, which ends its writer.

    Raises:
        BadChannel: the FIFO doesn't come, nothing comes through it, or it is to carry what can't be streamed.
        BadData: gzip or RecordIO that is damaged.
        Stopped: a signal came.
    """
    if content_format(channel) != "csv":
        raise BadChannel(
            f"Channel {channel.name!r} is in Pipe mode and of type {channel.media_type}; a FIFO can carry CSV alone. "
            "Set TrainingInputMode to File or FastFile."
        )
    fifo = channel.path.with_name(f"{channel.name}_0")
    print(f"data: channel {channel.name}: reading {fifo.name}", flush=True)
    descriptor = _open(fifo, channel)
    try:
        chunks = unpacked(_read(descriptor, fifo, channel), fifo.name)
        yield from unframed(chunks, fifo.name, is_framed=channel.record_wrapper == "RecordIO")
    finally:
        os.close(descriptor)


def unframed(chunks: Iterator[bytes], name: str, *, is_framed: bool = False) -> Generator[bytes, None, None]:
    """Yield the payloads of RecordIO records, a line each; a stream that isn't framed, as it is.

    A record: magic, a word of 3 bits for its place in a split one and 29 for its length, payload, padding to 4 bytes. Where
    a payload holds the magic the writer splits it there and leaves it out (MXNet's format).

    Raises:
        BadData: the framing is damaged, is missing though it was announced, or the records are protobuf.
    """
    first = next(chunks, b"")
    while 0 < len(first) < len(MAGIC) and (more := next(chunks, b"")):
        first += more
    if first.startswith(MAGIC):
        yield from _payloads(first, chunks, name)
    elif is_framed and first:
        raise BadData(f"{name} does not begin with a RecordIO record, as RecordWrapperType says it would.", file=name)
    else:
        yield first
        yield from chunks


def _open(fifo: Path, channel: Channel) -> int:
    """Return a descriptor that never blocks, once the platform has made the FIFO."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise BadChannel(
                    f"Channel {channel.name!r} is in Pipe mode, but {fifo} has not appeared in {PATIENCE_S} s. "
                    "Start the job again, or set TrainingInputMode to File."
                ) from None
        except OSError as error:
            raise BadChannel(f"Channel {channel.name!r}: {fifo} can't be opened: {error.strerror}.") from error
        time.sleep(POLL_S)


def _read(descriptor: int, fifo: Path, channel: Channel) -> Iterator[bytes]:
    """Yield what comes until the writer closes. Before there was one Linux reports no hang-up, so poll goes on waiting."""
    deadline: float | None = time.monotonic() + PATIENCE_S
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        if not poll.poll(POLL_S * 1_000):
            if deadline and time.monotonic() > deadline:
                raise BadChannel(f"Channel {channel.name!r}: nothing has come through {fifo} in {PATIENCE_S} s.")
            continue
        try:
            chunk = os.read(descriptor, CHUNK_BYTES)
        except BlockingIOError:
            continue
        if not chunk:
            return
        deadline = None
        yield chunk


def _payloads(first: bytes, chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the whole records that each chunk completes, a line each."""
    data, parts = first, list[bytes]()
    number = 0
    while True:
        lines: list[bytes] = []
        at = 0
        while len(data) - at >= 8:
            magic, word = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
            if magic != MAGIC:
                raise BadData(f"{name}: record {number + 1} does not begin as a RecordIO record does.", file=name)
            place, length = word >> LENGTH_BITS, word & ((1 << LENGTH_BITS) - 1)
            end = at + 8 + length + -length % 4
            if end > len(data):
                break
            parts.append(data[at + 8 : at + 8 + length])
            at = end
            if place in (0, 3):  # whole, or the last part of a split one
                lines.append(_line(MAGIC.join(parts), name))
                parts.clear()
                number += 1
        if lines:
            yield b"".join(lines)
        chunk = next(chunks, b"")
        if not chunk:
            break
        data = data[at:] + chunk
    if len(data) > at or parts:
        raise BadData(f"{name} ends within RecordIO record {number + 1}.", file=name)


def _line(payload: bytes, name: str) -> bytes:
    if payload.startswith(PROTOBUF_STARTS):
        raise BadData(
            f"{name} holds RecordIO-protobuf, which is not read here: convert it to CSV or Parquet, or frame lines of CSV.",
            file=name,
        )
    return payload if payload.endswith(b"\n") else payload + b"\n"
