"""Requests as they go over the wire: no header that was not asked for, no redirect followed, the body whole or in chunks."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from local_test.emulator import INVOKE_S, Reply
from local_test.subject import Payload, Subject
from local_test.verdicts import Unjudged, Violated

PATIENCE_S = 10.0
"""For a request that costs the container little: several times as long as the payload takes, and at least this."""


class Unreachable(ConnectionError):
    """Nobody took the connection."""


@dataclass(frozen=True)
class Answered:
    """The owner's payload as it is answered with 200: what the other requests differ from."""

    headers: Mapping[str, str]
    reply: Reply


def answered(subject: Subject) -> Answered:
    """Return the owner's payload, answered: without Accept, or with one where the container insists (H-18 judges that).

    Raises:
        Unjudged: no payload was given.
        Violated: no answer was 200; the message has the first.
        OSError: the connection was cut, or nothing came in time.
    """

    def make() -> Answered:
        payload = payload_of(subject)
        told = []
        for accept in ({}, {"Accept": payload.content_type}, {"Accept": "*/*"}):
            headers = {"Content-Type": payload.content_type, **accept}
            reply = _send(subject, payload.body, headers, INVOKE_S)
            if reply.status == 200:
                return Answered(headers, reply)
            told.append(describe(reply))
        raise Violated(f"the payload, as {payload.content_type}, was answered with {told[0]}")

    return subject.once("answered", make)


def payload_of(subject: Subject) -> Payload:
    """Return the owner's payload; raises Unjudged where none was given."""
    if subject.payload is None:
        raise Unjudged("no payload was given: --payload FILE --content-type TYPE, a request that is answered with 200")
    return subject.payload


def ask(
    subject: Subject,
    body: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    *,
    method: str = "POST",
    patience_s: float | None = None,
    chunked: bool = False,
) -> Reply:
    """Send a request to the shared server's /invocations that differs from the answered one in what is named.

    Args:
        subject: of the server.
        body: in place of the payload.
        headers: more of them, and others' values; None leaves one out.
        method: in place of POST.
        patience_s: for an answer; from the payload's time where none is given.
        chunked: send no Content-Length and the body in three chunks.

    Raises:
        OSError: the connection was cut, or nothing came in time.
        Unjudged: the server had ended before, and does not start again.
    """
    usual = answered(subject)
    changed = {**usual.headers, **(headers or {})}
    kept = {name: value for name, value in changed.items() if value is not None}
    sent = payload_of(subject).body if body is None and method == "POST" else body
    patience = patience_s or min(INVOKE_S, max(PATIENCE_S, 5 * usual.reply.seconds))
    return _send(subject, sent, kept, patience, method, chunked)


def send(
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    method: str = "POST",
    path: str = "/invocations",
    patience_s: float = INVOKE_S,
    chunked: bool = False,
) -> Reply:
    """Send one request on a connection of its own.

    Raises:
        Unreachable: nobody took the connection.
        OSError: the connection was cut, or nothing came in time.
    """
    with contextlib.closing(connect(url, patience_s)) as connection:
        return exchange(connection, body, headers, method=method, path=path, chunked=chunked)


def connect(url: str, patience_s: float = PATIENCE_S) -> http.client.HTTPConnection:
    """Return an open connection; raises Unreachable."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=patience_s)
    try:
        connection.connect()
    except OSError as error:
        raise Unreachable(f"no connection to {url}: {error}") from error
    return connection


def exchange(
    connection: http.client.HTTPConnection,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    method: str = "POST",
    path: str = "/invocations",
    chunked: bool = False,
) -> Reply:
    """Send one request on an open connection, and read its answer; the connection is closed where the server says so.

    Raises:
        OSError: the connection was cut, or nothing came in time.
    """
    started = time.monotonic()
    try:
        with contextlib.suppress(ConnectionError):  # it may have answered, and closed, before it had read all
            connection.request(method, path, _chunks(body) if chunked and body else body, dict(headers))
        with connection.getresponse() as response:
            found = dict(response.headers)
            return Reply(response.status, response.read(), found, time.monotonic() - started)
    except TimeoutError:
        raise TimeoutError(f"no answer within {connection.timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(f"the connection was cut without an answer ({type(error).__name__}: {error})") from error


def header(reply: Reply, name: str) -> str:
    """Return a header, whatever the case of its name; empty without it."""
    return next((value for key, value in reply.headers.items() if key.lower() == name.lower()), "")


def media_type(text: str) -> str:
    """Return a Content-Type without its parameters, in lower case."""
    return text.partition(";")[0].strip().lower()


def describe(reply: Reply, letters: int = 200) -> str:
    """Return status, type and the beginning of a body, as evidence."""
    body = " ".join(reply.text.split())
    shown = body[:letters] + ("..." if len(body) > letters else "")
    return f"{reply.status} {media_type(header(reply, 'Content-Type')) or 'without a Content-Type'}: {shown or 'an empty body'}"


def _send(
    subject: Subject,
    body: bytes | None,
    headers: Mapping[str, str],
    patience_s: float,
    method: str = "POST",
    chunked: bool = False,
) -> Reply:
    """Send to the shared server; one that a request ended or holds up is replaced, so that the rules to come are judged."""
    try:
        url = subject.endpoint.program.url
        return send(url, body, headers, method=method, patience_s=patience_s, chunked=chunked)
    except Unreachable:
        url = subject.restarted().program.url
        return send(url, body, headers, method=method, patience_s=patience_s, chunked=chunked)
    except TimeoutError:
        if not _is_well(subject):
            with contextlib.suppress(Unjudged):
                subject.restarted()
        raise


def _is_well(subject: Subject) -> bool:
    try:
        return subject.endpoint.ping().status == 200
    except OSError:
        return False


def _chunks(body: bytes) -> Iterator[bytes]:
    """Yield a body in three parts; http.client sends what has no length in chunks."""
    third = len(body) // 3 + 1
    yield from (body[start : start + third] for start in range(0, len(body), third))
