"""The server that a cloud is reached by: werkzeug's, a thread a request, on this machine only."""

from __future__ import annotations

from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from local_test.cloud.front import Front
from local_test.cloud.policies import pass_over_conditions
from local_test.cloud.world import World


class _Quiet(MotoRequestHandler):
    """Keeps no log of its own: calls are noted where they are understood."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def make(world: World, port: int) -> BaseWSGIServer:
    """Return a server that is bound but does not serve yet; the world learns its URL."""
    pass_over_conditions()
    front: Any = Front(world)
    server = make_server("127.0.0.1", port, front, threaded=True, request_handler=_Quiet)
    world.url = f"http://127.0.0.1:{server.port}"
    return server
