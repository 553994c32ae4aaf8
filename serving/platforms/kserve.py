"""KServe's V1 protocol (contract K-2): `{"instances"}` to `{"predictions"}` under the model's name."""

from __future__ import annotations

import orjson

from contract.errors import Overloaded, UnknownPath
from contract.media import JSON
from serving.cells import Matrix
from serving.codecs import read_body
from serving.encoders import Encoder, encode_json
from serving.exchange import Answer, Request, Route
from serving.openapi import BODY_ERRORS, OBJECT, content, operation
from serving.platforms.oip import check_model, explain, name_of, refused
from serving.schema import Schema
from serving.service import Service

ANSWER = {"200": content("The protocol's answer.", {JSON: OBJECT})}
LIST = operation("KServe V1: list the models", ANSWER)
ASK = operation("KServe V1: say whether the model answers", {**ANSWER, **refused(UnknownPath, Overloaded)})
PREDICT = operation(
    "KServe V1: predict rows",
    {**ANSWER, **refused(UnknownPath, *BODY_ERRORS)},
    requestBody={"$ref": "#/components/requestBodies/Rows"},
)


def routes(service: Service) -> list[Route]:
    """Return the protocol's routes."""
    name = name_of(service)

    async def list_models(request: Request) -> Answer:
        """Name the one model."""
        return Answer(200, orjson.dumps({"models": [name]}), JSON)

    async def ask_ready(request: Request) -> Answer:
        """Say whether the model answers."""
        check_model(request, name)
        if service.is_ready:
            return Answer(200, orjson.dumps({"name": name, "ready": True}), JSON)
        return Answer(503, orjson.dumps({"error": f"Model with name {name} is not ready."}), JSON)

    async def predict(request: Request) -> Answer:
        """Predict any body that `/invocations` takes; the answer is JSON."""
        check_model(request, name)
        content_type = request.header(b"content-type")

        def read(body: bytes, schema: Schema) -> tuple[Matrix, Encoder]:
            return read_body(
                body, content_type, schema, limit=service.settings.max_payload_bytes, asked=request.asked
            ), encode_json

        return await service.answer(request, read, JSON)

    return [
        Route("GET", "/v1/models", list_models, explain, LIST),
        # Before the path below, whose part would take `:predict` too.
        Route("POST", "/v1/models/{model}:predict", predict, explain, PREDICT, at_once=True),
        Route("GET", "/v1/models/{model}", ask_ready, explain, ASK, quiet=True),
    ]
