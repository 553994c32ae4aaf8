"""`export`: from one trained model directory to verified files for devices, and edge.json over them.

Each file is read back and run on every row before it takes its place; outside the tolerance nothing is left behind.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from contract.edge import (
    COREML,
    COREML_MODEL,
    EDGE,
    FLOAT,
    FOLDER,
    INT8,
    EdgeManifest,
    Preprocessing,
    fingerprint_of,
    write_edge_manifest,
)
from contract.errors import BadArtifact, MissingLibrary
from contract.manifest import ONNX, Manifest, read_manifest
from edge.export import coreml, tflite
from edge.export.figures import check_held_out, difference, rounded, score, spell
from edge.export.output import check_output, output, place
from edge.export.rows import Data, read_data
from edge.export.student import Array, Student, teach
from edge.export.teacher import Answer, against_joblib, load_teacher, sample_matrix
from edge.export.tolerance import DEFAULT, Bounds, Tolerance
from edge.export.translation import Untranslatable
from edge.libraries import library

MOST_ROWS = 20_000
"""Rows that files are run on, at most; of more an even selection is taken, and of those held out all are."""
LIBRARIES = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert", "scikit-learn", "numpy"),
    "coreml": ("coremltools", "scikit-learn", "numpy"),
}
"""Whose versions shape which files."""
DIFFERENCES = {"teacher": "largest_difference", "student": "student_difference"}
SPELLED = {"model": "largest_difference", "student": "student_difference"}
SAY = "export: {}".format


@dataclass(frozen=True)
class Lesson:
    """What a file is made of, and compared with."""

    model: Path
    manifest: Manifest
    data: Data
    teacher: Answer

    @cached_property
    def taught(self) -> tuple[Student, Array]:
        """The student, and the encoded rows that it learnt from; it is taught when a file of it is first wanted."""
        return teach(self.manifest, self.teacher, self.data.train.matrix)

    @property
    def student(self) -> Student:
        """What the files but ONNX are made of."""
        return self.taught[0]


@dataclass
class Made:
    """What an exporter wrote into a folder."""

    answers: dict[str, Answer]
    """For each file what it answers, by reading back what was written."""
    quantization: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    """What can't be made of this model, and why."""


Exporter = Callable[[Lesson, Path], Made]


def export(
    model: Path,
    out: Path | None = None,
    kinds: Sequence[str] = (),
    *,
    training: Path | None = None,
    validation: Path | None = None,
    tolerance: Tolerance = DEFAULT,
    trust_joblib: bool = False,
) -> EdgeManifest:
    """Write a model's files for devices and return the manifest over them.

    Args:
        model: the model directory.
        out: where to write; MODEL/edge without it. An earlier export there stays until all is made and checked.
        kinds: of EXPORTERS; none means what this machine has the libraries for, and says what it left out.
        training: the training channel's folder, or a CSV file; without it where a job's stands: MODEL/../input/data.
        validation: the same of the validation channel, of a model that had one.
        tolerance: outside it the export fails.
        trust_joblib: compare ONNX with model.joblib too, whose loading runs whatever is in it.

    Raises:
        DamagedModel: the model directory isn't what its manifest says.
        BadData: the rows aren't those that the model was trained on.
        MissingLibrary: a kind that was asked for needs it.
        BadArtifact: `out` can't be written to, or holds what isn't an export's.
        ExportFailed: a file is outside the tolerance; nothing is left of it.
    """
    chosen, out = list(kinds or EXPORTERS), out or model / FOLDER
    check_output(out)
    lesson = _lesson(model, training, validation, trust_joblib=trust_joblib)
    with output(out) as folder:
        made, left_out = _make(lesson, folder, chosen, insist=bool(kinds))
        manifest = _verified(lesson, made, left_out, tolerance)
        manifest = write_edge_manifest(folder, manifest)
        place(folder, out, list(manifest.artifacts))
    sizes = ", ".join(f"{name} {entry['size_bytes']:,} bytes" for name, entry in manifest.artifacts.items())
    print(SAY(f"{out}: {sizes}, {EDGE}"), flush=True)
    return manifest


def export_onnx(lesson: Lesson, folder: Path) -> Made:
    """Copy model.onnx, whose sha256 was checked, and load the copy."""
    shutil.copyfile(lesson.model / ONNX, folder / ONNX)
    return Made({ONNX: load_teacher(folder, lesson.manifest)})


def export_tflite(lesson: Lesson, folder: Path) -> Made:
    """Write the student as int8 and as float32, and ask both through the runner that goes to devices."""
    whole, quantization = tflite.write_int8(*lesson.taught)
    answers = {}
    for name, content in ((INT8, whole), (FLOAT, tflite.write_float(lesson.student))):
        (folder / name).write_bytes(content)
        answers[name] = _by_runner(folder / name)
    return Made(answers, quantization)


def export_coreml(lesson: Lesson, folder: Path) -> Made:
    """Write the student as a Core ML package, the model itself as another, and compute what was written."""
    coreml.write_package(lesson.student, folder / COREML)
    answers, left_out = {COREML: coreml.read_package(folder / COREML)}, {}
    try:
        coreml.write_model(lesson.manifest, (lesson.model / ONNX).read_bytes(), folder / COREML_MODEL)
        answers[COREML_MODEL] = coreml.read_package(folder / COREML_MODEL)
    except Untranslatable as error:
        left_out[COREML_MODEL] = str(error)
    return Made(answers, left_out=left_out)


EXPORTERS: Mapping[str, Exporter] = {"onnx": export_onnx, "tflite": export_tflite, "coreml": export_coreml}
"""What `export` takes, but `all`, which insists on each."""


def _lesson(model: Path, training: Path | None, validation: Path | None, *, trust_joblib: bool) -> Lesson:
    manifest = read_manifest(model)
    teacher = load_teacher(model, manifest)
    channels = model.parent / "input" / "data"
    training = training or next((path for name in ("training", "train") if (path := channels / name).exists()), None)
    if training is None:
        raise BadArtifact(
            f"The student learns from rows, and beside {model} is no training channel. Give the one that the model was trained "
            "on: --data DIR.",
            file=str(model),
        )
    data = read_data(manifest, training, validation or training.parent / "validation")
    check_held_out(teacher(data.held_out.matrix), data.held_out.target, manifest)
    told = f"{len(data.train):,} rows to learn from, {len(data.held_out):,} held out, the same as the model's"
    print(SAY(f"{training}: {told}"), flush=True)
    if trust_joblib:
        off = against_joblib(teacher, model, manifest, data.every)
        print(SAY(f"{ONNX} is within {off:.3g} of model.joblib on {len(data.every):,} rows"), flush=True)
    return Lesson(model, manifest, data, teacher)


def _make(lesson: Lesson, folder: Path, kinds: Sequence[str], *, insist: bool) -> tuple[dict[str, Made], dict[str, str]]:
    """Run the exporters; return what they made, and what was left out for lack of a library and why."""
    made, left_out = {}, {}
    for kind in kinds:
        try:
            made[kind] = EXPORTERS[kind](lesson, folder)
        except MissingLibrary as error:
            if insist:
                raise
            left_out[kind] = error.message
    left_out |= {name: why for each in made.values() for name, why in each.left_out.items()}
    for name, why in left_out.items():
        print(SAY(f"{name} is LEFT OUT: {why}"), flush=True)
    return made, left_out


def _verified(lesson: Lesson, made: Mapping[str, Made], left_out: Mapping[str, str], tolerance: Tolerance) -> EdgeManifest:
    """Return the manifest of files that are within the tolerance.

    Raises:
        ExportFailed: one isn't.
    """
    data, labels, rows = lesson.data, lesson.manifest.labels, _rows(lesson.data)
    held_out = slice(len(rows) - len(data.held_out), None)
    answers = {"teacher": lesson.teacher(rows)}
    if made.keys() - {"onnx"}:
        answers["student"] = lesson.student.answer(rows)
    figures = {name: score(found[held_out], data.held_out.target, labels) for name, found in answers.items()}
    for name, graded in figures.items():
        print(SAY(f"{name}, on {len(data.held_out):,} held-out rows: {spell(graded)}"), flush=True)
    bounds = Bounds.of(figures, answers["teacher"], len(data.held_out), tolerance, is_class=bool(labels))
    bounds.check_student(figures)
    artifacts = {}
    for name, answer in {name: answer for each in made.values() for name, answer in each.answers.items()}.items():
        found = answer(rows)
        entry = score(found[held_out], data.held_out.target, labels)
        entry |= {DIFFERENCES[other]: difference(found, told) for other, told in answers.items()}
        print(SAY(_line(name, entry)), flush=True)
        bounds.check_file(name, entry)
        artifacts[name] = rounded(entry)
    quantization = {key: value for each in made.values() for key, value in each.quantization.items()}
    preprocessing = lesson.student.preprocessing if "student" in answers else None
    return EdgeManifest(
        teacher=fingerprint_of(lesson.manifest),
        preprocessing=preprocessing,
        quantization=quantization,
        samples=_samples(lesson, made),
        bound=_bound(preprocessing, quantization),
        artifacts=artifacts,
        data={
            "train_rows": len(data.train),
            "validation_rows": len(data.held_out),
            **{name: rounded(graded) for name, graded in figures.items()},
        },
        versions={name: importlib.metadata.version(name) for kind in made for name in LIBRARIES[kind]},
        left_out=left_out,
    )


def _rows(data: Data) -> Any:
    """Return the rows to run files on: an even selection of training's where there are many, and all that were held out."""
    train = data.train.matrix
    chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(np.intp))
    return np.concatenate([train[chosen], data.held_out.matrix])


def _by_runner(path: Path) -> Answer:
    """Return what a .tflite file answers through the runner."""
    library("ai_edge_litert.interpreter")
    from edge.runner import Student as Runner

    runner = Runner(path)
    return lambda matrix: np.array([runner.predict(row) for row in matrix], dtype=np.float64).reshape(len(matrix), -1)


def _samples(lesson: Lesson, made: Mapping[str, Made]) -> tuple[Mapping[str, Any], ...]:
    """Return the model's sample rows with what the int8 file says of them."""
    if "tflite" not in made:
        return ()
    labels, answers = lesson.manifest.labels, made["tflite"].answers[INT8](sample_matrix(lesson.manifest))
    told: list[Any] = [float(row[0]) for row in answers]
    if labels:
        told = [
            {"label": labels[int(row.argmax())], "probabilities": dict(zip(labels, row.tolist(), strict=True))}
            for row in answers
        ]
    return tuple({"row": sample["row"], "prediction": said} for sample, said in zip(lesson.manifest.samples, told, strict=True))


def _bound(preprocessing: Preprocessing | None, quantization: Mapping[str, Any]) -> float:
    """Return one step of the int8 output in the answer's unit; logits a step off change a probability by half of it at most."""
    if preprocessing is None or not quantization:
        return 0.0
    step = float(quantization["output"]["scale"])
    return step * preprocessing.deviation if preprocessing.kind == "number" else step / 2


def _line(name: str, entry: Mapping[str, Any]) -> str:
    off = [f"{entry[key]:.3g} from the {what}" for what, key in SPELLED.items() if key in entry]
    return f"{name}: {spell(dict(entry))}; at most {' and '.join(off)}"
