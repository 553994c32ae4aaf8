"""The one JSON form of an error."""

from __future__ import annotations

import orjson

from contract.errors import BerthError

MAX_ERROR_BYTES = 2_048  # H-15


def error_body(error: BerthError, identity: str) -> bytes:
    """Return `{"error", "message", "request_id"}` and the error's facts; too long, it loses those, then the message's end."""
    document = {"error": error.code, "message": error.message, "request_id": identity}
    body = orjson.dumps({**error.facts, **document})
    if len(body) > MAX_ERROR_BYTES:
        body = orjson.dumps(document)
    while len(body) > MAX_ERROR_BYTES:
        document["message"] = document["message"][: len(document["message"]) * 3 // 4] + "..."
        body = orjson.dumps(document)
    return body
