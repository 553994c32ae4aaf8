"""How a model wants its pixels: (pixel - mean) / std, as TensorFlow's metadata says it in the .tflite file."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import BadArtifact
from edge.classification.image import Pixels
from edge.libraries import library

METADATA = "TFLITE_METADATA"
NORMALIZATION_OPTIONS = 1
"""Of the union ProcessUnitOptions in metadata_schema.fbs."""
SUBGRAPHS, INPUTS, UNITS, OPTIONS_TYPE, OPTIONS, MEAN, STD = 3, 2, 4, 0, 1, 0, 1
"""Positions of the fields on the way from ModelMetadata to NormalizationOptions, in that schema."""


@dataclass(frozen=True)
class Normalization:
    """Of each channel, or one for all."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


DEFAULT = Normalization((127.5,), (127.5,))
"""Of a float model that says nothing: pixels become -1 to 1, as MobileNet and EfficientNet-Lite take them."""


def read_normalization(metadata: Mapping[str, bytes]) -> Normalization | None:
    """Return what a model's metadata says of its first input, or None where it says nothing that can be read."""
    if METADATA not in metadata:
        return None
    try:
        return _normalization(metadata[METADATA])
    except (struct.error, IndexError, TypeError, ValueError):  # damaged: the defaults are as good
        return None


def _normalization(content: bytes) -> Normalization | None:
    table = library("flatbuffers.table").Table
    first = _first(_first(table(content, struct.unpack_from("<I", content)[0]), SUBGRAPHS), INPUTS)
    for unit in _tables(first, UNITS):
        kind = unit.Offset(4 + 2 * OPTIONS_TYPE)
        if kind and content[unit.Pos + kind] == NORMALIZATION_OPTIONS:
            options = unit.Indirect(unit.Pos + unit.Offset(4 + 2 * OPTIONS))
            found = table(content, options)
            mean, std = _floats(found, MEAN), _floats(found, STD)
            return Normalization(mean, std) if mean and std and all(std) else None
    return None


def _first(table: Any, field: int) -> Any:
    return _tables(table, field)[0]


def _tables(table: Any, field: int) -> list[Any]:
    offset = table.Offset(4 + 2 * field)
    if not offset:
        return []
    start = table.Vector(offset)
    return [type(table)(table.Bytes, table.Indirect(start + 4 * number)) for number in range(table.VectorLen(offset))]


def _floats(table: Any, field: int) -> tuple[float, ...]:
    offset = table.Offset(4 + 2 * field)
    return struct.unpack_from(f"<{table.VectorLen(offset)}f", table.Bytes, table.Vector(offset)) if offset else ()


def to_input(pixels: Pixels, details: Mapping[str, Any], wanted: Normalization | None) -> npt.NDArray[Any]:
    """Return pixels as a model's input, with the batch as the first dimension.

    An 8-bit input without a normalization gets the pixels as they are (int8: less 128): its scale and zero point then say what
    a pixel means. With one, pixels are normalized and quantized by scale and zero point. A float input gets them normalized.

    Args:
        pixels: (height, width, channels).
        details: of the input, as LiteRT's interpreter has it.
        wanted: what was asked for, or what the model says; None where neither says anything.

    Raises:
        BadArtifact: the input is neither 8-bit nor float32.
    """
    dtype = np.dtype(details["dtype"])
    if dtype == np.float32:
        return _normalized(pixels, wanted or DEFAULT)[np.newaxis].astype(np.float32)
    if dtype not in {np.dtype(np.uint8), np.dtype(np.int8)}:
        raise BadArtifact(f"The model's input is {dtype}; uint8, int8 or float32 is needed for images.")
    limits = np.iinfo(dtype)
    scale, zero_point = details["quantization"]
    if wanted is None or not scale:
        return (pixels.astype(np.int16) + limits.min).astype(dtype)[np.newaxis]  # int16: 8 bits would overflow
    integers = np.round(_normalized(pixels, wanted) / scale) + zero_point
    return np.clip(integers, limits.min, limits.max).astype(dtype)[np.newaxis]


def _normalized(pixels: Pixels, wanted: Normalization) -> npt.NDArray[np.float64]:
    return (pixels.astype(np.float64) - np.asarray(wanted.mean)) / np.asarray(wanted.std)
