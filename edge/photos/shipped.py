"""Photos that come with scikit-image and scikit-learn: some to quantize by, others to judge by, each with its right classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.libraries import library
from edge.photos.graph import SIDE

CROP = SIDE / (SIDE + 32)
"""The part of the shorter side that is looked at. Source: EfficientNet's own evaluation, `CROP_PADDING = 32`."""
MEAN, DEVIATION = 127.0, 128.0
"""What makes pixels the model's input. Source: EfficientNet-Lite's `MEAN_RGB` and `STDDEV_RGB`."""
FOLDERS = {"skimage": "data", "sklearn": "datasets/images"}


@dataclass(frozen=True)
class Photo:
    """A photo that was never quantized by, and the names of the classes that are right for it, as ImageNet has them."""

    library: str
    file: str
    classes: tuple[str, ...]
    license: str


JUDGED = (
    Photo("skimage", "coffee.png", ("espresso", "cup", "coffee mug"), "CC0, Rachel Michetti"),
    Photo("skimage", "chelsea.png", ("tabby", "tiger cat", "Egyptian cat"), "CC0, Stefan van der Walt"),
    Photo("skimage", "rocket.jpg", ("missile", "projectile"), "public domain, SpaceX"),
    Photo("skimage", "camera.png", ("tripod", "reflex camera"), "CC0, Lav Varshney"),
    Photo("skimage", "motorcycle_left.png", ("moped", "motor scooter"), "public domain, Middlebury stereo data of 2014"),
    Photo("skimage", "clock_motion.png", ("wall clock", "analog clock"), "public domain, Stefan van der Walt"),
    Photo("sklearn", "china.jpg", ("palace",), "CC BY 2.0, danielbuechele"),
    Photo("sklearn", "flower.jpg", ("daisy",), "CC BY 2.0, vultilion"),
)
"""ImageNet has no motorcycle, rocket or blossom of this kind; its nearest classes stand for them."""
CALIBRATION = ("astronaut.png", "retina.jpg", "ihc.png", "hubble_deep_field.jpg", "brick.png", "grass.png", "gravel.png")
"""Of scikit-image: photos of nothing that is judged. All are in the public domain or CC0."""


def open_photo(owner: str, file: str) -> Any:
    """Return a photo that comes with a library, as PIL has it."""
    folder = Path(str(library(owner).__file__)).parent
    with library("PIL.Image").open(folder / FOLDERS[owner] / file) as picture:
        return picture.convert("RGB")


def crop(picture: Any, part: float = CROP) -> Any:
    """Return the middle of a picture, square, in the model's size."""
    width, height = picture.size
    side = min(width, height) * part
    left, top = (width - side) / 2, (height - side) / 2
    return picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), library("PIL.Image").Resampling.BICUBIC)


def to_input(picture: Any) -> NDArray[np.float32]:
    """Return a picture of the model's size as float32 (1, 224, 224, 3), -1 to 1."""
    return ((np.asarray(picture, dtype=np.float32) - MEAN) / DEVIATION)[np.newaxis]


def calibration_inputs() -> Iterator[NDArray[np.float32]]:
    """Yield what to quantize by: first every shade there is, so that an integer of the input is a pixel's own value."""
    shades = np.linspace(0, 255, SIDE * SIDE * 3, dtype=np.float32).reshape(SIDE, SIDE, 3)
    yield to_input(shades)
    for file in CALIBRATION:
        picture = open_photo("skimage", file)
        for part in (1.0, 0.6):
            seen = to_input(crop(picture, part))
            yield seen
            yield seen[:, :, ::-1]
