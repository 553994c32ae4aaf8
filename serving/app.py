"""The ASGI application: probes and predictions on a short path, all that people look at behind it (Flask).

A request is read downwards: route, body, decode, predict, encode. Errors are answered in one place, `__call__`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from a2wsgi import WSGIMiddleware

from contract.errors import BerthError, MethodNotAllowed, PayloadTooLarge
from serving.codecs import ENCODERS, JSON, Encoder, answer_type, encode_book, read_body
from serving.errors import error_body
from serving.pages import make_pages
from serving.predictor import Predictor, self_test
from serving.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

INLINE_BYTES = 16_384
"""Bodies up to this size are predicted on the event loop; larger ones in a thread, so that they don't hold up `/ping`."""
SLOTS = 2
"""Large bodies that a worker computes at once."""
DISCARD_TIMES = 4
"""Of a body that is too large, up to this many limits are read and thrown away: closing while the client still writes
would lose the answer that tells it why."""

log = logging.getLogger("gunicorn.error")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes
    media_type: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class ClientGone(Exception):
    """The client closed before its body was whole; nobody waits for an answer."""


class App:
    """One model behind every path of every platform."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.predictor = predictor
        self.settings = settings
        self.is_ready = True  # load_predictor has run the self-test (H-9)
        # Its threads start with their first work, after the fork.
        self.slots = ThreadPoolExecutor(SLOTS, thread_name_prefix="slot")
        self.pages: Any = WSGIMiddleware(cast(Any, make_pages(predictor.manifest, settings)), workers=SLOTS)
        self.routes: dict[str, dict[str, Callable[[Scope, Receive], Awaitable[Answer]]]] = {
            "/ping": {"GET": self.ping, "HEAD": self.ping},
            "/invocations": {"POST": self.invoke},
            "/predict": {"POST": self.predict},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; every error becomes JSON here."""
        methods = self.routes.get(scope["path"])
        if methods is None or scope["type"] != "http":  # the bridge declines WebSockets
            # The bridge reads a query string as ASCII and no page takes one.
            await self.pages({**scope, "query_string": b""}, receive, send)
            return
        try:
            handler = methods.get(scope["method"])
            if handler is None:
                raise wrong_method(scope["method"], scope["path"], list(methods))
            answer = await handler(scope, receive)
        except ClientGone:
            return
        except BerthError as error:
            answer = error_answer(error, request_id(scope))
        except Exception:
            identity = request_id(scope)
            log.exception("request %s failed", identity)
            self._test_again()
            answer = error_answer(BerthError("The server failed; its log has the cause under this request_id."), identity)
        await _send(answer, send, with_body=scope["method"] != "HEAD")

    async def ping(self, scope: Scope, receive: Receive) -> Answer:
        """Say whether the model answers (H-8): the state is kept, never tested inside the probe."""
        return Answer(200 if self.is_ready else 503, b"")

    async def invoke(self, scope: Scope, receive: Receive) -> Answer:
        """Predict the rows of a body in the format that Accept names."""
        headers = dict(scope["headers"])
        body = await self._read(receive, headers)
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        media_type = answer_type(headers.get(b"accept", b"").decode("latin-1"), content_type, self.settings.default_accept)
        return await self._compute(body, content_type, ENCODERS[media_type], media_type)

    async def predict(self, scope: Scope, receive: Receive) -> Answer:
        """Predict in the book's shape, `{"prediction": [..]}`."""
        headers = dict(scope["headers"])
        body = await self._read(receive, headers)
        return await self._compute(body, headers.get(b"content-type", b"").decode("latin-1"), encode_book, JSON)

    async def _read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the body, read to its end or to the limit."""
        limit, chunks, size = self.settings.max_payload_bytes, [], 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
                if size > DISCARD_TIMES * limit:
                    break
            more = message.get("more_body", False)
        if size > limit:
            raise PayloadTooLarge(
                f"The body has {'more than ' if more else ''}{size:,} bytes; at most {limit:,} are taken. Send fewer rows.",
                limit_bytes=limit,
            )
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _compute(self, body: bytes, content_type: str, encode: Encoder, media_type: str) -> Answer:
        """Run the path of a request, in line or, where it takes long, in a thread."""
        if len(body) <= INLINE_BYTES:
            return Answer(200, self._answer(body, content_type, encode), media_type)
        loop = asyncio.get_running_loop()
        return Answer(200, await loop.run_in_executor(self.slots, self._answer, body, content_type, encode), media_type)

    def _answer(self, body: bytes, content_type: str, encode: Encoder) -> bytes:
        """Bytes to matrix to predictions to bytes."""
        matrix = read_body(body, content_type, self.predictor.schema)
        return encode(self.predictor.predict(matrix))

    def _test_again(self) -> None:
        """Find out, after a failure that has no name, whether the model still answers; `/ping` tells."""
        try:
            self_test(self.predictor)
        except Exception:
            log.exception("the self-test fails: /ping answers 503 from now on")
            self.is_ready = False


def wrong_method(method: str, path: str, allowed: list[str]) -> MethodNotAllowed:
    """Return the error of a path that answers other methods."""
    return MethodNotAllowed(f"{path} takes {' and '.join(allowed)}, not {method}.", allow=allowed)


def error_answer(error: BerthError, identity: str) -> Answer:
    """Return the one JSON form of an error, at most 2,048 bytes (H-15)."""
    headers = ((b"allow", ", ".join(error.facts["allow"]).encode()),) if "allow" in error.facts else ()
    return Answer(error.status, error_body(error, identity), JSON, headers)


def request_id(scope: Scope) -> str:
    """Return the caller's Inference-Id (H-13) where it's printable and short, else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-amzn-sagemaker-inference-id"), b"").decode("latin-1")
    return given if 0 < len(given) <= 64 and given.isascii() and given.isprintable() else secrets.token_hex(8)


async def _send(answer: Answer, send: Send, *, with_body: bool) -> None:
    headers = [(b"content-length", str(len(answer.body)).encode()), *answer.headers]
    if answer.media_type:
        headers.append((b"content-type", answer.media_type.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})
