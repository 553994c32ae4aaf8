"""Which codec reads a body and which writes its answer: Content-Type and Accept against the two tables."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header, parse_options_header

from contract.errors import NotAcceptable, UnreadableBody, UnsupportedMediaType
from contract.media import CSV, JSON, JSONLINES, JSONLINES_ALIASES, NPY, PARQUET
from serving.cells import Matrix, short
from serving.decoders import DECODERS, LIMIT_BYTES, Faults, Format
from serving.encoders import ENCODERS
from serving.schema import Schema

UNNAMED = {"", "application/x-www-form-urlencoded", "application/octet-stream"}  # H-16: what plain curl says, or nothing
KIN = {CSV: CSV, JSON: JSON, NPY: NPY} | dict.fromkeys((JSONLINES, *JSONLINES_ALIASES), JSONLINES)
"""What a body of each type is answered in when the request doesn't say."""


def read_body(
    body: bytes,
    content_type: str,
    schema: Schema,
    *,
    limit: int = LIMIT_BYTES,
    batch: bool = False,
    faults: Faults | None = None,
    asked: dict[str, Any] | None = None,
) -> Matrix:
    """Return the matrix that a request body holds.

    Args:
        body: as it came.
        content_type: the header; its media type, charset and `header=present|absent` count (H-16). Unnamed bodies are JSON
            or CSV by their look.
        schema: the model's columns.
        limit: the payload limit in bytes, for formats that unpack to more than they are.
        batch: whether the body is a part of a file.
        faults: where to put rows that can't be used; without it the first of them is an error.
        asked: where to put the `parameters` that a JSON body has beside its rows.

    Raises:
        UnsupportedMediaType: the media type or the charset isn't read here.
        UnreadableBody, SchemaMismatch, BadData: see the decoders.
        PayloadTooLarge: a packed body holds more than the limit allows.
    """
    media_type, charset, header = _content_type(content_type)
    if media_type in UNNAMED:
        media_type = JSON if body.lstrip()[:1] in (b"{", b"[") else CSV
    decoder = DECODERS.get(media_type)
    if decoder is None:
        raise UnsupportedMediaType(
            f"Content-Type {short(media_type)} is not read here; send one of: {', '.join(DECODERS)}.", supported=list(DECODERS)
        )
    if not body.strip():
        raise UnreadableBody("The body is empty; at least one row was expected. GET /metadata has samples.")
    return decoder(body, schema, Format(charset, header, batch, limit, {} if asked is None else asked), faults)


@lru_cache(maxsize=256)
def answer_type(accept: str, content_type: str, default: str = "") -> str:
    """Return the media type to answer in: Accept's best, else the configured default, else the kin of the body's (H-18).

    Raises:
        NotAcceptable: Accept names only what can't be written.
    """
    media_type, *_ = _content_type(content_type)
    fallback = default or KIN.get(media_type, JSON)
    if not accept.strip():
        return fallback
    # Parameters (`application/json; charset=utf-8`, `;verbose=true`) choose nothing here, as with Content-Type (H-16);
    # serving/intervals.py reads its own.
    accepted = MIMEAccept([(item.partition(";")[0].strip(), quality) for item, quality in parse_accept_header(accept)])
    best = accepted.best_match([fallback, *ENCODERS])
    if best is None:
        raise NotAcceptable(f"Accept {short(accept)} names none of: {', '.join(ENCODERS)}.", supported=list(ENCODERS))
    return best


def is_packed(content_type: str) -> bool:
    """Say whether a body of this type may hold far more than its size tells."""
    return _content_type(content_type)[0] in PARQUET


@lru_cache(maxsize=256)
def _content_type(header: str) -> tuple[str, str, str]:
    """Return the media type, the charset, and what the parameter `header` says of CSV."""
    media_type, options = parse_options_header(header)
    charset, stated = options.get("charset", "utf-8").strip().lower(), options.get("header", "").strip().lower()
    return media_type.strip().lower(), charset, stated
