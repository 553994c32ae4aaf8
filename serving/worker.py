"""gunicorn's event-loop worker, with bounds that gunicorn 27.0.1 doesn't keep.

A stop waits for every open connection there; a client that keeps one open without using it (load balancers, the SageMaker
SDK) would hold it for the whole grace time, and Docker's SIGKILL comes after ten seconds.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from gunicorn.workers import gasgi

from serving.connection import Connection

IDLE_GRACE_S = 0.5
"""What a request that is already on its way has to arrive in when the worker stops."""
BODY_GRACE_S = 5.0
"""What the rest of a body has to arrive in then; Cloud Run kills after 10 s (C-1)."""


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


gasgi.ASGIProtocol = Connection  # the worker makes its connections by this name
