"""A float TFLite model to a full-integer one, by the quantizer that ai-edge-litert carries for its own tools.

It is a private module there. The version is pinned, and what differs in another is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module, metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import ExportFailed, MissingLibrary
from edge.libraries import library

MODULE = "ai_edge_litert._pywrap_tensorflow_lite_calibration_wrapper"
KNOWN = "2.3.0"
"""The version whose module this was written for."""
UINT8, INT8, INT32 = (np.dtype(kind).num for kind in (np.uint8, np.int8, np.int32))


def quantize(model: bytes, inputs: Iterable[NDArray[np.float32]]) -> bytes:
    """Return the model with int8 weights and activations, and uint8 input and output.

    Weights of convolutions have a scale a channel, those of dense layers one a tensor: what the Edge TPU takes.

    Args:
        model: float, with one input.
        inputs: what the activations' ranges are taken from, of the input's shape.

    Raises:
        MissingLibrary: ai-edge-litert isn't there, or has no such module.
        ExportFailed: the quantizer is another than was known, or refuses the model.
    """
    try:
        quantizer = _calibration().CalibrationWrapper(model, [], [])
        for number, one in enumerate(inputs):
            if not number:
                quantizer.Prepare([list(one.shape)])
            quantizer.FeedTensor([np.ascontiguousarray(one)])
        return bytes(quantizer.QuantizeModel(UINT8, UINT8, False, INT8, INT32, False, True))
    except (AttributeError, TypeError, RuntimeError, ValueError) as error:
        raise ExportFailed(
            f"The quantizer of ai-edge-litert {metadata.version('ai-edge-litert')} failed: {error}. It is private to that "
            f"library and known as {KNOWN} has it: `.ci/venv .venv export` installs that."
        ) from error


def _calibration() -> Any:
    library("ai_edge_litert")
    try:
        return import_module(MODULE)
    except ImportError as error:
        raise MissingLibrary(
            f"ai-edge-litert {metadata.version('ai-edge-litert')} has no quantizer ({error}); {KNOWN} has it, in a private "
            "module. Run `.ci/venv .venv export` and call .venv/bin/python.",
            library="ai_edge_litert",
        ) from error
