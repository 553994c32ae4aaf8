"""`/openapi.json`: what each route says of itself, an Operation Object beside its handler, and the parts these are made of.

What they say of rows and predictions are references; serving/components.py makes those of the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from contract.errors import (
    BadData,
    BadParameter,
    BerthError,
    DamagedModel,
    NoIntervals,
    NotAcceptable,
    Overloaded,
    PayloadTooLarge,
    SchemaMismatch,
    SlowBody,
    UnknownPath,
    UnreadableBody,
    UnsupportedMediaType,
)
from contract.media import JSON
from serving.exchange import Route

Json = Mapping[str, Any]
Errors = Iterable[type[BerthError]]

BODY_ERRORS = (
    *(UnreadableBody, SchemaMismatch, BadData, BadParameter, NoIntervals),
    *(SlowBody, PayloadTooLarge, UnsupportedMediaType, Overloaded, BerthError),
)
"""What a body that is to be predicted may end in."""
TEXT: Json = {"type": "string"}
OBJECT: Json = {"type": "object"}


def operation(summary: str, answers: Json, errors: Errors = (), **more: Any) -> dict[str, Any]:
    """Return an Operation Object.

    Args:
        summary: what the route does for its caller.
        answers: Response Objects by status.
        errors: what it may be refused for, or fail of.
        more: other members, such as `requestBody` and `parameters`.
    """
    by_status: dict[str, list[type[BerthError]]] = {}
    for error in errors:
        by_status.setdefault(str(error.status), []).append(error)
    refusals = {status: _refusal(classes) for status, classes in sorted(by_status.items())}
    return {"summary": summary, **more, "responses": {**refusals, **answers}}


def content(description: str, media_types: Mapping[str, Json], **more: Any) -> dict[str, Any]:
    """Return a Response or Request Body Object: schemas by media type."""
    return {"description": description, "content": {name: {"schema": schema} for name, schema in media_types.items()}, **more}


def reference(name: str, kind: str = "schemas") -> dict[str, str]:
    """Return the reference to one of the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def record(*names: str, **properties: Json) -> dict[str, Any]:
    """Return the schema of an object that has texts of some names, and more."""
    members = {**dict.fromkeys(names, TEXT), **properties}
    return {"type": "object", "properties": members, "required": list(members)}


def sequence(items: Json) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def _refusal(classes: Sequence[type[BerthError]]) -> dict[str, Any]:
    about = "\n".join(f"`{cls.code}`: {(cls.__doc__ or '').splitlines()[0]}" for cls in classes if cls is not BerthError)
    codes = {"properties": {"error": {"enum": [cls.code for cls in classes]}}}
    schema = {"allOf": [reference("Error"), codes]}
    return content(about or "The server failed; its log has the cause under the request_id.", {JSON: schema})


def _header(name: str, meaning: str, most: int) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": meaning, "schema": {"type": "string", "maxLength": most}}


ROWS = reference("Rows", "requestBodies")
INFERENCE_ID = _header("X-Amzn-SageMaker-Inference-Id", "Comes back as an error's request_id, and in the log.", 64)
CUSTOM_ATTRIBUTES = _header(
    "X-Amzn-SageMaker-Custom-Attributes",
    "Comes back with a good answer. `intervals=true`, alone or among others after commas, asks for prediction intervals.",
    1_024,
)

# Every platform

METRICS = operation(
    "Count requests, errors, seconds, rows and drift, for Prometheus",
    {"200": content("The counters of all workers.", {"text/plain": TEXT, "application/openmetrics-text": TEXT})},
)
DOCUMENT = operation("Describe all of this", {"200": content("This document.", {JSON: OBJECT})})
HOME = operation("Show the model to people", {"200": content("A page.", {"text/html": TEXT})})
METADATA = operation("Describe the model to programs", {"200": content("Columns, samples, metrics, versions.", {JSON: OBJECT})})
ASSET = operation(
    "Send a part of the page",
    {
        "200": content(
            "A script, a style sheet or a picture.", dict.fromkeys(("text/javascript", "text/css", "image/svg+xml"), TEXT)
        )
    },
    (UnknownPath,),
)
REPORT = operation(
    "Show the report of the model's training to people",
    {"200": content("A page that needs nothing but itself.", {"text/html": TEXT})},
    (UnknownPath, DamagedModel),
)
PAGES: Mapping[str, Json] = {"/": HOME, "/report": REPORT, "/metadata": METADATA, "/static/{version}/{name}": ASSET}
"""What Flask answers, by path."""

# Amazon SageMaker, the book

PROBE = operation(
    "Say whether the model answers",
    {"200": {"description": "It does."}, "503": {"description": "It doesn't, yet or any more."}},
)
INVOKE = operation(
    "Predict rows",
    {"200": reference("Predictions", "responses")},
    (*BODY_ERRORS, NotAcceptable),
    parameters=[INFERENCE_ID, CUSTOM_ATTRIBUTES],
    requestBody=ROWS,
)
PARAMETERS = operation(
    "Say how a batch transform job should send its file",
    {
        "200": content(
            "Members of CreateTransformJob.",
            {JSON: record(MaxConcurrentTransforms={"type": "integer"}, MaxPayloadInMB={"type": "integer"})},
        )
    },
)
BOUNDS = {name: {**sequence({"type": ["number", "null"]}), "description": "With intervals alone."} for name in ("low", "high")}
BOOK = {"type": "object", "properties": {"prediction": sequence(reference("Prediction")), **BOUNDS}, "required": ["prediction"]}
PREDICT = operation(
    "Predict rows, in the book's shape",
    {"200": content("One answer a row, in order.", {JSON: BOOK})},
    BODY_ERRORS,
    parameters=[INFERENCE_ID],
    requestBody=ROWS,
)

# The whole


def make_document(routes: Iterable[Route], pages: Iterable[str], model: Json, parts: Mapping[str, str]) -> bytes:
    """Return the OpenAPI 3.1 document; a route that says nothing of itself is left out, which a test tells.

    Args:
        routes: the table.
        pages: paths that Flask answers.
        model: the document's `info` and `components`.
        parts: what a part of a path in braces can be, where there is but one text for it.
    """
    paths: dict[str, dict[str, Any]] = {path: {"get": PAGES[path]} for path in pages if path in PAGES}
    for route in routes:
        if route.operation:
            paths.setdefault(route.path, {})[route.method.lower()] = route.operation
    for path, methods in paths.items():
        names = re.findall(r"\{(\w+)\}", path)
        if names:
            methods["parameters"] = [_path_part(name, parts.get(name)) for name in names]
    return orjson.dumps({"openapi": "3.1.0", **model, "servers": [{"url": "/"}], "paths": paths})


def _path_part(name: str, value: str | None) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": TEXT if value is None else {**TEXT, "enum": [value]}}


def path_of(rule: str) -> str:
    """Return a Flask rule as OpenAPI writes paths: `/static/<path:name>` is `/static/{name}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)
