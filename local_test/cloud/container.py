"""A container that answers for an endpoint or a model: one POST to /invocations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Said:
    """What a container answered; status 0 where it did not."""

    status: int
    headers: dict[str, str]
    """Their names in small letters."""
    body: bytes


def send(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Said:
    """Return what a container says to a body."""
    try:
        connection, answered = begin(url, body, headers, timeout_s)
    except (OSError, HTTPException) as error:
        return Said(0, {}, f"{type(error).__name__} {error}".encode())
    try:
        return Said(answered.status, {name.lower(): value for name, value in answered.getheaders()}, answered.read())
    except (OSError, HTTPException) as error:
        return Said(0, {}, f"{type(error).__name__} {error}".encode())
    finally:
        connection.close()


def begin(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> tuple[HTTPConnection, HTTPResponse]:
    """Send a body, and return the connection with the answer that begins.

    Raises:
        OSError: the container can't be reached, or is silent too long.
        HTTPException: what it says is no HTTP.
    """
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("POST", "/invocations", body, dict(headers))
        return connection, connection.getresponse()
    except (OSError, HTTPException):
        connection.close()
        raise
