"""gzip on the way in, bounded so that a small body can't become a large one, and on the way out."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace
from functools import lru_cache

from werkzeug.http import parse_accept_header

from contract.errors import PayloadTooLarge, UnreadableBody, UnsupportedMediaType
from serving.cells import short
from serving.exchange import Answer

ZIP_BYTES = 1_024
"""Smaller answers are sent as they are."""


def unzip(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the body that Content-Encoding wraps.

    Raises:
        UnsupportedMediaType: the encoding is neither gzip nor identity.
        UnreadableBody: it isn't gzip, or ends too soon.
        PayloadTooLarge: it unpacks to more bytes than the limit.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name not in {"gzip", "x-gzip"}:
        raise UnsupportedMediaType(f"Content-Encoding {short(encoding)} is not read here; send gzip or none.")
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise UnreadableBody(f"The body is not gzip, as Content-Encoding says: {error}.") from None
    if len(unpacked) > limit:
        raise PayloadTooLarge(f"The body unpacks to more than {limit:,} bytes. Send fewer rows.", limit_bytes=limit)
    if not unpacker.eof or unpacker.unused_data:
        what = "more follows" if unpacker.eof else "it ends too soon"
        raise UnreadableBody(f"The body is not one whole gzip stream: {what}.")
    return unpacked


@lru_cache(maxsize=64)
def accepts_gzip(header: str) -> bool:
    """Say whether Accept-Encoding takes gzip."""
    return any(name.lower() in {"gzip", "x-gzip"} and quality > 0 for name, quality in parse_accept_header(header))


def zipped(answer: Answer) -> Answer:
    """Return the answer with its body packed, quickly rather than tightly."""
    headers = (*answer.headers, (b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
    return replace(answer, body=gzip.compress(answer.body, 1, mtime=0), headers=headers)
