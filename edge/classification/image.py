"""An image file as the pixels that a model takes: upright, in its colors, resized to its input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from contract.errors import BadData
from edge.libraries import library

Pixels = npt.NDArray[np.uint8]
MODES = {1: "L", 3: "RGB"}
"""Pillow's name for what has so many channels."""


def read_image(path: Path, width: int, height: int, channels: int = 3) -> Pixels:
    """Return (height, width, channels) uint8 of an image of any size, stretched to it, the turn in its EXIF data applied.

    Whatever is transparent lies on white. Of an animation it is the first picture.

    Raises:
        BadData: there is no such file, it is no image, or it is damaged.
        MissingLibrary: Pillow isn't installed.
    """
    image = _upright(path)
    resized = _opaque(image).convert(MODES[channels]).resize((width, height), library("PIL.Image").Resampling.LANCZOS)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


def _upright(path: Path) -> Any:
    pillow = library("PIL.Image")
    try:
        with pillow.open(path) as image:
            image.load()
            return library("PIL.ImageOps").exif_transpose(image)
    except pillow.UnidentifiedImageError as error:
        raise BadData(f"{path} is no image that Pillow knows. Give a JPEG, PNG, BMP or WebP file.", file=str(path)) from error
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, error) from error
        raise BadData(f"{path} can't be read: {error.strerror}. Give an image.", file=str(path)) from error
    except Exception as error:  # whatever a decoder makes of bytes that are not what its format says
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is a damaged image: {error}. Get the file again.", file=str(path))


def _opaque(image: Any) -> Any:
    pillow = library("PIL.Image")
    if image.mode.startswith("I;16") or image.mode == "I":  # 16 bits of gray, which Pillow's conversion cuts off at 255
        return pillow.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        over = image.convert("RGBA")
        return pillow.alpha_composite(pillow.new("RGBA", over.size, "white"), over)
    return image
