"""Text in whatever charset a request names, as UTF-8."""

from __future__ import annotations

from contract.errors import UnreadableBody, UnsupportedMediaType
from serving.cells import short

CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "utf-16": "utf-16",
}


def recode(body: bytes, charset: str) -> bytes:
    """Return the body as UTF-8 without a byte-order mark."""
    if charset in {"utf-8", "utf8"}:
        return body.removeprefix(b"\xef\xbb\xbf")
    if charset not in CHARSETS:
        raise UnsupportedMediaType(f"Charset {short(charset)} is not read here; send UTF-8 (or {', '.join(CHARSETS)}).")
    try:
        return body.decode(CHARSETS[charset]).encode()
    except UnicodeDecodeError:
        raise not_text(body, CHARSETS[charset]) from None


def not_text(body: bytes, charset: str) -> UnreadableBody:
    """Return the error of a body that isn't of a charset; the place counts from the body's begin, not from a block's."""
    try:
        body.decode(charset)
    except UnicodeDecodeError as error:
        found = f"byte {body[error.start]:#04x} at {error.start:,} is none of its characters"
        return UnreadableBody(f"The body is not {charset}: {found}.")
    return UnreadableBody(f"The body is not {charset}.")
