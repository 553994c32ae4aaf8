"""`export`: from one trained model directory to verified files for devices, and edge.json over them.

Each file is read back and run on every row before it takes its place; outside the tolerance nothing is left behind.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contract.edge import COMPILED, COREML, EDGE, FLOAT, FOLDER, INT8, EdgeManifest, fingerprint_of, write_edge_manifest
from contract.errors import BadArtifact, MissingLibrary
from contract.files import TEMPORARY
from contract.manifest import ONNX, Manifest, read_manifest
from edge.export import coreml, tflite
from edge.export.figures import difference, rounded, score, spell
from edge.export.rows import Data, read_data
from edge.export.student import Array, Student, teach
from edge.export.teacher import Answer, against_joblib, load_teacher, sample_matrix
from edge.export.tolerance import DEFAULT, Bounds, Tolerance
from edge.libraries import library

MOST_ROWS = 20_000
"""Rows that files are run on, at most; of more an even selection is taken, and of those held out all are."""
OWN = (ONNX, INT8, FLOAT, COREML, COMPILED)
LIBRARIES = {
    "onnx": ("onnxruntime",),
    "tflite": ("ai-edge-litert", "scikit-learn", "numpy"),
    "coreml": ("coremltools", "scikit-learn", "numpy"),
}
"""Whose versions shape which files."""
SAY = "export: {}".format


@dataclass(frozen=True)
class Lesson:
    """What a file is made of, and compared with."""

    model: Path
    manifest: Manifest
    data: Data
    teacher: Answer
    student: Student
    inputs: Array
    """Encoded rows that the student learnt from."""


@dataclass
class Made:
    """What an exporter wrote into a folder."""

    answers: dict[str, Answer]
    """For each file what it answers, by reading back what was written."""
    quantization: Mapping[str, Any]


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
        ExportFailed: a file is outside the tolerance; nothing is left of it.
    """
    lesson = _learn(model, training, validation, trust_joblib=trust_joblib)
    chosen, out = list(kinds or EXPORTERS), out or model / FOLDER
    with _beside(out) as folder:
        made, left_out = _make(lesson, folder, chosen, insist=bool(kinds))
        manifest = _verified(lesson, made, left_out, tolerance)
        manifest = write_edge_manifest(folder, manifest)
        _place(folder, out, list(manifest.artifacts))
    sizes = ", ".join(f"{name} {entry['size_bytes']:,} bytes" for name, entry in manifest.artifacts.items())
    print(SAY(f"{out}: {sizes}, {EDGE}"), flush=True)
    return manifest


def export_onnx(lesson: Lesson, folder: Path) -> Made:
    """Copy model.onnx, whose sha256 was checked, and load the copy."""
    shutil.copyfile(lesson.model / ONNX, folder / ONNX)
    return Made({ONNX: load_teacher(folder, lesson.manifest)}, {})


def export_tflite(lesson: Lesson, folder: Path) -> Made:
    """Write the student as int8 and as float32, and ask both through the runner that goes to devices."""
    whole, quantization = tflite.write_int8(lesson.student, lesson.inputs)
    answers = {}
    for name, content in ((INT8, whole), (FLOAT, tflite.write_float(lesson.student))):
        (folder / name).write_bytes(content)
        answers[name] = _by_runner(folder / name)
    return Made(answers, quantization)


def export_coreml(lesson: Lesson, folder: Path) -> Made:
    """Write the student as a Core ML package, and compute what was written."""
    coreml.write_package(lesson.student, folder / COREML)
    return Made({COREML: coreml.read_package(folder / COREML)}, {})


EXPORTERS: Mapping[str, Exporter] = {"onnx": export_onnx, "tflite": export_tflite, "coreml": export_coreml}
"""What `export` takes, but `all`, which insists on each."""


def _learn(model: Path, training: Path | None, validation: Path | None, *, trust_joblib: bool) -> Lesson:
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
    data = read_data(manifest, training, validation or channels / "validation")
    told = f"{len(data.train):,} rows to learn from, {len(data.held_out):,} held out, the same as the model's"
    print(SAY(f"{training}: {told}"), flush=True)
    if trust_joblib:
        off = against_joblib(teacher, model, manifest, data.every)
        print(SAY(f"{ONNX} is within {off:.3g} of model.joblib on {len(data.every):,} rows"), flush=True)
    student, inputs = teach(manifest, teacher, data.train.matrix)
    return Lesson(model, manifest, data, teacher, student, inputs)


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
            print(SAY(f"{kind} is LEFT OUT: {error.message}"), flush=True)
    return made, left_out


def _verified(lesson: Lesson, made: Mapping[str, Made], left_out: Mapping[str, str], tolerance: Tolerance) -> EdgeManifest:
    """Return the manifest of files that are within the tolerance.

    Raises:
        ExportFailed: one isn't.
    """
    data, labels, rows = lesson.data, lesson.manifest.labels, _rows(lesson.data)
    told, learnt = lesson.teacher(rows), lesson.student.answer(rows)
    held_out = slice(len(rows) - len(data.held_out), None)
    figures = {
        name: score(found[held_out], data.held_out.target, labels) for name, found in (("teacher", told), ("student", learnt))
    }
    for name, graded in figures.items():
        print(SAY(f"{name}, on {len(data.held_out):,} held-out rows: {spell(graded)}"), flush=True)
    bounds = Bounds.of(figures, told, len(data.held_out), tolerance, is_class=bool(labels))
    bounds.check_student(figures)
    artifacts = {}
    for name, answer in {name: answer for each in made.values() for name, answer in each.answers.items()}.items():
        found = answer(rows)
        entry = {
            **score(found[held_out], data.held_out.target, labels),
            "largest_difference": difference(found, told),
            "student_difference": difference(found, learnt),
        }
        print(SAY(_line(name, entry)), flush=True)
        bounds.check_file(name, entry)
        artifacts[name] = rounded(entry)
    quantization = {key: value for each in made.values() for key, value in each.quantization.items()}
    return EdgeManifest(
        teacher=fingerprint_of(lesson.manifest),
        preprocessing=lesson.student.preprocessing,
        quantization=quantization,
        samples=_samples(lesson, made),
        bound=_bound(lesson.student, quantization),
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


def _bound(student: Student, quantization: Mapping[str, Any]) -> float:
    """Return two steps of the int8 output in the answer's unit; a logit's step changes a probability by half of it at most."""
    step = float(quantization["output"]["scale"]) if quantization else 0.0
    return 2 * step * student.preprocessing.deviation if student.preprocessing.kind == "number" else step


def _line(name: str, entry: Mapping[str, Any]) -> str:
    off = f"at most {entry['largest_difference']:.3g} from the model and {entry['student_difference']:.3g} from the student"
    return f"{name}: {spell(dict(entry))}; {off}"


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Give a folder within `out` to write into, gone afterwards; what an earlier export that was killed left there goes too.

    Raises:
        BadArtifact: nothing can be written there.
    """
    had = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export.", suffix=TEMPORARY, dir=out))
    except OSError as error:
        raise BadArtifact(
            f"Nothing can be written to {out} ({error.strerror}). Name another folder: --out DIR.", file=str(out)
        ) from error
    for left in set(out.glob(f".export.*{TEMPORARY}")) - {folder}:
        shutil.rmtree(left, ignore_errors=True)
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not had and not any(out.iterdir()):
            out.rmdir()


def _place(folder: Path, out: Path, names: Sequence[str]) -> None:
    """Put finished files over an earlier export's: its manifest goes first, the new one comes last, others' files stay."""
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # coremltools leaves a folder to its owner alone
        if file.is_file():
            with file.open("rb") as written:
                os.fsync(written.fileno())
    (out / EDGE).unlink(missing_ok=True)
    for name in OWN:
        old = out / name
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    for name in [*names, EDGE]:
        (folder / name).rename(out / name)
