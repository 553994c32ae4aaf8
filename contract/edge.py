"""`edge.json`: what was exported for devices, from which model, how a row becomes its input, and how far its answers are off.

`export` writes it last, beside the files that it names; who runs one of them on a device reads it first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from contract.errors import DamagedModel
from contract.files import is_inside, sha256, write_text
from contract.manifest import ONNX, Manifest

FOLDER = "edge"
"""Where in the model directory they are, unless another place was asked for."""
EDGE = "edge.json"
INT8, FLOAT, COREML = "student_int8.tflite", "student_float.tflite", "student.mlpackage"
COREML_MODEL = "model.mlpackage"
"""The model itself, where it can be said in Core ML."""
COMPILED = "student_int8_edgetpu.tflite"
"""What the Edge TPU's compiler makes of INT8; it runs with that accelerator's delegate only."""
METADATA = "berth.preprocess.json"
"""The name of the .tflite files' metadata buffer that holds the preprocessing, as JSON."""
SCHEMA = 1


@dataclass(frozen=True)
class Column:
    """One feature as the student takes it."""

    name: str
    kind: Literal["number", "category"]
    nullable: bool = False
    low: float = -1.0
    high: float = 1.0
    """Of a number: what training saw; a value is clipped to it, and scaled so that they become -1 and 1."""
    fill: float = 0.0
    """Of a nullable number: what stands for a missing one, in its own unit."""
    choices: tuple[str, ...] = ()
    """Of a category, in the order of the server's indexes; a missing one has the index after the last."""

    @property
    def slots(self) -> int:
        """How many inputs a category takes: one a choice, and one for a missing value where it may be missing."""
        return len(self.choices) + self.nullable


@dataclass(frozen=True)
class Preprocessing:
    """All that is needed to ask the student and to read its answer; it is in the .tflite files too, under METADATA.

    The input, in order: each number scaled to -1 .. 1; for each nullable number 1 where it is missing, else 0; for each
    category one input a slot, 1 where it is that choice, else 0. Each group has the order of the features.
    A number's answer is mean + deviation * output; the outputs of classes are logits, whose softmax are the probabilities.
    """

    features: tuple[Column, ...]
    """In the order of the server's columns."""
    target: str
    kind: Literal["number", "class"]
    labels: tuple[str, ...] = ()
    """Of the outputs, where the target is a class."""
    mean: float = 0.0
    deviation: float = 1.0
    teacher: str = ""
    """The sha256 of the model.onnx that the student was taught by."""

    @property
    def width(self) -> int:
        """The number of inputs."""
        return sum(1 + column.nullable if column.kind == "number" else column.slots for column in self.features)

    def encode(self, row: Sequence[float]) -> list[float]:
        """Return the input of one row of the server's matrix: a category as its index, a missing value NaN.

        This defines the encoding; what encodes many rows at once has to come to the same.
        """
        pairs = list(zip(self.features, row, strict=True))
        numbers = [(column, value) for column, value in pairs if column.kind == "number"]
        scaled = [_scaled(column, column.fill if math.isnan(value) else value) for column, value in numbers]
        missing = [float(math.isnan(value)) for column, value in numbers if column.nullable]
        chosen = [
            float((len(column.choices) if math.isnan(value) else value) == slot)
            for column, value in pairs
            if column.kind == "category"
            for slot in range(column.slots)
        ]
        return scaled + missing + chosen

    def to_json(self) -> dict[str, Any]:
        """Return the preprocessing as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Return the preprocessing of a JSON document; raises KeyError or TypeError where it is none."""
        columns = tuple(Column(**{**column, "choices": tuple(column["choices"])}) for column in document["features"])
        return cls(**{**document, "features": columns, "labels": tuple(document["labels"])})


@dataclass(frozen=True)
class EdgeManifest:
    """What `export` left; all of it is JSON types but the preprocessing."""

    teacher: Mapping[str, Any]
    """`fingerprint_of` the model directory's manifest: the model that the student was taught by."""
    preprocessing: Preprocessing | None
    """None where nothing was made of a student: ONNX takes what the server takes."""
    quantization: Mapping[str, Mapping[str, Any]]
    """Of INT8: `input` and `output`, each `{"scale", "zero_point"}`: value = scale * (integer - zero_point)."""
    samples: tuple[Mapping[str, Any], ...]
    """The model directory's sample rows, `{"row": {feature: value}, "prediction": ..}`, and what INT8 said of them; none
    without INT8."""
    bound: float
    """How far INT8's answers to the samples may be off on another machine's CPU: one step of its output, in the target's unit,
    or of a probability. The kernels are of integers and say the same everywhere; what is around them is of floats."""
    artifacts: Mapping[str, Mapping[str, Any]]
    """For each file or folder `{"size_bytes", "sha256"}` and its figures. On held-out rows: `r2` and `mae`, or `accuracy` and
    `log_loss`. On every row, training's too: `largest_difference` from the server's ONNX model, `student_difference` from
    the student in float64, where there is one, both in the target's unit, or of a probability."""
    data: Mapping[str, Any]
    """Rows taught with and held out, and the figures of `teacher` and `student` on the latter."""
    versions: Mapping[str, str]
    """Of the libraries that made the files."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What was not made, and why."""
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON types."""
        told = self.preprocessing.to_json() if self.preprocessing else None
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "preprocessing": told}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> EdgeManifest:
        """Return the manifest of a JSON document; raises KeyError or TypeError where it is none."""
        own = {item.name: document[item.name] for item in fields(cls)}
        told = own["preprocessing"]
        own.update(preprocessing=Preprocessing.from_json(told) if told else None, samples=tuple(own["samples"]))
        return cls(**own)


def fingerprint_of(manifest: Manifest) -> dict[str, Any]:
    """Return what tells a trained model from any other: the sha256 of its ONNX file and of its declaration."""
    declared = json.dumps(manifest.declaration.to_json(), sort_keys=True).encode()
    return {"onnx": manifest.files.get(ONNX, {}).get("sha256", ""), "declaration": hashlib.sha256(declared).hexdigest()}


def describe_artifact(path: Path) -> dict[str, Any]:
    """Return size and sha256 of a file, or of a folder: the sha256 of its files' names and sha256, in order."""
    if not path.is_dir():
        return {"size_bytes": path.stat().st_size, "sha256": sha256(path)}
    files = sorted(file for file in path.rglob("*") if file.is_file())
    listed = "".join(f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files)
    return {"size_bytes": sum(file.stat().st_size for file in files), "sha256": hashlib.sha256(listed.encode()).hexdigest()}


def write_edge_manifest(folder: Path, manifest: EdgeManifest) -> EdgeManifest:
    """Write the manifest, each artifact's entry with its size and sha256 of now, and return it so."""
    entries = {name: {**entry, **describe_artifact(folder / name)} for name, entry in manifest.artifacts.items()}
    manifest = replace(manifest, artifacts=entries)
    write_text(folder / EDGE, json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return manifest


def read_edge_manifest(folder: Path, model: Manifest | None = None) -> EdgeManifest:
    """Return the manifest of a folder after checking size and sha256 of all that it names.

    Args:
        folder: where `export` wrote.
        model: the manifest of the model directory that these files should be of; None asks nothing of that.

    Raises:
        DamagedModel: something is missing, unreadable, not what the manifest says, or of another model.
    """
    manifest = _parse(folder / EDGE)
    for name, entry in manifest.artifacts.items():
        _check(folder, name, entry)
    if model is not None and manifest.teacher != fingerprint_of(model):
        raise DamagedModel(f"{folder / EDGE} was exported from another model than the one beside it. Export again.", file=EDGE)
    return manifest


def _parse(path: Path) -> EdgeManifest:
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise DamagedModel(f"{path} has schema {document['schema']!r}; {SCHEMA} is read here. Export again.", file=EDGE)
        return EdgeManifest.from_json(document)
    except OSError as error:
        raise DamagedModel(f"{path} can't be read ({error.strerror}). Export first: `make export`.", file=EDGE) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedModel(f"{path} is not a manifest that `export` wrote ({error!r}). Export again.", file=EDGE) from error


def _check(folder: Path, name: str, entry: Mapping[str, Any]) -> None:
    path = folder / name
    if not is_inside(name):
        raise DamagedModel(f"{folder / EDGE} names {name!r}, outside the folder. Export again.", file=EDGE)
    try:
        found = describe_artifact(path)
    except OSError as error:
        raise DamagedModel(f"{path} can't be read ({error.strerror}). Export again, or restore it.", file=name) from error
    for fact in ("size_bytes", "sha256"):
        if found[fact] != entry.get(fact):
            what = f"{path} has {fact} {found[fact]} where {EDGE} says {entry.get(fact)}"
            raise DamagedModel(f"{what}. It is damaged or was changed: export again, or restore it.", file=name)


def _scaled(column: Column, value: float) -> float:
    if column.high <= column.low:
        return 0.0
    scaled = (2 * value - column.low - column.high) / (column.high - column.low)
    return min(1.0, max(-1.0, scaled))
