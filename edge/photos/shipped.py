"""Photos that come with scikit-image and scikit-learn: some to quantize by, others to judge by, each with its right classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.libraries import folder_of, library
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
    Photo("skimage", "motorcycle_left.png", ("moped", "motor scooter"), "none stated; Middlebury's stereo benchmark of 2014"),
    Photo("skimage", "clock_motion.png", ("wall clock", "analog clock"), "public domain, Stefan van der Walt"),
    Photo("sklearn", "china.jpg", ("palace",), "CC BY 2.0, danielbuechele"),
    Photo("sklearn", "flower.jpg", ("daisy",), "CC BY 2.0, vultilion"),
)
"""ImageNet has no motorcycle, rocket or blossom of this kind; its nearest classes stand for them."""
CALIBRATION = ("astronaut.png", "retina.jpg", "ihc.png", "hubble_deep_field.jpg")
"""Of scikit-image: photos of nothing that is judged. All are in the public domain or CC0."""
PARTS = {1.0: (0.5,), 0.6: (0.0, 1.0), 0.35: (0.0, 0.5, 1.0)}
"""What is cut out of each of them: squares of so much of the shorter side, and where they lie, across and down. With close-ups
int8 was off by 0.03 in the mean over the judged photos, without by 0.05."""


def find_photo(owner: str, file: str) -> Path:
    """Return where a photo is that comes with a library; the library itself is not imported.

    Raises:
        MissingLibrary: it isn't installed.
    """
    return folder_of(owner) / FOLDERS[owner] / file


def crop(photo: Path, part: float = CROP, across: float = 0.5, down: float = 0.5) -> NDArray[np.uint8]:
    """Return a square of a photo as pixels in the model's size; by default its middle, on which EfficientNet is evaluated."""
    pillow = library("PIL.Image")
    with pillow.open(photo) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    side = min(width, height) * part
    left, top = (width - side) * across, (height - side) * down
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((SIDE, SIDE), pillow.Resampling.BICUBIC), dtype=np.uint8)


def to_input(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Return pixels of the model's size as float32 (1, 224, 224, 3), -1 to 1."""
    return ((pixels.astype(np.float32) - np.float32(MEAN)) / np.float32(DEVIATION))[np.newaxis]


def calibration_inputs() -> Iterator[NDArray[np.float32]]:
    """Yield what to quantize by: first every shade there is, so that an integer of the input is a pixel's own value."""
    shades = np.linspace(0, 255, SIDE * SIDE * 3, dtype=np.float32).reshape(SIDE, SIDE, 3)
    yield to_input(shades)
    for file in CALIBRATION:
        photo = find_photo("skimage", file)
        for part, places in PARTS.items():
            for across, down in product(places, places):
                yield to_input(crop(photo, part, across, down))
