"""Amazon SageMaker: `/ping`, `/invocations`, and what batch transform asks first (contract 2.2, 2.3, 2.6)."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from contract.cgroup import memory_bytes
from contract.media import JSON
from serving.badrows import report, with_placeholders
from serving.cells import Matrix
from serving.codecs import answer_type, read_body
from serving.decoders import Faults
from serving.encoders import ENCODERS, Encoder
from serving.exchange import Answer, Headers, Request, Route
from serving.intervals import CUSTOM_ATTRIBUTES
from serving.openapi import INVOKE, PARAMETERS, PROBE
from serving.predictor import Predictor
from serving.schema import Schema
from serving.service import Service
from serving.settings import MIB, Settings

BATCH_MB = 100
"""H-26: requests at once times megabytes of each may not be more."""
BODY_TIMES = 16
"""Memory that a body costs at most, in bodies (docs/measured.md)."""


def routes(service: Service) -> list[Route]:
    """Return the platform's routes."""
    settings = service.settings
    parameters = json.dumps(execution_parameters(settings)).encode()

    async def ping(request: Request) -> Answer:
        """Say whether the model answers (H-8): the state is kept, never tested inside the probe."""
        return Answer(200 if service.is_ready else 503, b"")

    async def ask_parameters(request: Request) -> Answer:
        """Say how a batch transform job should send its file (H-26)."""
        return Answer(200, parameters, JSON)

    return [
        Route("GET", "/ping", ping, operation=PROBE, at_once=True, quiet=True),
        Route("HEAD", "/ping", ping, operation=PROBE, at_once=True, quiet=True),
        Route("POST", "/invocations", partial(invoke, service), operation=INVOKE, at_once=True),
        Route("GET", "/execution-parameters", ask_parameters, operation=PARAMETERS),
    ]


async def invoke(service: Service, request: Request, predictor: Predictor | None = None) -> Answer:
    """Predict in the format that Accept names, with another model than the service's where one is given."""
    settings = service.settings
    content_type = request.header(b"content-type")
    media_type = answer_type(request.header(b"accept"), content_type, settings.default_accept)
    faults: Faults | None = {} if settings.bad_rows == "null" else None

    def read(body: bytes, schema: Schema) -> tuple[Matrix, Encoder]:
        limit = settings.max_payload_bytes
        matrix = read_body(body, content_type, schema, limit=limit, batch=settings.batch, faults=faults, asked=request.asked)
        return matrix, with_placeholders(media_type, faults) if faults else ENCODERS[media_type]

    answer = await service.answer(request, read, media_type, predictor)
    if faults:
        report(faults, request.identity)
    attributes = own_attributes(request)
    return replace(answer, headers=answer.headers + attributes) if attributes else answer


def execution_parameters(settings: Settings) -> dict[str, int]:
    """Return as many requests at once as the job sends, or workers there are; as large as product, limit and memory allow.

    BatchStrategy is left to its default, MultiRecord: the platform spells it MULTI_RECORD here, and the local mode of the
    SDK's version 2 stops at that.
    """
    concurrency = min(settings.concurrent_transforms, BATCH_MB)
    by_memory = memory_bytes() // 2 // BODY_TIMES // MIB // concurrency
    size_mb = min(BATCH_MB // concurrency, settings.max_payload_bytes // MIB, by_memory)
    return {"MaxConcurrentTransforms": concurrency, "MaxPayloadInMB": max(1, size_mb)}


def own_attributes(request: Request) -> Headers:
    """Return the caller's attributes (H-13), which a good answer carries back."""
    attributes = request.header(CUSTOM_ATTRIBUTES)
    if attributes and len(attributes) <= 1_024 and attributes.isascii() and attributes.isprintable():
        return ((CUSTOM_ATTRIBUTES, attributes.encode()),)
    return ()
