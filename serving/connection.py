"""One connection of gunicorn's event-loop worker: bounds that gunicorn 27.0.1 doesn't keep, and the short way of a request.

ASGI's messages, a task for each request and a timer for each silence take as long as all of a row's prediction. So a request
that came whole and needs no waiting is answered where its bytes arrive; any other that the table of routes answers, without
messages and a task of its own; and pages go gunicorn's own way. Handlers, errors, counters and log lines are the same.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from gunicorn.asgi import protocol

from serving.exchange import Answer, ClientGone, Headers, Scope

MAX_CONNECTIONS = 12_000
"""A worker's; one more is answered 503 and closed."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class Connection(protocol.ASGIProtocol):  # type: ignore[misc]
    """One connection, as its worker knows it."""

    # gunicorn's own: the request that is being read or answered, its body, the head that waits for a body, the loop's event.
    _current_request: Any
    _body_receiver: Any
    _response_buffer: bytes | None
    _request_ready: Any
    _callback_parser: Any

    answered_s = 0.0
    """When the last request was answered where it arrived, of the loop's clock."""

    def connection_made(self, transport: Any) -> None:
        """Tell the worker; close one too many, and one that doesn't send its first headers within the keep-alive time."""
        self.answers = hasattr(self.app, "answer")
        """Whether the application answers requests beside ASGI: the bare one that load is measured against does not."""
        super().connection_made(transport)
        self.worker.connections.add(self)
        if self.worker.nr_conns > MAX_CONNECTIONS:
            transport.write(FULL)
            self.end()
        else:
            self._arm_keepalive_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the parser: the one in C takes no part in garbage collection, and holds the connection as that holds it."""
        super().connection_lost(exc)
        self._callback_parser = None

    def data_received(self, data: bytes) -> None:
        """Answer at once what can be, and wake the connection's loop for anything else."""
        ready = self._request_ready
        if not self.answers or ready is None or ready.is_set():
            super().data_received(data)
            return
        self._request_ready = None  # held back: it would wake the loop
        try:
            super().data_received(data)
        finally:
            self._request_ready = ready
        if self._current_request is not None and not self._closed and not self._answer_at_once():
            ready.set()

    def _answer_at_once(self) -> bool:
        """Answer the request that has come, if all of it has and its handler waits for nothing; say whether it did."""
        request, receiver = self._current_request, self._body_receiver
        is_plain = self.is_idle() and receiver._complete and not request.may_upgrade() and not self._callback_parser.remaining()
        if not is_plain or self._flow_control.write_paused or self._will_close(request, False):
            return False
        chunks = receiver._chunks
        if len(chunks) > 1:
            return False
        answer = self.app.answer_at_once(_scope_of(request), chunks[0] if chunks else b"")
        if answer is None:
            return False
        self._write(request, answer, close=False)
        self._current_request = self._body_receiver = None
        self._callback_parser.reset()
        self.worker.nr += 1
        self.answered_s = self.worker.loop.time()
        return True

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answer one request and say whether the connection may stay open."""
        receiver = self._body_receiver
        body = _taken(receiver) if self.answers and receiver._complete else None
        try:
            answer = await self.app.answer(_scope_of(request), receiver.receive, body) if self.answers else None
        except ClientGone:
            return False
        if answer is None:
            _put_back(receiver, body)
            return bool(await super()._serve_http_request(request, sockname, peername))
        receiver.expect_continue = False  # the client gets the answer instead
        close: bool = self._will_close(request, False)
        if not self._closed:
            self._write(request, answer, close=close)
            if self._flow_control.write_paused:  # the client reads too slowly
                await self._flow_control.drain()
        return not close

    def _write(self, request: Any, answer: Answer, *, close: bool) -> None:
        """Write a response; that to HEAD has no body."""
        body = answer.body
        head = b"%bcontent-length: %d\r\n%b\r\n" % (
            _head(request.version, answer.status, answer.media_type, answer.headers, close),
            len(body),
            protocol._get_cached_date_header(),
        )
        if request.method == "HEAD":
            body = b""
        if body:
            self._response_buffer = head
            self._send_body(body)
        else:
            self._safe_write(head)

    def _keepalive_timeout(self) -> None:
        """Close at the end of the keep-alive time, counted from the last answer, of whichever way."""
        loop = self.worker.loop
        left = self.answered_s + self._keepalive - loop.time()
        if left > 0 and self.is_idle():
            self._keepalive_handle = loop.call_later(left, self._keepalive_timeout)
        else:
            self.end()

    def is_idle(self) -> bool:
        """Say whether no request is being read or answered."""
        return bool(self._awaiting_request and not self._finishing_calls)

    def is_waiting(self) -> bool:
        """Say whether it is idle, or the client still owes the rest of a body."""
        receiver = self._body_receiver
        return self.is_idle() or (receiver is not None and not receiver._complete)

    def end(self) -> None:
        """Close as the end of the keep-alive time does."""
        super()._keepalive_timeout()


@lru_cache(maxsize=256)
def _head(version: tuple[int, int], status: int, media_type: str, headers: Headers, close: bool) -> bytes:
    """Return the lines of a response's head that many responses have."""
    lines = [
        protocol._get_cached_status_line(version, status),
        *(b"%b: %b\r\n" % header for header in headers),
        b"content-type: %b\r\n" % media_type.encode() if media_type else b"",
        protocol._CACHED_SERVER_HEADER,
        b"connection: close\r\n" if close else b"",
    ]
    return b"".join(lines)


def _scope_of(request: Any) -> Scope:
    """Return what App.answer reads of ASGI's scope."""
    return {
        "method": request.method,
        "path": request.path,
        "raw_path": request.raw_path,
        "headers": request.headers_bytes,
        "query_string": request.query.encode("latin-1"),
    }


def _taken(receiver: Any) -> bytes:
    """Take a whole body out of gunicorn's receiver."""
    chunks = receiver._chunks
    body: bytes = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
    chunks.clear()
    receiver._buffered = 0
    return body


def _put_back(receiver: Any, body: bytes | None) -> None:
    if body:
        receiver._chunks.append(body)
        receiver._buffered = len(body)


# Called by a subclass it would note the C parser there and look for it in its own class: the Python parser, twice as slow.
protocol.ASGIProtocol._check_h1c_protocol_available()
