"""Pipe mode as the platform plays it (T-21, T-22): a FIFO an epoch, filled with a channel's objects one after the other."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAGIC = 0xCED7230A


@dataclass
class Stream:
    """What was written into one FIFO."""

    fifo: Path
    parts: list[bytes]
    written_bytes: int = 0
    closed_early: bool = False
    """Whether the reader closed before all was written."""

    def write(self) -> None:
        """Write all parts once somebody reads."""
        try:
            with self.fifo.open("wb", buffering=0) as pipe:
                for part in self.parts:
                    self.written_bytes += pipe.write(part)
        except BrokenPipeError:
            self.closed_early = True


@contextlib.contextmanager
def streaming(
    base: Path, channels: Mapping[str, list[bytes]], late_s: float = 0, epochs: int = 1
) -> Iterator[dict[str, Stream]]:
    """Be the writer of Pipe mode: a thread a channel makes the FIFO of one epoch after the other and fills it.

    The next epoch's FIFO appears once the reader has read all of this one's or closed it early (T-21).

    Args:
        base: the job's /opt/ml.
        channels: what each channel's objects hold; every epoch has the same.
        late_s: how long the first FIFOs take to appear.
        epochs: after how many no more come.

    Yields:
        What was written, by channel: of the epoch that began last.
    """
    streams = {name: Stream(base / "input" / "data" / f"{name}_0", parts) for name, parts in channels.items()}
    ended = threading.Event()

    def run(name: str) -> None:
        time.sleep(late_s)
        for epoch in range(epochs):
            if ended.is_set():
                return
            stream = streams[name] = Stream(base / "input" / "data" / f"{name}_{epoch}", channels[name])
            os.mkfifo(stream.fifo)
            stream.write()

    threads = {name: threading.Thread(target=run, args=(name,), daemon=True) for name in channels}
    for thread in threads.values():
        thread.start()
    try:
        yield streams
    finally:
        ended.set()
        for name, thread in threads.items():
            thread.join(late_s + 1)
            if thread.is_alive():  # it waits for a reader that never came: be one
                os.close(os.open(streams[name].fifo, os.O_RDONLY | os.O_NONBLOCK))
                thread.join(1)


def objects(folder: Path, compression: str = "None", wrapper: str = "None") -> list[bytes]:
    """Return what comes through a FIFO for a folder: its files in the order of their keys, as a channel's settings have them.

    Args:
        folder: the channel's source.
        compression: `CompressionType`, `None` or `Gzip`: the objects are compressed.
        wrapper: `RecordWrapperType`, `None` or `RecordIO`: each object becomes one record.
    """
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).as_posix())
    contents = [path.read_bytes() for path in files]
    if compression == "Gzip":
        contents = [gzip.compress(content) for content in contents]
    return [framed(content) for content in contents] if wrapper == "RecordIO" else contents


def framed(payload: bytes, place: int = 0) -> bytes:
    """Return one RecordIO record (T-22): magic, length, payload, padded to four bytes.

    `place` is 1, 2 or 3 for the first, a middle or the last part of a payload that has the magic within and is split there.
    """
    return struct.pack("<II", MAGIC, place << 29 | len(payload)) + payload + b"\0" * (-len(payload) % 4)


def recordio(payloads: Iterable[bytes]) -> bytes:
    """Return payloads as RecordIO, one record each."""
    return b"".join(framed(payload) for payload in payloads)
