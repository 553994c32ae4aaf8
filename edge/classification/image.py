"""An image file as the pixels that a model takes: upright, in its colors, resized to its input."""

from __future__ import annotations

import re
import warnings
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
        BadData: there is no such file, it is no image, is damaged or too large, or its values are of no known range.
        MissingLibrary: Pillow isn't installed.
    """
    image = _eight_bit(*_upright(path), path)
    try:
        converted = _opaque(image).convert(MODES[channels])
    except ValueError as error:  # Pillow doesn't know the way from every color space
        raise BadData(f"{path} can't be used: {error}. Save it in RGB.", file=str(path)) from error
    resized = converted.resize((width, height), library("PIL.Image").Resampling.LANCZOS)
    return np.asarray(resized, np.uint8).reshape(height, width, channels)


def _upright(path: Path) -> tuple[Any, str | None]:
    """Return the image, turned, and its file's format."""
    pillow = library("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)  # at half the pixels that are an error to Pillow
            with pillow.open(path) as image:
                image.load()
                return library("PIL.ImageOps").exif_transpose(image), image.format
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise _too_large(path, error, pillow.MAX_IMAGE_PIXELS) from error
    except pillow.UnidentifiedImageError as error:
        raise BadData(f"{path} is no image that Pillow knows. Give a JPEG, PNG, BMP or WebP file.", file=str(path)) from error
    except OSError as error:
        if error.errno is None:
            raise _damaged(path, error) from error
        raise BadData(f"{path} can't be read: {error.strerror}. Give an image.", file=str(path)) from error
    except Exception as error:  # whatever a decoder makes of bytes that are not what its format says
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadData:
    return BadData(f"{path} is a damaged image: {str(error).rstrip('.')}. Get the file again.", file=str(path))


def _too_large(path: Path, error: Exception, most: int) -> BadData:
    found = re.search(r"\d+", str(error))  # Pillow has opened nothing that could be asked
    pixels = f"{int(found[0]):,} pixels" if found else "too many pixels"
    return BadData(f"{path} has {pixels}; at most {most:,} are read. Make it smaller.", file=str(path))


def _eight_bit(image: Any, kind: str | None, path: Path) -> Any:
    """Return gray of 16 or 32 bits, or of floats, as 8 bits; Pillow's own conversion cuts off at 255."""
    wide = image.mode.startswith("I;16") or (image.mode == "I" and kind == "PPM")  # which Pillow reads as 0 to 65535
    if not wide and image.mode not in {"I", "F"}:
        return image
    values = np.asarray(image)
    if not wide and not (values.min() >= 0 and 1 < values.max() <= 255):  # of 0 to 1 all would be black
        found = f"from {values.min():g} to {values.max():g}"
        raise BadData(f"{path} has values {found}; 0 to 255 was expected. Save it with 8 or 16 bits.", file=str(path))
    return library("PIL.Image").fromarray((values.astype(np.uint32) >> 8 if wide else values).astype(np.uint8))


def _opaque(image: Any) -> Any:
    pillow = library("PIL.Image")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        over = image.convert("RGBA")
        return pillow.alpha_composite(pillow.new("RGBA", over.size, "white"), over)
    return image
