"""BentoML with SageMaker's two paths: its own health checks are /livez and /readyz, so /ping is an app beside the service."""

import bentoml
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route


async def ping(request):
    return Response()


@bentoml.service
@bentoml.asgi_app(Starlette(routes=[Route("/ping", ping)]))
class Sums:
    """A model that answers each row's sum."""

    @bentoml.api(route="/invocations")
    def predict(self, instances: list[list[float]]) -> dict[str, list[float]]:
        return {"predictions": [sum(row) for row in instances]}
