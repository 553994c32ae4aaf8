"""One HTTP exchange as handlers see it: the request, its body read within limits, the answer, the answer to an error."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from contract.errors import BerthError, MethodNotAllowed, Overloaded, PayloadTooLarge, SlowBody
from contract.media import JSON
from serving.errors import error_body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

DISCARD_TIMES = 4
"""Of a body that is too large, up to this many limits are read and thrown away: closing while the client still writes
would lose the answer that tells it why."""


class Budget:
    """The bytes that all bodies being read or predicted in one process may hold."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Count bytes that have come.

        Raises:
            Overloaded: there is no room for them; they are not counted.
        """
        if size > self._left:
            raise Overloaded("The bodies of other requests fill the memory kept for them. Try again later.", retry_after_s=1)
        self._left -= size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += size


class ClientGone(Exception):
    """The client closed before its body was whole; nobody waits for an answer."""


class Request:
    """What a client asks."""

    rows = 0
    """How many rows were predicted for it, for whoever counts."""
    drift: Any = None
    """What `Drift.count` found in those rows."""
    size_bytes = 0
    """Of the body, once it was read."""
    held_bytes = 0
    """What its body has taken of the budget."""
    is_small = False
    """Whether it is known that its body is predicted on the event loop."""
    _identity = ""

    def __init__(self, scope: Scope, receive: Receive | None, whole: bytes | None = None) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        """Names in lower case, as ASGI has them."""
        self.query_string: bytes = scope.get("query_string", b"")
        self.parameters: Mapping[str, str] = {}
        """The parts of the path that its route names."""
        self.asked: dict[str, Any] = {}
        """The `parameters` that stand in its JSON body beside the rows, once it was read."""
        self.whole = whole
        """The body, where all of it has come already."""
        self._receive = receive

    def header(self, name: bytes) -> str:
        """Return a header's value, empty without it."""
        return self.headers.get(name, b"").decode("latin-1")

    @property
    def query(self) -> Mapping[str, str]:
        """What stands behind the question mark; of a name that stands there twice, the last."""
        return dict(parse_qsl(self.query_string.decode("latin-1"), keep_blank_values=True))

    @property
    def identity(self) -> str:
        """The caller's Inference-Id (H-13) where it is printable and short, else a new one."""
        if not self._identity:
            given = self.header(b"x-amzn-sagemaker-inference-id")
            is_usable = 0 < len(given) <= 64 and given.isascii() and given.isprintable()
            self._identity = given if is_usable else secrets.token_hex(8)
        return self._identity

    async def body(self, limit: int, timeout_s: float, budget: Budget | None = None) -> bytes:
        """Return the body, read to its end.

        Args:
            limit: size in bytes.
            timeout_s: seconds from here to the last byte.
            budget: what bodies may hold together; `held_bytes` says what this one has taken of it.

        Raises:
            PayloadTooLarge: it is larger than the limit.
            SlowBody: it was not whole in time.
            Overloaded: bodies hold too much already.
            ClientGone: the client closed.
        """
        if self.whole is not None:
            return self.take(self.whole, limit, budget)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._read(limit, budget)
        except TimeoutError:
            raise SlowBody(f"The body was not whole within {timeout_s:g} s. Send it faster, or in parts.") from None

    def take(self, body: bytes, limit: int, budget: Budget | None) -> bytes:
        """Return a body that has come already; errors as of `body`."""
        size = self.size_bytes = len(body)
        if size > limit:
            raise _too_large(size, limit)
        if budget:
            budget.take(size)
            self.held_bytes = size
        return body

    async def _read(self, limit: int, budget: Budget | None) -> bytes:
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()  # type: ignore[misc]  # there is one where the body is not whole
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= limit:
                if budget:
                    budget.take(len(chunk))
                    self.held_bytes = size
                chunks.append(chunk)
            else:
                chunks.clear()
                if size > DISCARD_TIMES * limit:
                    break
            more = message.get("more_body", False)
        self.size_bytes = size
        if size > limit:
            raise _too_large(size, limit, "more than " if more else "")
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(size: int, limit: int, more: str = "") -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The body has {more}{size:,} bytes; at most {limit:,} are taken. Send fewer rows.", limit_bytes=limit
    )


Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True)  # a frozen one takes seven times as long to make, and each request makes some
class Answer:
    """A whole response."""

    status: int
    body: bytes
    media_type: str = ""
    headers: Headers = ()
    code: str = ""
    """The error's code, empty for none."""


Handler = Callable[[Request], Awaitable[Answer]]
Explain = Callable[[BerthError, str], Answer]
"""An error and the request's id to the answer that tells it."""


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table of routes."""

    method: str
    path: str
    """A part in braces, `/models/{name}`, takes any text without a slash; it goes into `Request.parameters`."""
    handler: Handler
    explain: Explain | None = None
    """How its protocol words an error; None for `error_answer`."""
    operation: Mapping[str, Any] = field(default_factory=dict)
    """OpenAPI's Operation Object; see serving/openapi.py."""
    at_once: bool = False
    """Whether its handler waits for nothing once a small body is there (`is_small`)."""
    quiet: bool = False
    """Whether it is asked every few seconds, and so not logged."""


def wrong_method(method: str, path: str, allowed: list[str]) -> MethodNotAllowed:
    """Return the error of a path that answers other methods."""
    return MethodNotAllowed(f"{path} takes {' and '.join(allowed)}, not {method}.", allow=allowed)


def error_answer(error: BerthError, identity: str) -> Answer:
    """Return the one JSON form of an error, at most 2,048 bytes (H-15)."""
    headers: Headers = ()
    if "allow" in error.facts:
        headers = ((b"allow", ", ".join(error.facts["allow"]).encode()),)
    if "retry_after_s" in error.facts:
        headers = (*headers, (b"retry-after", str(error.facts["retry_after_s"]).encode()))
    return Answer(error.status, error_body(error, identity), JSON, headers, error.code)


def headers_of(answer: Answer) -> list[tuple[bytes, bytes]]:
    """Return all headers of a response but those that every response of the server has."""
    headers = [(b"content-length", b"%d" % len(answer.body)), *answer.headers]
    if answer.media_type:
        headers.append((b"content-type", answer.media_type.encode()))
    return headers


async def send_answer(answer: Answer, send: Send, *, with_body: bool = True) -> None:
    """Write a response; HEAD has the headers of GET and no body."""
    await send({"type": "http.response.start", "status": answer.status, "headers": headers_of(answer)})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})
