"""Who calls the server: one file a platform, one row a file. Each says its routes; the path between is the service's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.exchange import Route
from serving.platforms import azure, book, kserve, multimodel, oip, sagemaker, vertex
from serving.service import Service
from serving.settings import Settings

PLATFORMS: dict[str, Callable[[Service], list[Route]]] = {
    "Amazon SageMaker": sagemaker.routes,
    "Amazon SageMaker, several models": multimodel.routes,
    "the book": book.routes,
    "Azure ML": azure.routes,
    "KServe V1": kserve.routes,
    "Open Inference Protocol V2": oip.routes,
    "Vertex AI": vertex.routes,  # last: its paths are the user's to choose, and may be those of another
}


def all_routes(service: Service) -> list[Route]:
    """Return the one table of routes; the pages for people (serving/pages.py) answer what is not in it."""
    table = [route for routes in PLATFORMS.values() for route in routes(service)]
    return table if service.models is None else multimodel.only_routes(service, table)


def model_folder(settings: Settings) -> Path:
    """Return the folder of the model, wherever the platform put it; it is searched for below a folder that was named.

    Raises:
        BerthError: there is none, or more than one, or it can't be fetched.
    """
    return azure.find_model(settings.model_folder) if settings.model_folder else vertex.bring_model(settings)
