"""Amazon SageMaker: `/ping` and `/invocations` (contract 2.2, 2.3)."""

from __future__ import annotations

from serving.codecs import answer_type, read_body
from serving.encoders import ENCODERS
from serving.exchange import Answer, Request, Route
from serving.service import Service


def routes(service: Service) -> list[Route]:
    """Return the platform's routes."""

    async def ping(request: Request) -> Answer:
        """Say whether the model answers (H-8): the state is kept, never tested inside the probe."""
        return Answer(200 if service.is_ready else 503, b"")

    async def invoke(request: Request) -> Answer:
        """Predict in the format that Accept names."""
        content_type = request.header(b"content-type")
        media_type = answer_type(request.header(b"accept"), content_type, service.settings.default_accept)
        encode = ENCODERS[media_type]
        return await service.answer(request, lambda body, schema: (read_body(body, content_type, schema), encode), media_type)

    return [Route("GET", "/ping", ping), Route("HEAD", "/ping", ping), Route("POST", "/invocations", invoke)]
