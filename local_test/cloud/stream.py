"""AWS's event stream: how parts of an answer travel while it is being made (application/vnd.amazon.eventstream)."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Iterator, Mapping

KIND = "application/vnd.amazon.eventstream"
_TEXT = 7
"""The type of a header's value that is text."""


def parts(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a PayloadPart event for each chunk."""
    for chunk in chunks:
        named = {":message-type": "event", ":event-type": "PayloadPart", ":content-type": "application/octet-stream"}
        yield message(named, chunk)


def message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message: lengths, their checksum, headers, payload, the checksum of all."""
    named = b"".join(_header(name, value) for name, value in headers.items())
    total = 4 + 4 + 4 + len(named) + len(payload) + 4
    lengths = struct.pack(">II", total, len(named))
    whole = lengths + struct.pack(">I", crc32(lengths)) + named + payload
    return whole + struct.pack(">I", crc32(whole))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes([len(key)]) + key + bytes([_TEXT]) + struct.pack(">H", len(text)) + text
