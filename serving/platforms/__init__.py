"""Who calls the server: one file a platform, one row a file. Each says its routes; the path between is the service's."""

from __future__ import annotations

from collections.abc import Callable

from serving.exchange import Route
from serving.platforms import book, sagemaker
from serving.service import Service

PLATFORMS: dict[str, Callable[[Service], list[Route]]] = {
    "Amazon SageMaker": sagemaker.routes,
    "the book": book.routes,
}


def all_routes(service: Service) -> list[Route]:
    """Return the one table of routes; the pages for people (serving/pages.py) answer what is not in it."""
    return [route for routes in PLATFORMS.values() for route in routes(service)]
