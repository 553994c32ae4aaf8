"""Azure ML managed online endpoints: `/score`, and the model below AZUREML_MODEL_DIR (contract 4.2)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contract.errors import DamagedModel
from contract.manifest import MANIFEST
from serving.exchange import Route
from serving.platforms import sagemaker
from serving.service import Service

MAX_DEPTH = 3
"""Azure puts name, version and the registered folder's own name between its mount and a model (Z-2)."""


def routes(service: Service) -> list[Route]:
    """Return the platform's route: `/invocations` under Azure's name. Its probes take `/ping`, and `/`, the home page (Z-3)."""
    return [replace(route, path="/score") for route in sagemaker.routes(service) if route.path == "/invocations"]


def find_model(root: Path) -> Path:
    """Return the one folder that holds a manifest: `root`, or at most three levels below it.

    Raises:
        DamagedModel: there is none, or more than one; the message names them.
    """
    found: list[Path] = []
    for depth in range(MAX_DEPTH + 1):
        folders = sorted(path.parent for path in root.glob("*/" * depth + MANIFEST))
        # A manifest inside a model's folder is a part of that model.
        found += [folder for folder in folders if not any(outer in folder.parents for outer in found)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise DamagedModel(
            f"{root} holds no {MANIFEST}, nor does a folder in it. Give it the folder that `train` wrote.", file=MANIFEST
        )
    names = ", ".join(map(str, found[:10]))
    raise DamagedModel(f"{root} holds {len(found)} models, and one is served: {names}. Name one of these.", file=MANIFEST)
