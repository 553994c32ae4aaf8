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

    def connection_made(self, transport: Any) -> None:
        """Tell the worker; close one too many, and one that doesn't send its first headers within the keep-alive time."""
        super().connection_made(transport)
        self.worker.connections.add(self)
        if self.worker.nr_conns > MAX_CONNECTIONS:
            transport.write(FULL)
            self.end()
        else:
            self._arm_keepalive_timer()

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


gasgi.ASGIProtocol = Connection  # the worker makes its connections by this name
