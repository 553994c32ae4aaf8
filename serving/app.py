"""The ASGI application: one table of routes on a short path, all that people look at behind it (Flask).

Errors are answered in one place, `_respond`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from a2wsgi import WSGIMiddleware

from contract.errors import BerthError
from serving.exchange import (
    Answer,
    ClientGone,
    Handler,
    Receive,
    Request,
    Route,
    Scope,
    Send,
    error_answer,
    send_answer,
    wrong_method,
)
from serving.pages import make_pages
from serving.platforms import all_routes
from serving.predictor import Predictor
from serving.service import Service
from serving.settings import Settings

PAGE_THREADS = 2

log = logging.getLogger("gunicorn.error")


class App:
    """One service behind every path of every platform."""

    def __init__(self, predictor: Predictor, settings: Settings) -> None:
        self.service = Service(predictor, settings)
        self.table = Table(all_routes(self.service))
        self.pages: Any = WSGIMiddleware(cast(Any, make_pages(predictor.manifest, settings)), workers=PAGE_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        handlers, parameters = self.table.find(scope["path"])
        if handlers is None or scope["type"] != "http":  # the bridge declines WebSockets
            # The bridge reads a query string as ASCII and no page takes one.
            await self.pages({**scope, "query_string": b""}, receive, send)
            return
        request = Request(scope, receive)
        request.parameters = parameters
        try:
            answer = await self._respond(request, handlers)
        except ClientGone:
            return
        await send_answer(answer, send, with_body=request.method != "HEAD")

    async def _respond(self, request: Request, handlers: Mapping[str, Handler]) -> Answer:
        """Run a request's handler; every error becomes JSON here."""
        try:
            handler = handlers.get(request.method)
            if handler is None:
                raise wrong_method(request.method, request.path, list(handlers))
            return await handler(request)
        except ClientGone:
            raise
        except BerthError as error:
            return error_answer(error, request.identity)
        except Exception:
            identity = request.identity
            log.exception("request %s failed", identity)
            self.service.test_again()
            return error_answer(BerthError("The server failed; its log has the cause under this request_id."), identity)


class Table:
    """Routes by path: a look-up for fixed paths, expressions for those with parts in braces."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Handler]] = {}
        by_pattern: dict[str, dict[str, Handler]] = {}
        for route in routes:
            where = by_pattern if "{" in route.path else self._fixed
            where.setdefault(route.path, {})[route.method] = route.handler
        self._patterns = [(_expression(path), handlers) for path, handlers in by_pattern.items()]

    def find(self, path: str) -> tuple[Mapping[str, Handler] | None, Mapping[str, str]]:
        """Return a path's handlers by method, and the texts of its parts in braces; None where nothing is routed."""
        handlers = self._fixed.get(path)
        if handlers is not None:
            return handlers, {}
        for expression, candidates in self._patterns:
            found = expression.fullmatch(path)
            if found:
                return candidates, found.groupdict()
        return None, {}


def _expression(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)))
