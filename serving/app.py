"""The ASGI application: one table of routes on a short path, all that people look at behind it (Flask).

Errors are answered in one place, `_respond`. Counting and logging wrap the path of a request from outside, in `__call__`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

from a2wsgi import WSGIMiddleware
from werkzeug.exceptions import HTTPException

from contract.errors import BerthError, DamagedModel, MethodNotAllowed, UnknownPath
from contract.media import JSON
from serving.components import describe_model
from serving.exchange import (
    Answer,
    ClientGone,
    Receive,
    Request,
    Route,
    Scope,
    Send,
    error_answer,
    send_answer,
    wrong_method,
)
from serving.metrics import OTHER, Metrics
from serving.observer import Observer
from serving.openapi import DOCUMENT, METRICS, make_document, path_of
from serving.pages import make_pages
from serving.platforms import all_routes
from serving.platforms.oip import VERSION, name_of
from serving.predictor import Predictor
from serving.service import Service, is_small
from serving.settings import Settings

PAGE_THREADS = 2
SLASH = "\udc2f"
"""Stands for an escaped slash of a path; no path that is UTF-8 has it."""

log = logging.getLogger("gunicorn.error")


class App:
    """One service behind every path of every platform."""

    def __init__(self, predictor: Predictor, settings: Settings, folder: Path | None = None) -> None:
        """Make it around a model; `folder` is where its report is."""
        self.service = Service(predictor, settings)
        pages = make_pages(predictor.manifest, settings, folder)
        self.pages: Any = WSGIMiddleware(cast(Any, pages), workers=PAGE_THREADS)
        self._page_rules = pages.url_map.bind("")
        self.page_paths = [path_of(rule.rule) for rule in pages.url_map.iter_rules()]
        self.routes = [*all_routes(self.service), *self._own_routes()]
        self.table = Table(self.routes)
        # Twice as many slots as workers: while a reload replaces them all, old ones still count.
        paths = [*(route.path for route in self.routes), *self.page_paths]
        self.metrics = Metrics(paths, self.service.drift, slots=2 * settings.workers + 1)
        self.metrics.count_models = lambda: self.service.count_models()
        self.observer = Observer(self.metrics, writes_lines=settings.access_log)
        model = describe_model(predictor.manifest, settings.image_version)
        parts = {"model": name_of(self.service), "version": VERSION}
        self._document = make_document(self.routes, self.page_paths, model, parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request as ASGI has it: that of a page, or of a server that is not serving/worker.py."""
        if scope["type"] != "http":  # the bridge declines WebSockets
            await self.pages(scope, receive, send)
            return
        try:
            answer = await self.answer(scope, receive)
        except ClientGone:
            return
        if answer is None:
            await self._show_page(scope, receive, send)
        else:
            await send_answer(answer, send, with_body=scope["method"] != "HEAD")

    async def answer(self, scope: Scope, receive: Receive, body: bytes | None = None) -> Answer | None:
        """Return the answer to a request of the table's; None where the table has no such path.

        Args:
            scope: method, path, raw_path, headers and query_string, as ASGI has them.
            receive: gives the body.
            body: all of it, where it has come already.

        Raises:
            ClientGone: nobody waits for an answer.
        """
        routes, parameters = self.table.find(routed_path(scope))
        if routes is None:
            return None
        request = Request(scope, receive, body)
        request.parameters = parameters
        return await self._answer(request, routes)

    def answer_at_once(self, scope: Scope, body: bytes) -> Answer | None:
        """Return the answer to a request whose handler waits for nothing; None where it takes the long way, `answer`.

        Args:
            scope: as of `answer`.
            body: all of it.
        """
        routes, parameters = self.table.find(routed_path(scope))
        route = routes.get(scope["method"]) if routes else None
        if routes is None or route is None or not route.at_once:
            return None
        request = Request(scope, None, body)
        request.parameters = parameters
        request.is_small = is_small(request, len(body))
        if not request.is_small:
            return None
        answering = self._answer(request, routes)
        try:
            answering.send(None)
        except StopIteration as done:
            answer: Answer = done.value
            return answer
        answering.close()
        raise RuntimeError(f"{route.path} is said to be answered at once, and waits")

    async def _answer(self, request: Request, routes: Mapping[str, Route]) -> Answer:
        """Answer a request, count it, and write its line."""
        route = routes.get(request.method) or next(iter(routes.values()))
        began = self.observer.begin()
        try:
            answer = await self._respond(request, route, routes)
        except (ClientGone, asyncio.CancelledError):
            self.observer.gone(request, route.path, began)
            raise
        self.observer.end(request, route.path, answer, began=began, quiet=route.quiet)
        return answer

    async def _show_page(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Flask answer, and take down what it answers."""
        request = Request(scope, receive)
        path, began, head = self._page_path(request.path), self.observer.begin(), None

        async def watch(message: Mapping[str, Any]) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = _page_head(message)
                self.observer.end(request, path, head, began=began)
            await send(message)

        try:
            # The bridge reads a query string as ASCII and no page takes one.
            await self.pages({**scope, "query_string": b""}, receive, watch)
        finally:
            if head is None:
                self.observer.gone(request, path, began)

    def _page_path(self, path: str) -> str:
        try:
            rule, _ = self._page_rules.match(path, method="GET", return_rule=True)
        except HTTPException:
            return OTHER
        return path_of(rule.rule)

    def _own_routes(self) -> list[Route]:
        """Return what every platform may ask: metrics (H-35) and the description of all routes."""

        async def ask_metrics(request: Request) -> Answer:
            body, media_type = await asyncio.to_thread(self.metrics.render, request.header(b"accept"))
            return Answer(200, body, media_type)

        async def ask_document(request: Request) -> Answer:
            return Answer(200, self._document, JSON)

        return [
            Route("GET", "/metrics", ask_metrics, operation=METRICS, quiet=True),
            Route("GET", "/openapi.json", ask_document, operation=DOCUMENT),
        ]

    async def _respond(self, request: Request, route: Route, routes: Mapping[str, Route]) -> Answer:
        """Run a request's handler; every error becomes JSON here, of the shape its platform gives it."""
        try:
            if route.method != request.method:
                raise wrong_method(request.method, request.path, list(routes))
            return await route.handler(request)
        except ClientGone:
            raise
        except BerthError as error:
            return (route.explain or error_answer)(error, request.identity)
        except Exception:
            identity = request.identity
            log.exception("request %s failed", identity)
            self.service.test_again()
            failed = BerthError("The server failed; its log has the cause under this request_id.")
            return (route.explain or error_answer)(failed, identity)


def _page_head(message: Mapping[str, Any]) -> Answer:
    """Return a page's status and size; its body is on its way and kept by nobody."""
    errors = {error.status: error.code for error in (UnknownPath, MethodNotAllowed, DamagedModel)}
    status: int = message["status"]
    code = errors.get(status, BerthError.code) if status >= 400 else ""
    size = dict(message["headers"]).get(b"content-length", b"0")
    return Answer(status, b"", headers=((b"content-length", size),), code=code)


class Table:
    """Routes by path: a look-up for fixed paths, expressions for those with parts in braces."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Route]] = {}
        by_pattern: dict[str, dict[str, Route]] = {}
        for route in routes:
            where = by_pattern if "{" in route.path else self._fixed
            where.setdefault(route.path, {})[route.method] = route
        self._patterns = [(_expression(path), routes) for path, routes in by_pattern.items()]

    def find(self, path: str) -> tuple[Mapping[str, Route] | None, Mapping[str, str]]:
        """Return a path's routes by method, and the texts of its parts in braces; None where nothing is routed."""
        routes = self._fixed.get(path)
        if routes is not None:
            return routes, {}
        for expression, candidates in self._patterns:
            found = expression.fullmatch(path)
            if found:
                return candidates, {part: text.replace(SLASH, "/") for part, text in found.groupdict().items()}
        return None, {}


def routed_path(scope: Scope) -> str:
    """Return the path with its escapes read, but for an escaped slash: that one belongs to a name (contract 2.5)."""
    raw: bytes = scope.get("raw_path") or b""
    path: str = scope["path"]
    is_escaped = b"%" in raw and b"%2f" in raw.lower()
    return unquote(re.sub("%2[fF]", SLASH, raw.decode("utf-8", "replace"))) if is_escaped else path


def _expression(path: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)))
