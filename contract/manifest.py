"""`manifest.json`: what a trained model is and which bytes it is made of; `train` writes it last, `serve` reads it first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from contract.declaration import Declaration
from contract.errors import DamagedModel
from contract.files import TEMPORARY, is_inside, replacing, sha256, write_text

MANIFEST = "manifest.json"
ONNX = "model.onnx"
JOBLIB = "model.joblib"
REPORT = ("report/report.html", "report/model_card.json", "report/metrics.json")
"""A page for people, and what a model registry takes."""
SCHEMA = 1


@dataclass(frozen=True)
class Manifest:
    """A trained model's description; all of it is JSON types but the declaration."""

    declaration: Declaration
    labels: tuple[str, ...]
    """Classes in the order of the probabilities' columns; empty for a number."""
    samples: tuple[Mapping[str, Any], ...]
    """Three rows of the data, `{"row": {feature: value}, "prediction": ..}`: payloads for people, the self-test for `serve`."""
    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    ranges: Mapping[str, Mapping[str, Any]]
    """For each feature what training saw: minimum, maximum and missing of a number, counts of a category."""
    data: Mapping[str, Any]
    """Rows of each part and the sha256 of the matrix that was trained on."""
    parity: Mapping[str, Any]
    """How far ONNX was from scikit-learn; `onnx` false means that only `model.joblib` can serve."""
    origin: Mapping[str, Any]
    """Job, image, commit, times, versions of the libraries."""
    files: Mapping[str, Mapping[str, Any]]
    """Name to `{"sha256", "size_bytes"}` of every other file that counts."""
    intervals: Mapping[str, Any] | None = None
    """Prediction intervals of a number: low is the prediction less `half_width`, high the prediction plus it, in the target's
    unit; of values like the held-out ones a share of `level` lies within. Beside them the `rows` it was calibrated on and the
    `method`. None for classes, and where too few rows were held out."""
    confidence: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """For each validation metric the bounds of its 95 % interval and its deviation: low, high, standard_deviation."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """`{"drawn": true}`, or false and `why` it could not be drawn."""
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON types, the declaration's parts at the top level."""
        document = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "declaration"}
        document["trained_with"] = document.pop("hyperparameters")
        return {"schema": self.schema, **asdict(self.declaration), **document}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Manifest:
        """Return the manifest of a JSON document; raises KeyError or TypeError where it is none."""
        elsewhere = {"declaration", "hyperparameters"}
        added = {"intervals", "confidence", "report"} - document.keys()  # manifests of version 0.1.0 lack them
        own = {item.name: document[item.name] for item in fields(cls) if item.name not in elsewhere | added}
        own.update(labels=tuple(own["labels"]), samples=tuple(own["samples"]))
        own["files"] = {name: {key: entry[key] for key in ("sha256", "size_bytes")} for name, entry in own["files"].items()}
        return cls(declaration=Declaration.from_json(document), hyperparameters=document["trained_with"], **own)


def write_model(folder: Path, manifest: Manifest, contents: Mapping[str, Callable[[Path], object]]) -> Manifest:
    """Write a model directory over whatever an earlier run left there; return the manifest with its files.

    All files are written under temporary names before the first takes its place; the manifest goes before and comes back last.
    A run that is killed leaves the earlier model, or no manifest, never one beside another run's files.

    Args:
        folder: the model directory; files in it that are none of a model's own stay.
        manifest: the new model's.
        contents: for each file's name the function that writes it to a path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.rglob(f".*{TEMPORARY}"):  # by a run that was killed while it wrote
        left.unlink(missing_ok=True)
    with ExitStack() as stack:
        for name, write_to in contents.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_to(stack.enter_context(replacing(folder / name)))
        (folder / MANIFEST).unlink(missing_ok=True)
    for name in {JOBLIB, ONNX, *REPORT} - contents.keys():
        (folder / name).unlink(missing_ok=True)
    return write_manifest(folder, manifest, list(contents))


def write_manifest(folder: Path, manifest: Manifest, names: list[str]) -> Manifest:
    """Write the manifest over the named files of a folder and return it with their sizes and sha256."""
    files = {name: {"sha256": sha256(folder / name), "size_bytes": (folder / name).stat().st_size} for name in names}
    manifest = replace(manifest, files=files)
    write_text(folder / MANIFEST, json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest after checking size and sha256 of every file it names; other files are ignored (L-8).

    Raises:
        DamagedModel: the manifest or a file it names is missing, unreadable or not what it says.
    """
    manifest = _parse(folder / MANIFEST)
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    return manifest


def _parse(path: Path) -> Manifest:
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "Train first, or mount the folder that `train` wrote"
        raise DamagedModel(f"{path} can't be read ({error.strerror}). {hint}.", file=MANIFEST) from error
    try:
        document = json.loads(content)
        if document["schema"] != SCHEMA:
            raise DamagedModel(
                f"{path} has schema {document['schema']!r}; this image reads {SCHEMA}. Train again.", file=MANIFEST
            )
        return Manifest.from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedModel(f"{path} is not a manifest that `train` wrote ({error!r}). Train again.", file=MANIFEST) from error


def _check_file(folder: Path, name: str, expected: Mapping[str, Any]) -> None:
    path = folder / name
    if not is_inside(name):
        raise DamagedModel(f"{folder / MANIFEST} names {name!r}, outside the folder. Train again.", file=MANIFEST)
    try:
        size = path.stat().st_size
        if size != expected["size_bytes"]:
            raise _damaged(path, name, f"has {size:,} bytes where the manifest says {expected['size_bytes']:,}")
        if sha256(path) != expected["sha256"]:
            raise _damaged(path, name, "does not have the sha256 that the manifest says")
    except OSError as error:
        raise _damaged(path, name, f"can't be read ({error.strerror})") from error


def _damaged(path: Path, name: str, what: str) -> DamagedModel:
    return DamagedModel(f"{path} {what}. The model is damaged or was changed; train again or restore it.", file=name)
