"""gunicorn's event-loop worker, made to let go of idle connections when it is told to stop.

gunicorn 27.0.1 waits for every open connection. A client that keeps one open without using it (load balancers, the SageMaker
SDK) would hold each stop for the whole grace time, and Docker's SIGKILL comes after ten seconds.
"""

from __future__ import annotations

import weakref
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

IDLE_GRACE_S = 0.5
"""What a request that is already on its way has to arrive in."""


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]
    """Knows its connections, so that it can close those that nothing is asked on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: weakref.WeakSet[Connection] = weakref.WeakSet()

    async def _shutdown(self) -> None:
        self.loop.call_later(IDLE_GRACE_S, self._close_idle)
        await super()._shutdown()

    def _close_idle(self) -> None:
        for connection in list(self.connections):
            connection.close_if_idle()


class Connection(ASGIProtocol):  # type: ignore[misc]
    """One connection, as its worker knows it."""

    def connection_made(self, transport: Any) -> None:
        """Tell the worker."""
        self.worker.connections.add(self)
        super().connection_made(transport)

    def close_if_idle(self) -> None:
        """Close as the end of the keep-alive time does, unless a request is being answered."""
        if self._awaiting_request and not self._finishing_calls:
            self._keepalive_timeout()


gasgi.ASGIProtocol = Connection  # the worker makes its connections by this name
