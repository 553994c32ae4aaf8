"""The book's shape: `POST /predict` answers `{"prediction": [..]}`."""

from __future__ import annotations

from contract.media import JSON
from serving.cells import Matrix
from serving.codecs import read_body
from serving.encoders import Encoder, encode_book
from serving.exchange import Answer, Request, Route
from serving.openapi import PREDICT
from serving.schema import Schema
from serving.service import Service


def routes(service: Service) -> list[Route]:
    """Return the book's route."""

    async def predict(request: Request) -> Answer:
        """Predict whatever body `/invocations` takes."""
        content_type = request.header(b"content-type")

        def read(body: bytes, schema: Schema) -> tuple[Matrix, Encoder]:
            return read_body(
                body, content_type, schema, limit=service.settings.max_payload_bytes, asked=request.asked
            ), encode_book

        return await service.answer(request, read, JSON)

    return [Route("POST", "/predict", predict, operation=PREDICT, at_once=True)]
