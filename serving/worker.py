"""gunicorn's event-loop worker, with bounds that gunicorn 27.0.1 doesn't keep.

A stop waits for every open connection there; a client that keeps one open without using it (load balancers, the SageMaker
SDK) would hold it for the whole grace time, and Docker's SIGKILL comes after ten seconds. Nor does it bound how many
connections there are, or how long one may take to say what it wants.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from serving.exchange import ClientGone, Scope, headers_of

IDLE_GRACE_S = 0.5
"""What a request that is already on its way has to arrive in when the worker stops."""
BODY_GRACE_S = 5.0
"""What the rest of a body has to arrive in then; Cloud Run kills after 10 s (C-1)."""
MAX_CONNECTIONS = 12_000
"""A worker's; one more is answered 503 and closed."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n"


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]
    """Knows its connections, so that it can close those that nothing is asked on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    async def _shutdown(self) -> None:
        self.loop.call_later(IDLE_GRACE_S, self._close, Connection.is_idle)
        self.loop.call_later(BODY_GRACE_S, self._close, Connection.is_waiting)
        await super()._shutdown()

    def _close(self, condition: Callable[[Connection], bool]) -> None:
        for connection in filter(condition, list(self.connections)):
            connection.end()


class Connection(ASGIProtocol):  # type: ignore[misc]
    """One connection, as its worker knows it."""

    _response_buffer: bytes | None
    """gunicorn's: a response's headers, which go out with the body."""

    def connection_made(self, transport: Any) -> None:
        """Tell the worker; close one too many, and one that doesn't send its first headers within the keep-alive time."""
        super().connection_made(transport)
        self.worker.connections.add(self)
        if self.worker.nr_conns > MAX_CONNECTIONS:
            transport.write(FULL)
            self.end()
        else:
            self._arm_keepalive_timer()

    async def _serve_http_request(self, request: Any, sockname: Any, peername: Any) -> bool:
        """Answer one request and say whether the connection may stay open.

        What the table of routes answers goes without ASGI's messages and without a task for each request, which take as long
        as the rest of one row's way. Pages go gunicorn's own way.
        """
        if not hasattr(self.app, "answer"):  # somebody else's, such as the bare echo that load is measured against
            return bool(await super()._serve_http_request(request, sockname, peername))
        receiver = self._body_receiver
        body = _taken(receiver) if receiver._complete else None
        try:
            answer = await self.app.answer(_scope_of(request), receiver.receive, body)
        except ClientGone:
            return False
        if answer is None:
            _put_back(receiver, body)
            return bool(await super()._serve_http_request(request, sockname, peername))
        receiver.expect_continue = False  # the client gets the answer instead
        close = self._will_close(request, False)
        if not self._closed:
            self._send_response_start(answer.status, headers_of(answer), request, close=close)
            if answer.body and request.method != "HEAD":
                self._send_body(answer.body)
            else:
                head, self._response_buffer = self._response_buffer, None
                self._safe_write(head)
            if self._flow_control is not None and self._flow_control.write_paused:  # the client reads too slowly
                await self._flow_control.drain()
        return not close

    def is_idle(self) -> bool:
        """Say whether no request is being read or answered."""
        return bool(self._awaiting_request and not self._finishing_calls)

    def is_waiting(self) -> bool:
        """Say whether it is idle, or the client still owes the rest of a body."""
        receiver = self._body_receiver
        return self.is_idle() or (receiver is not None and not receiver._complete)

    def end(self) -> None:
        """Close as the end of the keep-alive time does."""
        self._keepalive_timeout()


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


gasgi.ASGIProtocol = Connection  # the worker makes its connections by this name
# Called by the subclass it would note the C parser there, and look for it in its own class: the Python parser, twice as slow.
ASGIProtocol._check_h1c_protocol_available()
