"""The files of a channel: which are read, what format each has, and the bytes of it, unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.errors import BadChannel, BadData
from contract.job import Channel
from contract.media import TRAINED, Format

ENDINGS: dict[str, Format] = {".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet", ".npy": "npy"}
GZIP = b"\x1f\x8b"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Source:
    """One file."""

    path: Path
    name: str
    """Within the channel, for messages."""
    format: Format


def sources_of(channel: Channel) -> list[Source]:
    """Return a channel's files in the order of their paths, hidden and empty ones left out; others are said to be passed over.

    A file's ending says what it is; one without an ending (Spark's part-00000) is what the channel's content type says, CSV
    without one. Where there is neither kind, a stated content type goes for whatever the files are called.
    """
    files = [path for path in _all_files(channel) if not _is_hidden(path.relative_to(channel.path))]
    stated = content_format(channel)
    filled = [path for path in files if path.stat().st_size]
    chosen = {path: found for path in filled if (found := _format(path, stated))}
    if not chosen and channel.content_type:
        chosen = dict.fromkeys(filled, stated)
    if files and len(chosen) < len(files) and chosen:
        others = ", ".join(path.name for path in files if path not in chosen)
        print(f"data: channel {channel.name}: passed over, of no format that is read, or empty: {others}", flush=True)
    return [Source(path, str(path.relative_to(channel.path)), format_) for path, format_ in chosen.items()]


def content_format(channel: Channel) -> Format:
    """Return what a channel's content type names.

    Raises:
        BadChannel: it names what isn't read.
    """
    if channel.media_type == "application/x-recordio-protobuf":
        raise BadChannel(
            f"Channel {channel.name!r} is RecordIO-protobuf, which is not read here: convert it to CSV or Parquet, or frame "
            "lines of CSV."
        )
    if channel.media_type not in TRAINED:
        raise BadChannel(
            f"Channel {channel.name!r} has the content type {channel.media_type!r}; CSV, Parquet and .npy are read: "
            "text/csv, application/x-parquet, application/x-npy. Convert the data, or correct the type."
        )
    return TRAINED[channel.media_type]


def describe_files(channel: Channel) -> str:
    """Return the names of the first files that a channel holds, for a message."""
    found = [path for path in _all_files(channel) if not _is_hidden(path.relative_to(channel.path))]
    return ", ".join(path.name for path in found[:5]) or "no file"


def read_file(path: Path) -> Iterator[bytes]:
    """Yield a file's bytes, unpacked where they begin as gzip does."""
    with path.open("rb") as file:
        yield from unpacked(iter(lambda: file.read(CHUNK_BYTES), b""), path.name)


def unpacked(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield a stream's bytes, unpacked where they begin as gzip does, several packed parts behind each other included.

    Raises:
        BadData: it is gzip and damaged, or ends too soon.
    """
    first = next(chunks, b"")
    while 0 < len(first) < len(GZIP) and (more := next(chunks, b"")):
        first += more
    if not first.startswith(GZIP):
        yield first
        yield from chunks
        return
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    data = first
    try:
        while data:
            while data:
                if unpacker.eof:
                    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
                if part := unpacker.decompress(data, CHUNK_BYTES):
                    yield part
                data = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
            data = next(chunks, b"")
    except zlib.error as error:
        raise BadData(f"{name} is damaged: as gzip it can't be unpacked ({error}). Upload it again.", file=name) from error
    if not unpacker.eof:
        raise BadData(f"{name} is damaged: it begins as gzip and ends too soon. Upload it again.", file=name)


def _all_files(channel: Channel) -> list[Path]:
    if not channel.path.is_dir():
        return []
    return sorted(path for path in channel.path.rglob("*") if path.is_file())


def _is_hidden(path: Path) -> bool:
    """Say whether a file, or a folder above it, is a tool's own: `.ipynb_checkpoints`, `_SUCCESS`, `_temporary`."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _format(path: Path, stated: Format) -> Format | None:
    if not path.suffix:
        return stated
    name = path.name.lower()
    return next((found for ending, found in ENDINGS.items() if name.endswith(ending)), None)
