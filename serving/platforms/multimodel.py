"""Amazon SageMaker's multi-model endpoints (contract 2.5): models come and go by HTTP, and none is there at the start."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any

import orjson

from contract.errors import (
    BerthError,
    DamagedModel,
    ModelLoaded,
    NoRoom,
    NotAcceptable,
    PayloadTooLarge,
    SlowBody,
    UnknownPath,
    UnloadableModel,
    UnreadableBody,
)
from contract.media import JSON
from serving.cells import short
from serving.decoders import DECODERS
from serving.encoders import ENCODERS
from serving.exchange import Answer, Request, Route
from serving.models import Model, Models, is_out_of_memory
from serving.openapi import BODY_ERRORS, TEXT, content, operation
from serving.platforms import sagemaker
from serving.service import Service

PAGE_SIZE = 100
"""Models in one answer to GET /models."""
MAX_BODY_BYTES, MAX_NAME = 65_536, 256
NO_DEFAULT = (
    "asks a default model, and a multi-model endpoint (SAGEMAKER_MULTI_MODEL=true) has none. POST /models loads a model, "
    "POST /models/{name}/invoke asks it, GET /models lists what is loaded."
)
HOME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Multi-model endpoint</title>
<h1>Multi-model endpoint</h1>
<p>Models are loaded with <code>POST /models</code> and asked with <code>POST /models/{name}/invoke</code>. Loaded now: %s.</p>
<table>%s</table>
</html>
"""

LOADED = {"type": "object", "properties": {"modelName": TEXT, "modelUrl": TEXT}, "required": ["modelName", "modelUrl"]}
LISTED = {"type": "object", "properties": {"models": {"type": "array", "items": LOADED}, "nextPageToken": TEXT}}
TO_LOAD = {"type": "object", "properties": {"model_name": TEXT, "url": TEXT}, "required": ["model_name", "url"]}
LOAD = operation(
    "Load a model",
    {"200": content("It is loaded.", {JSON: LOADED})},
    (UnreadableBody, UnknownPath, SlowBody, ModelLoaded, PayloadTooLarge, UnloadableModel, BerthError, NoRoom),
    requestBody=content("A name, and the folder of an unpacked model.", {JSON: TO_LOAD}, required=True),
)
LIST = operation(
    "List what is loaded",
    {"200": content("A page of the list.", {JSON: LISTED})},
    (UnreadableBody,),
    parameters=[{"name": "next_page_token", "in": "query", "schema": TEXT}],
)
DESCRIBE = operation("Say where a model came from", {"200": content("It is loaded.", {JSON: LOADED})}, (UnknownPath,))
UNLOAD = operation("Unload a model", {"200": {"description": "Its memory is free."}}, (UnknownPath,))
INVOKE = operation(
    "Predict rows with a loaded model, as `/invocations` does",
    {"200": content("One answer a row, in order.", {name: {} for name in ENCODERS})},
    (*BODY_ERRORS, UnknownPath, NotAcceptable, NoRoom),
    requestBody=content("Rows in any of these formats.", {name: {} for name in DECODERS}, required=True),
)

log = logging.getLogger("gunicorn.error")


def routes(service: Service) -> list[Route]:
    """Return the routes by which models come, go and answer. A name is any text, percent-encoded where it stands in a path."""
    if service.models is None:
        return []
    models = service.models
    service.count_models = models.__len__

    async def load(request: Request) -> Answer:
        """Load a model. What can't be loaded is 500: 503 would ask to try again, 507 to unload others, 4xx blame the caller."""
        name, url = _model_to_load(await request.body(MAX_BODY_BYTES, service.settings.body_timeout_s))
        try:
            model = await models.load(name, url)
        except DamagedModel as error:
            raise UnloadableModel(error.message, **error.facts) from error
        _report("loaded", model, request)
        return _described(model)

    async def list_models(request: Request) -> Answer:
        """List what is loaded, a page at a time."""
        page, has_more = models.page(_after(request.query.get("next_page_token", "")), PAGE_SIZE)
        more = {"nextPageToken": _token(page[-1].name)} if has_more else {}
        return Answer(200, orjson.dumps({"models": [_entry(model) for model in page], **more}), JSON)

    async def describe(request: Request) -> Answer:
        """Say where a loaded model came from."""
        return _described(models.get(request.parameters["name"]))

    async def unload(request: Request) -> Answer:
        """Unload a model; the answer comes when its memory is free."""
        model = models.get(request.parameters["name"])
        await models.unload(model.name)
        _report("unloaded", model, request)
        return Answer(200, b"")

    async def invoke(request: Request) -> Answer:
        """Predict as `/invocations` does, with one of the loaded models."""
        return await _invoke(service, request, models.get(request.parameters["name"]))

    return [
        Route("POST", "/models", load, operation=LOAD),
        Route("GET", "/models", list_models, operation=LIST),
        Route("GET", "/models/{name}", describe, operation=DESCRIBE),
        Route("DELETE", "/models/{name}", unload, operation=UNLOAD),
        Route("POST", "/models/{name}/invoke", invoke, operation=INVOKE),
        Route("GET", "/", _page(models, _home, "text/html; charset=utf-8")),
        Route("GET", "/metadata", _page(models, _metadata, JSON)),
    ]


def only_routes(service: Service, table: list[Route]) -> list[Route]:
    """Return the table for an endpoint without a default model: probes stay, all that asks that model is 404 and says why."""

    async def refuse(request: Request) -> Answer:
        raise UnknownPath(f"{request.path} {NO_DEFAULT}")

    own = routes(service)
    named = {(route.method, route.path) for route in own}
    others = [route for route in table if (route.method, route.path) not in named]
    return [route if route.path == "/ping" else replace(route, handler=refuse, operation={}) for route in others] + own


async def _invoke(service: Service, request: Request, model: Model) -> Answer:
    try:
        return await model.lend(sagemaker.invoke(service, request, model))
    except Exception as error:
        if isinstance(error, NoRoom) or not is_out_of_memory(error):
            raise
        raise NoRoom("There was no memory to read the body or write the answer. Unload a model, or send fewer rows.") from None


def _model_to_load(body: bytes) -> tuple[str, str]:
    """Return name and url of a request to load; raises UnreadableBody."""
    expected = '{"model_name": "..", "url": "/opt/ml/models/../model"} was expected'
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnreadableBody(f"The body is not JSON ({error}); {expected}.") from None
    name, url = (document.get("model_name"), document.get("url")) if isinstance(document, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(url, str) or not name or not url:
        raise UnreadableBody(f"{short(document)} names no model; {expected}.")
    if len(name) > MAX_NAME:
        raise UnreadableBody(f"model_name has {len(name):,} characters; at most {MAX_NAME} are taken.")
    return name, url


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _after(token: str) -> str | None:
    try:
        return base64.b64decode(token, b"-_", validate=True).decode() if token else None
    except (binascii.Error, ValueError):
        raise UnreadableBody(f"next_page_token {short(token)} is not one that GET /models gave.") from None


def _entry(model: Model) -> dict[str, str]:
    return {"modelName": model.name, "modelUrl": model.url}


def _described(model: Model) -> Answer:
    return Answer(200, orjson.dumps(_entry(model)), JSON)


def _report(what: str, model: Model, request: Request) -> None:
    target = request.header(b"x-amzn-sagemaker-target-model")
    log.info("%s model %s%s", what, short(model.name), f", target {short(target)}" if target else "")


def _page(models: Models, write: Callable[[Models], bytes], media_type: str) -> Any:
    async def page(request: Request) -> Answer:
        """Describe the endpoint."""
        return Answer(200, write(models), media_type)

    return page


def _home(models: Models) -> bytes:
    entries, _ = models.page(None, len(models))
    rows = [f"<tr><td>{escape(model.name)}<td>{escape(model.manifest.declaration.title)}</tr>" for model in entries]
    return (HOME % (len(rows), "\n".join(rows))).encode()


def _metadata(models: Models) -> bytes:
    entries, _ = models.page(None, len(models))
    described = [
        {**_entry(model), "title": model.manifest.declaration.title, "features": model.schema.names} for model in entries
    ]
    memory = {"used_bytes": models.used_bytes, "limit_bytes": models.limit_bytes}
    return orjson.dumps({"multi_model": True, "models": described, "memory": memory}, option=orjson.OPT_INDENT_2)
