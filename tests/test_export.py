"""What `export` makes of a trained model for devices: files that are read back here, by others' readers where there are any."""

from __future__ import annotations

import csv
import fcntl
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import ROOT, SAMPLE

from contract.declaration import Declaration, Feature, Target
from contract.edge import COREML, COREML_MODEL, EDGE, FLOAT, INT8, Column, Preprocessing, read_edge_manifest
from contract.errors import BadArtifact, BadChannel, BadData, DamagedModel, ExportFailed, MissingLibrary, SchemaMismatch
from contract.job import Channel
from contract.manifest import MANIFEST, ONNX, Manifest, read_manifest
from edge.export.export import EXPORTERS, export
from edge.export.figures import score
from edge.export.rows import read_data, read_table
from edge.export.student import encode
from edge.export.teacher import load_teacher
from edge.export.tolerance import Tolerance
from edge.runner import Student, preprocessing_in
from local_test.emulator import Endpoint, lay_out, train
from local_test.runners import Processes
from local_test.soak.devices import COLUMNS, on_devices
from model import DECLARATION as MODEL
from model.pipeline import build_pipeline
from training.export import export as to_onnx

SOME = (
    Feature("N", ""),
    Feature("M", "", nullable=True),
    Feature("C", "", kind="category", choices=("red", "green", "blue"), nullable=True),
)
ROW = "0,6.575,296,15.3,396.9,4.98"
"""The sample's first."""


def run(*words: str | Path, fails: int = 0) -> str:
    """Run `python -m edge`, and return what it printed."""
    command = [sys.executable, "-m", "edge", *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == fails, done.stdout
    return done.stdout


def copied(model: Path, folder: Path) -> Path:
    """Copy a model directory, and its job's channels beside it."""
    shutil.copytree(model, folder / "model")
    shutil.copytree(model.parent / "input", folder / "input")
    return folder / "model"


@dataclass(frozen=True)
class Exported:
    """A copy of a trained model with its export, and what that printed."""

    model: Path
    said: str

    @property
    def folder(self) -> Path:
        return self.model / "edge"

    @property
    def manifest(self) -> Manifest:
        return read_manifest(self.model)

    def rows(self) -> np.ndarray:
        channels = self.model.parent / "input" / "data"
        return read_data(self.manifest, channels / "training", channels / "validation").every


@pytest.fixture(scope="module")
def housing(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = copied(trained / "model", tmp_path_factory.mktemp("housing"))
    return Exported(model, run("export", "all", "--model", model, "--trust-joblib"))


@pytest.fixture(scope="module")
def birds(penguin_ml: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model = copied(penguin_ml / "model", tmp_path_factory.mktemp("penguins"))
    return Exported(model, run("export", "--model", model))


@pytest.fixture(params=["housing", "birds"])
def exported(request: pytest.FixtureRequest) -> Exported:
    return request.getfixturevalue(request.param)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What is left


def test_an_export_has_every_file_with_its_figures_and_is_of_its_model(exported: Exported) -> None:
    manifest = read_edge_manifest(exported.folder, exported.manifest)
    assert list(manifest.artifacts) == [ONNX, INT8, FLOAT, COREML, COREML_MODEL]
    expected = {"accuracy", "log_loss"} if exported.manifest.labels else {"r2", "mae"}
    for name, entry in manifest.artifacts.items():
        assert set(entry) == expected | {"largest_difference", "student_difference", "size_bytes", "sha256"}
        assert f"{name}: " in exported.said
    assert {path.name for path in exported.folder.iterdir()} == {EDGE, *manifest.artifacts}
    assert manifest.left_out == {}


def test_onnx_is_the_one_that_serves_and_agrees_with_the_fitted_pipeline(housing: Exported) -> None:
    assert (housing.folder / ONNX).read_bytes() == (housing.model / ONNX).read_bytes()
    assert re.search(r"model.onnx is within \S+e-05 of model.joblib on 506 rows", housing.said)


def test_figures_are_those_of_the_model_on_the_rows_that_its_training_held_out(exported: Exported) -> None:
    told, manifest = exported.manifest.metrics, read_edge_manifest(exported.folder)
    for name, value in manifest.data["teacher"].items():
        assert value == pytest.approx(told[f"validation:{name}"], abs=1e-5)
        assert value == manifest.artifacts[ONNX][name]


def test_int8_is_within_a_fiftieth_of_the_student_and_below_ten_kilobytes(exported: Exported) -> None:
    manifest = read_edge_manifest(exported.folder)
    name = "accuracy" if exported.manifest.labels else "r2"
    assert abs(manifest.artifacts[INT8][name] - manifest.data["student"][name]) <= 0.02
    assert manifest.artifacts[INT8]["size_bytes"] < 10_000


def test_exporting_again_gives_the_same_bytes(exported: Exported, tmp_path: Path) -> None:
    export(exported.model, tmp_path / "again")
    assert files(tmp_path / "again") == files(exported.folder)


def test_the_int8_graph_is_what_accelerators_take(exported: Exported) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = (exported.folder / INT8).read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    kinds = schema.TensorType
    assert {tensor.Type() for tensor in tensors} == {kinds.INT8, kinds.INT32}
    assert all(tensor.Quantization().ScaleLength() == 1 for tensor in tensors)
    assert all(tensor.ShapeAsNumpy()[0] == 1 for tensor in (tensors[0], tensors[-1]))
    constants = [tensor for tensor in tensors if model.Buffers(tensor.Buffer()).DataLength()]
    assert {tensor.Quantization().ZeroPoint(0) for tensor in constants} == {0}
    weights = [
        model.Buffers(tensor.Buffer()).DataAsNumpy().view(np.int8) for tensor in constants if tensor.Type() == kinds.INT8
    ]
    assert {(int(each.min()) >= -127, int(np.abs(each.astype(int)).max())) for each in weights} == {(True, 127)}
    assert model.OperatorCodes(0).Version() == 4
    starts = [content.find(model.Buffers(index).DataAsNumpy().tobytes()) for index in range(1, model.BuffersLength())]
    assert [start % 16 for start in starts] == [0] * len(starts)


def test_the_checker_and_arms_vela_take_all_of_int8_and_nothing_of_floats(exported: Exported) -> None:
    said = run("check", exported.folder / INT8)
    assert said.startswith("student_int8.tflite: FULL")
    assert "Arm's Vela, the second judge: 3 of 3" in said
    assert "student_float.tflite: REJECTED" in run("check", exported.folder / FLOAT, fails=1)


def computed(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Compute the int8 file's layers in Python's integers and return its output.

    A sum is multiplied by the ratio of the steps, which is a fraction of 31 bits and a shift, and rounded once, halves up.
    """
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)

    def told(index: int) -> tuple[float, int]:
        quantization = graph.Tensors(index).Quantization()
        return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))

    def constant(index: int, kind: type) -> np.ndarray:
        return model.Buffers(graph.Tensors(index).Buffer()).DataAsNumpy().view(kind).astype(np.int64)

    layer = inputs.astype(np.int64)
    for number in range(graph.OperatorsLength()):
        given, weights, biases = graph.Operators(number).InputsAsNumpy().tolist()
        out = graph.Operators(number).Outputs(0)
        (step, zero), (weight_step, _), (out_step, out_zero) = told(given), told(weights), told(out)
        matrix = constant(weights, np.int8).reshape(graph.Tensors(weights).ShapeAsNumpy())
        sums = (layer - zero) @ matrix.T + constant(biases, np.int32)
        fraction, exponent = np.frexp(step * weight_step / out_step)
        multiplier, shift = int(np.floor(fraction * 2**31 + 0.5)), 31 - int(exponent)
        high = [[(int(value) * multiplier + (1 << shift >> 1)) >> shift for value in row] for row in sums]
        is_last = number == graph.OperatorsLength() - 1
        layer = np.clip(np.array(high) + out_zero, -128 if is_last else max(out_zero, -128), 127)
    return layer


def test_the_kernels_compute_what_integers_say_on_every_row_and_xnnpack_the_same(exported: Exported) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = exported.folder / INT8
    student, rows = Student(path), exported.rows()
    step, zero = student._out_step, student._out_zero
    found, inputs = [], []
    for row in rows:
        found.append(np.rint(np.array(student.ask(row)) / step + zero))
        inputs.append(student._buffer[0].copy())
    assert np.array_equal(found, computed(path, np.array(inputs)))
    with_xnnpack = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN)
    with_xnnpack.resize_tensor_input(0, (len(rows), len(inputs[0])))
    with_xnnpack.allocate_tensors()
    with_xnnpack.set_tensor(0, np.array(inputs))
    with_xnnpack.invoke()
    assert np.array_equal(found, with_xnnpack.get_tensor(with_xnnpack.get_output_details()[0]["index"]))


def test_the_manifests_bound_is_one_step_of_the_output(exported: Exported) -> None:
    student, manifest = Student(exported.folder / INT8), read_edge_manifest(exported.folder)
    ask = student.ask
    told = [np.array(student.predict(row)) for row in exported.rows()]
    size = len(ask(exported.rows()[0]))
    chance = np.random.default_rng(0)
    student.ask = lambda row: (np.array(ask(row)) + student._out_step * chance.integers(-1, 2, size)).tolist()  # type: ignore[method-assign]
    off = max(np.abs(student.predict(row) - expected).max() for row, expected in zip(exported.rows(), told, strict=True))
    assert manifest.bound / 3 < off <= manifest.bound * (1 + 1e-9)


def test_the_manifests_samples_are_what_the_runner_says(exported: Exported) -> None:
    manifest, student = read_edge_manifest(exported.folder), Student(exported.folder / INT8)
    for sample in manifest.samples:
        cells = ["" if value is None else str(value) for value in sample["row"].values()]
        found, told = student.predict(student.read(cells)), sample["prediction"]
        assert found == pytest.approx(list(told["probabilities"].values()) if exported.manifest.labels else told)
    assert [sample["row"] for sample in manifest.samples] == [sample["row"] for sample in exported.manifest.samples]


# The same answers as the server


def asked(endpoint: Endpoint, exported: Exported) -> np.ndarray:
    """Ask a server about every row of the data set, in JSON."""
    features, names = exported.manifest.declaration.features, exported.manifest.declaration.feature_names
    rows = [
        dict(
            zip(names, (json_value(value, feature.choices) for value, feature in zip(row, features, strict=True)), strict=True)
        )
        for row in exported.rows()
    ]
    reply = endpoint.invoke(json.dumps({"instances": rows}).encode(), "application/json", "application/json")
    assert reply.status == 200, reply.text
    answers = json.loads(reply.body)["predictions"]
    return np.array([list(each["probabilities"].values()) if isinstance(each, dict) else [each] for each in answers])


def json_value(value: np.float32, choices: tuple[str, ...]) -> float | str | None:
    if np.isnan(value):
        return None
    return choices[int(value)] if choices else float(value)


@pytest.fixture(params=["housing", "birds"])
def served(request: pytest.FixtureRequest) -> tuple[Exported, np.ndarray]:
    """An export, and what the server of its model says of every row."""
    endpoint = request.getfixturevalue({"housing": "endpoint", "birds": "penguins"}[request.param])
    exported = request.getfixturevalue(request.param)
    return exported, asked(endpoint, exported)


def test_onnx_agrees_with_the_server_on_every_row(served: tuple[Exported, np.ndarray]) -> None:
    exported, expected = served
    found = load_teacher(exported.folder, exported.manifest)(exported.rows())
    assert len(found) == exported.manifest.data["train_rows"] + exported.manifest.data["validation_rows"]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_core_ml_of_the_model_agrees_with_the_server_on_every_row(served: tuple[Exported, np.ndarray]) -> None:
    from edge.export.coreml import read_package

    exported, expected = served
    found = read_package(exported.folder / COREML_MODEL)(exported.rows())
    assert len(found) == exported.manifest.data["train_rows"] + exported.manifest.data["validation_rows"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_core_ml_of_the_student_agrees_with_the_server_as_it_says_and_with_the_float_file_on_every_row(
    served: tuple[Exported, np.ndarray],
) -> None:
    from edge.export.coreml import read_package

    exported, expected = served
    found, entry = (
        read_package(exported.folder / COREML)(exported.rows()),
        read_edge_manifest(exported.folder).artifacts[COREML],
    )
    assert np.abs(found - expected).max() <= entry["largest_difference"] + 1e-5
    assert entry["student_difference"] < 1e-4
    floats = Student(exported.folder / FLOAT)
    told = np.array([floats.predict(row) for row in exported.rows()]).reshape(found.shape)
    np.testing.assert_allclose(found, told, rtol=0, atol=1e-4)


def test_the_runner_agrees_with_the_server_on_every_row(served: tuple[Exported, np.ndarray]) -> None:
    exported, expected = served
    for name in (INT8, FLOAT):
        student, entry = Student(exported.folder / name), read_edge_manifest(exported.folder).artifacts[name]
        found = np.array([student.predict(row) for row in exported.rows()]).reshape(expected.shape)
        assert np.abs(found - expected).max() <= entry["largest_difference"] + 1e-5


# The runner


def alone(folder: Path, *words: str | Path, fails: int = 0) -> tuple[str, str]:
    """Copy the runner to a folder, run it there without anything of ours, and return what it printed: stdout, stderr."""
    shutil.copy(ROOT / "edge" / "runner.py", folder)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE, folder / "runner.py", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == fails, done.stderr
    return done.stdout, done.stderr


ALONE = f"""
import runpy, sys
from importlib.machinery import PathFinder
sys.path.append({str(Path(np.__file__).parent.parent)!r})
class OnlyWhatADeviceHas:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {{"numpy", "ai_edge_litert", "flatbuffers"}}:
            raise ModuleNotFoundError(f"No module named {{top!r}}", name=top)
sys.meta_path.insert(0, OnlyWhatADeviceHas())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_runner_works_copied_to_a_device_and_tells_what_a_row_takes(housing: Exported, tmp_path: Path) -> None:
    shutil.copy(housing.folder / INT8, tmp_path)
    said, told = alone(tmp_path, INT8, "--row", ROW)
    bound = read_edge_manifest(housing.folder).artifacts[INT8]["largest_difference"]
    assert abs(float(said) - housing.manifest.samples[0]["prediction"]) <= bound
    assert re.search(r"^1 row, \d+\.\d us a row \(median\)$", told, re.MULTILINE)  # `make soak SECTIONS=edge` measures it
    assert told.count("\n") == 1


def test_the_runner_reads_names_in_any_order_and_files_with_a_header_or_without(housing: Exported, tmp_path: Path) -> None:
    model = housing.folder / INT8
    said, _ = alone(tmp_path, model, "--row", ROW)
    assert alone(tmp_path, model, "--row", "LSTAT=4.98,B=396.9,PTRATIO=15.3,TAX=296,RM=6.575,CHAS=0")[0] == said
    (tmp_path / "plain.csv").write_text(f"{ROW}\n{ROW}\n")
    (tmp_path / "named.csv").write_text("RM,CHAS,TAX,PTRATIO,B,LSTAT\n6.575,0,296,15.3,396.9,4.98\n")
    assert alone(tmp_path, model, "--csv", "plain.csv")[0] == said * 2
    assert alone(tmp_path, model, "--csv", "named.csv")[0] == said
    assert run("predict", model, "--row", ROW).startswith(said)


def test_the_runner_says_label_and_probabilities_and_takes_missing_values(birds: Exported, tmp_path: Path) -> None:
    said, _ = alone(tmp_path, birds.folder / INT8, "--row", "Torgersen,39.1,,181,NA,")
    assert re.fullmatch(r"Adelie \(Adelie (0\.9\d\d|1\.000), Chinstrap 0\.0\d\d, Gentoo 0\.0\d\d\)\n", said)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2", "Row 1 has 2 values; the model takes 6: island, bill_length_mm, "),
        ("Mars,39.1,18.7,181,3750,male", "Row 1, column island: 'Mars' is not one of its choices: Biscoe, Dream, Torgersen."),
        (",39.1,18.7,181,3750,male", "Row 1, column island: it is empty, null or NaN; a value was expected."),
        ("Dream,39_1,18.7,181,3750,male", "Row 1, column bill_length_mm: '39_1' is not a finite number of float32's range."),
        ("Dream,1e39,18.7,181,3750,male", "Row 1, column bill_length_mm: '1e39' is not a finite number of float32's range."),
        ("island=Dream,x=1", "Columns are missing: bill_length_mm, bill_depth_mm, "),
    ],
    ids=["width", "choice", "missing", "underscore", "large", "columns"],
)
def test_the_runner_names_row_and_column_of_what_it_cant_use(birds: Exported, tmp_path: Path, row: str, message: str) -> None:
    _, told = alone(tmp_path, birds.folder / INT8, "--row", row, fails=1)
    assert told.startswith(message)
    assert run("predict", birds.folder / INT8, "--row", row, fails=1).startswith(message)


def test_the_runner_says_what_a_file_that_isnt_ours_lacks(tmp_path: Path) -> None:
    (tmp_path / "other.tflite").write_bytes(b"no model at all")
    assert "is no TensorFlow Lite file" in alone(tmp_path, "other.tflite", "--row", "1", fails=1)[1]
    assert "can't be read: No such file or directory" in alone(tmp_path, "none.tflite", "--row", "1", fails=1)[1]


def test_a_delegate_that_is_not_there_is_said_in_two_lines(housing: Exported, tmp_path: Path) -> None:
    _, told = alone(tmp_path, housing.folder / INT8, "--row", ROW, "--delegate", "libnothing.so.1", fails=1)
    assert "libnothing.so.1 can't be loaded as an accelerator's delegate" in told
    assert "Without --delegate the CPU answers." in told


MIXED = Preprocessing(
    features=(
        Column("a", "number", low=-2, high=6),
        Column("b", "category", choices=("x", "y", "z")),
        Column("c", "number", nullable=True, low=0, high=0.5, fill=0.1),
        Column("d", "category", nullable=True, choices=("p",)),
        Column("e", "number", low=3, high=3),
    ),
    target="t",
    kind="number",
)


def test_all_encoders_come_to_what_the_contract_says() -> None:
    chance, nan = np.random.default_rng(0), float("nan")
    rows = [
        [chance.normal(2, 4), chance.integers(3), chance.choice([nan, 0.3, 9]), chance.choice([nan, 0]), 3] for _ in range(50)
    ]
    expected = [MIXED.encode(row) for row in rows]
    assert np.array_equal(encode(MIXED, np.array(rows)), np.array(expected))
    assert len(expected[0]) == MIXED.width == 3 + 1 + 3 + 2
    assert MIXED.encode([2, 1, nan, nan, 3]) == [0, pytest.approx(-0.6), 0, 1, 0, 1, 0, 0, 1]
    assert Preprocessing.from_json(json.loads(json.dumps(MIXED.to_json()))) == MIXED


def test_the_runner_encodes_as_the_contract_says(exported: Exported) -> None:
    """It quantizes what it encodes: both are told by the interpreter's input."""
    student, preprocessing = Student(exported.folder / INT8), read_edge_manifest(exported.folder).preprocessing
    assert Preprocessing.from_json(preprocessing_in((exported.folder / INT8).read_bytes(), exported.folder)) == preprocessing
    for row in exported.rows()[::5]:
        student.predict(row)
        integers = np.rint(np.array(preprocessing.encode(row.tolist())) * 127)
        assert np.array_equal(student._buffer[0], integers)


# Failing


def broken(model: Path, **changed: object) -> Path:
    document = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**document, **changed}))
    return model


def test_outside_the_tolerance_nothing_is_left_and_an_earlier_export_stays(housing: Exported, tmp_path: Path) -> None:
    before = files(housing.folder)
    said = run("export", "tflite", "--model", housing.model, "--student-loss", "0", fails=2)
    assert re.search(
        r"The student's R2 on held-out rows is 0\.\d+, where at least 0\.\d+ was expected: the model's is 0\.\d+\.", said
    )
    assert files(housing.folder) == before
    with pytest.raises(ExportFailed, match=r"student_int8.tflite has an R2 of 0\.\d+ on held-out rows, where at least 1\.\d+"):
        export(housing.model, tmp_path / "new", ["tflite"], tolerance=Tolerance(int8=-1))
    assert not (tmp_path / "new").exists()
    with pytest.raises(ExportFailed, match=r"student_float.tflite is .* off what it was made of"):
        export(housing.model, tmp_path / "new", ["tflite"], tolerance=Tolerance(float=0))
    assert not (tmp_path / "new").exists()


def test_files_of_others_stay_and_stale_ones_of_ours_go(housing: Exported, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(housing.folder, out)
    (out / ".export.killed.sagemaker-ignore").mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "student_int8_edgetpu.tflite").write_text("of an earlier student")
    (out / FLOAT).unlink()
    (out / FLOAT).symlink_to(out / "notes.txt")
    export(housing.model, out, ["onnx"])
    assert {path.name for path in out.iterdir()} == {"notes.txt", ONNX, EDGE}
    assert (out / "notes.txt").read_text() == "mine"


def write_own(name: str) -> Callable[[Path], object]:
    return lambda out: (out / name).write_text('{"mine": 1}')


@pytest.mark.parametrize(
    ("name", "write"),
    [
        (ONNX, write_own(ONNX)),
        (COREML, lambda out: (out / COREML).symlink_to(out / "elsewhere")),
        (EDGE, write_own(EDGE)),
    ],
    ids=["model.onnx", "symlink", "edge.json"],
)
def test_a_file_that_no_export_wrote_is_not_replaced(
    housing: Exported, tmp_path: Path, name: str, write: Callable[[Path], object]
) -> None:
    write(tmp_path)
    before = files(tmp_path)
    said = run("export", "--model", housing.model, "--out", tmp_path, fails=1)
    assert said.startswith(f"{tmp_path} holds {name}, which no export wrote: no edge.json there lists it. Move it away")
    assert files(tmp_path) == before
    assert os.path.lexists(tmp_path / name)


def test_a_trained_model_is_not_exported_over(housing: Exported, birds: Exported, tmp_path: Path) -> None:
    model = copied(housing.model, tmp_path)
    before = files(model)
    (tmp_path / "link").symlink_to(model)
    for out in (model, tmp_path / "link"):
        said = run("export", "tflite", "--model", birds.model, "--out", out, fails=1)
        assert "holds manifest.json: a trained model, whose model.onnx an export would replace." in said
    assert files(model) == before


@pytest.mark.parametrize("stop", [*range(6)])
def test_killed_while_files_take_their_places_it_leaves_no_export_and_the_next_one_replaces_it(
    housing: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    from edge.export import output

    shutil.copytree(housing.folder, tmp_path / "out")
    new = tmp_path / "out" / "new"
    shutil.copytree(housing.folder, new)
    calls = iter(range(9))

    def remove(path: Path) -> None:
        if next(calls) == stop:
            raise KeyboardInterrupt
        removing(path)

    removing = output._remove
    monkeypatch.setattr(output, "_remove", remove)
    names = [ONNX, INT8]
    with pytest.raises(KeyboardInterrupt):
        output.place(new, tmp_path / "out", names)
    with pytest.raises(DamagedModel, match="has schema 'unfinished'; 1 is read here"):
        read_edge_manifest(tmp_path / "out")
    output.check_output(tmp_path / "out")


def test_of_two_exports_at_once_the_second_says_so(housing: Exported, tmp_path: Path) -> None:
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    said = run("export", "onnx", "--model", housing.model, "--out", tmp_path, fails=1)
    os.close(held)
    assert said.splitlines()[-1] == (
        f"Another export is writing to {tmp_path}. Wait for its end, or name another folder: --out DIR."
    )
    assert list(tmp_path.iterdir()) == []
    export(housing.model, tmp_path, ["onnx"])


@pytest.mark.parametrize(("kind", "limit"), [("onnx", 100_000), ("coreml", 1_024)])
def test_a_full_disk_is_a_message(housing: Exported, tmp_path: Path, kind: str, limit: int) -> None:
    command = [sys.executable, "-B", "-m", "edge", "export", kind, "--model", housing.model, "--out", tmp_path / "out"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert re.fullmatch(rf"Nothing can be written to {tmp_path}/out \(.+\). Is there room, .* --out DIR.\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_coremltools_leaves_nothing_outside_the_exports_folder(
    housing: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "not to be used"))
    export(housing.model, tmp_path / "out", ["coreml"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {COREML, COREML_MODEL, EDGE}


def test_onnx_alone_teaches_no_student(housing: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.export.export.teach", None)
    told = export(housing.model, tmp_path / "out", ["onnx"], tolerance=Tolerance(student=-9))
    assert read_edge_manifest(tmp_path / "out", housing.manifest) == told
    assert (told.preprocessing, told.quantization, told.samples, told.bound) == (None, {}, (), 0)
    assert "student" not in told.data
    assert "student_difference" not in told.artifacts[ONNX]


@pytest.mark.parametrize("option", ["--student-loss=nan", "--student-loss=-1", "--int8-loss=inf"])
def test_a_loss_is_a_finite_number_from_zero(option: str) -> None:
    assert "isn't a finite number of at least 0." in run("export", option, fails=2)


def test_rows_that_the_model_was_not_trained_on_are_refused(housing: Exported, tmp_path: Path) -> None:
    text = next(SAMPLE.glob("*.csv")).read_text()
    (tmp_path / "rows.csv").write_text(text.replace("6.575", "6.574", 1))
    said = run("export", "--model", housing.model, "--data", tmp_path / "rows.csv", fails=1)
    assert "isn't what this model was trained on: 404 rows with the sha256 " in said
    assert "Give the channel of its training job: --data DIR" in said


def test_where_nothing_can_be_written_the_message_says_what_to_do(housing: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BadArtifact, match=r"Nothing can be written to .*file/edge \(Not a directory\). Is there room, .*: --out DIR"
    ):
        export(housing.model, tmp_path / "file" / "edge", ["onnx"])


def test_a_model_of_several_hosts_is_refused(housing: Exported, tmp_path: Path) -> None:
    model = copied(housing.model, tmp_path)
    about = {**json.loads((model / MANIFEST).read_text())["data"], "hosts": {"algo-1": 200, "algo-2": 204}}
    with pytest.raises(BadData, match="This model was trained on 2 hosts, each of which split its own rows"):
        export(broken(model, data=about))


def test_without_rows_the_message_says_how_to_give_them(housing: Exported, tmp_path: Path) -> None:
    shutil.copytree(housing.model, tmp_path / "model")
    assert "Give the one that the model was trained on: --data DIR." in run("export", "--model", tmp_path / "model", fails=1)


def test_a_model_that_onnx_cant_say_is_refused(housing: Exported, tmp_path: Path) -> None:
    model = copied(housing.model, tmp_path)
    only = {name: entry for name, entry in json.loads((model / MANIFEST).read_text())["files"].items() if name != ONNX}
    said = run("export", "--model", broken(model, files=only), fails=2)
    assert "has no model.onnx: the model was trained with allow_sklearn=true" in said


def test_what_a_library_is_missing_for_is_left_out_aloud_and_all_insists(
    housing: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "coremltools", None)
    export(housing.model, tmp_path / "out")
    message = "coremltools isn't installed, which this needs. Run `.ci/venv .venv export` and call .venv/bin/python."
    assert f"export: coreml is LEFT OUT: {message}" in capsys.readouterr().out
    assert read_edge_manifest(tmp_path / "out").left_out == {"coreml": message}
    with pytest.raises(MissingLibrary, match=re.escape(message)):
        export(housing.model, tmp_path / "all", list(EXPORTERS))
    assert not (tmp_path / "all").exists()


def test_a_float_package_of_unknown_operations_is_not_called_verified(
    housing: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge.export import coreml

    monkeypatch.setattr(coreml, "OPERATIONS", {name: does for name, does in coreml.OPERATIONS.items() if name != "clip"})
    with pytest.raises(ExportFailed, match="holds the operations clip, which can't be verified here"):
        coreml.read_package(housing.folder / COREML)


def test_coremltools_says_nothing_on_the_terminal(housing: Exported) -> None:
    assert all(line.startswith("export: ") for line in housing.said.splitlines())


# The manifest


def change(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(INT8), "student_int8.tflite has sha256 "),
        (lambda folder: (folder / FLOAT).write_bytes(b""), "student_float.tflite has size_bytes 0 where edge.json says "),
        (lambda folder: (folder / FLOAT).unlink(), "student_float.tflite can't be read"),
        (lambda folder: (folder / COREML / "more").write_text(""), "student.mlpackage has sha256 "),
        (lambda folder: (folder / EDGE).unlink(), "Export first: `make export`"),
        (lambda folder: (folder / EDGE).write_text("{}"), "is not a manifest that `export` wrote"),
        (lambda folder: (folder / EDGE).write_text('{"schema": 2}'), "has schema 2; 1 is read here"),
    ],
    ids=["changed", "emptied", "gone", "more", "no manifest", "no fields", "another schema"],
)
def test_a_damaged_export_is_refused(housing: Exported, tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    shutil.copytree(housing.folder, tmp_path / "edge")
    damage(tmp_path / "edge")
    with pytest.raises(DamagedModel, match=re.escape(message)):
        read_edge_manifest(tmp_path / "edge")


def test_an_export_of_another_model_is_refused(housing: Exported, birds: Exported) -> None:
    with pytest.raises(DamagedModel, match="was exported from another model than the one beside it"):
        read_edge_manifest(housing.folder, birds.manifest)


def test_a_manifest_that_names_files_elsewhere_is_refused(housing: Exported, tmp_path: Path) -> None:
    shutil.copytree(housing.folder, tmp_path / "edge")
    text = (tmp_path / "edge" / EDGE).read_text()
    (tmp_path / "edge" / EDGE).write_text(text.replace(f'"{ONNX}"', f'"../{ONNX}"'))
    with pytest.raises(DamagedModel, match="outside the folder"):
        read_edge_manifest(tmp_path / "edge")


# The rows


def sample_lines() -> list[list[str]]:
    (source,) = SAMPLE.glob("*.csv")
    return list(csv.reader(source.read_text().splitlines()))


def write_plain(folder: Path) -> None:
    header, *rows = sample_lines()
    order = [header.index(name) for name in ("MEDV", "CHAS", "RM", "TAX", "PTRATIO", "B", "LSTAT")]
    (folder / "part-00000").write_text("".join(",".join(row[at] for at in order) + "\n" for row in rows))


def write_parts(folder: Path) -> None:
    header, *rows = sample_lines()
    (folder / "b").mkdir()
    for name, part in (("a.csv.gz", rows[:99]), ("b/c.csv", rows[99:])):
        text = "\r\n".join(",".join(f'"{cell}"' for cell in row) for row in [header, *part])
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    (folder / "README.md").write_text("no rows")
    (folder / "_SUCCESS").write_text("neither")


@pytest.mark.parametrize("write", [write_plain, write_parts], ids=["no header", "parts, gzip, quotes"])
def test_a_channel_is_read_as_training_reads_it(housing: Exported, tmp_path: Path, write: Callable[[Path], None]) -> None:
    from training.read import read_channel

    write(tmp_path)
    expected = read_channel(Channel("training", tmp_path, "text/csv"), housing.manifest.declaration)
    found = read_table(tmp_path, housing.manifest)
    assert found.fingerprint() == expected.fingerprint()
    assert len(found) == 506


def test_bad_rows_are_dropped_where_training_dropped_them_and_an_error_elsewhere(birds: Exported, tmp_path: Path) -> None:
    from training.read import read_channel

    (source,) = (birds.model.parent / "input" / "data" / "training").glob("*.csv")
    (tmp_path / "rows.csv").write_text(source.read_text().replace("Torgersen,39.1,", "Mars,39.1,", 1))
    with pytest.raises(BadData, match=r"rows.csv row 1: column island: 'Mars' can't be used"):
        read_table(tmp_path, birds.manifest)
    expected = read_channel(Channel("training", tmp_path, "text/csv"), birds.manifest.declaration, drop=True)
    assert read_table(tmp_path, birds.manifest, drop=True).fingerprint() == expected.fingerprint()


def test_a_channel_without_csv_or_without_a_column_is_an_error(housing: Exported, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("PAR1")
    with pytest.raises(BadChannel, match=r"holds rows.parquet; the CSV files that the model was trained on were expected"):
        read_table(tmp_path, housing.manifest)
    (tmp_path / "rows.csv").write_text("CHAS,RM,TAX\n0,6,300\n")
    with pytest.raises(SchemaMismatch, match="has no column PTRATIO, B, LSTAT, MEDV"):
        read_table(tmp_path, housing.manifest)


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An /opt/ml whose model had a validation channel."""
    tmp_path = tmp_path_factory.mktemp("validated")
    header, *rows = sample_lines()
    for name, part in (("training", rows[::2]), ("validation", rows[1::2])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("\n".join(",".join(row) for row in [header, *part]))
    channels = {name: tmp_path / name for name in ("training", "validation")}
    lay_out(tmp_path / "ml", channels, {"estimator": "ridge"})
    outcome = train(Processes(), tmp_path / "ml")
    assert outcome.exit_code == 0, outcome.output
    return tmp_path / "ml"


def test_a_model_with_a_validation_channel_is_exported_with_it(validated: Path, tmp_path: Path) -> None:
    shutil.copytree(validated / "input" / "data", tmp_path / "moved")
    manifest = export(validated / "model", tmp_path / "out", ["tflite"], training=tmp_path / "moved" / "training")
    assert (manifest.data["train_rows"], manifest.data["validation_rows"]) == (253, 253)
    assert manifest.data["student"]["r2"] > manifest.data["teacher"]["r2"] - 0.02


def test_another_validation_channel_of_as_many_rows_is_refused(validated: Path, tmp_path: Path) -> None:
    (source,) = (validated / "input" / "data" / "validation").glob("*.csv")
    text = source.read_text()
    (tmp_path / "rows.csv").write_text(text)
    export(validated / "model", tmp_path / "out", ["onnx"], validation=tmp_path / "rows.csv")
    header, row, _, *rest = text.splitlines()
    (tmp_path / "rows.csv").write_text("\n".join([header, row, row, *rest]))
    with pytest.raises(
        BadData, match=r"The rows held out aren't those of this model's training: its \w+ on them is .*--validation"
    ):
        export(validated / "model", tmp_path / "out", ["onnx"], validation=tmp_path / "rows.csv")


def test_held_out_rows_that_were_changed_are_refused(birds: Exported, tmp_path: Path) -> None:
    model = copied(birds.model, tmp_path)
    (source,) = (tmp_path / "input" / "data" / "training").glob("*.csv")
    data = read_data(birds.manifest, source, source)
    lines = source.read_text().splitlines()
    rows = read_table(source, birds.manifest)
    at = next(index for index, row in enumerate(rows.matrix) if (data.held_out.matrix == row).all(axis=1).any())
    source.write_text("\n".join([*lines[: at + 1], re.sub(r",\d+\.\d+,", ",70.5,", lines[at + 1], count=1), *lines[at + 2 :]]))
    with pytest.raises(BadData, match="The rows held out aren't those of this model's training: its log_loss on them is"):
        export(model, kinds=["onnx"])


def test_without_its_validation_channel_the_message_names_the_option(validated: Path, tmp_path: Path) -> None:
    shutil.copytree(validated / "input" / "data" / "training", tmp_path / "training")
    with pytest.raises(BadChannel, match=rf"{tmp_path}/validation holds no file; .* Name their folder: --validation DIR"):
        export(validated / "model", training=tmp_path / "training")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b,c,y\n1,x,2,3\n4,y,,5\n",
        b"\xef\xbb\xbf3,1,x,2\n5,4,y,\n",
        b"a,b,c,y\r\n1,x,2,3\r\n4,y,,5\r\n",
        b"a,b,c,y\r1,x,2,3\r4,y,,5\r",
        b'"a","b","c","y"\n"1","x","2","3"\n"4","""q"", r","","5"\n',
        b'a,b,c,y\n1,"x\nz",2,3\n4,y,,5\n',
        b" a , b, c ,y\n 1 , x ,2 , 3\n4, y , , 5 \n",
        b"more,y,c,b,a,last\nm,3,2,x,1,\n,5,,y,4,l\n",
        b"a,b,y,c\n1,x,3,2\n4,y,5\n",
        b"a,b,c,y\n\n1,x,2,3\n\n  \n4,y,,5\n\n \n",
        b"a,b,c,y\n1,x,2,3\n4,y,NA,5",
        b"a,b,c,y\n1,x,2,0.1234567890123456789\n4,y,null,1e-300\n",
    ],
    ids=[
        "mark",
        "mark, no header",
        "CRLF",
        "CR",
        "quotes",
        "line in quotes",
        "spaces",
        "more columns",
        "short row",
        "blank lines",
        "no end",
        "digits",
    ],
)
def test_odd_csv_is_read_as_training_reads_it(tmp_path: Path, birds: Exported, content: bytes) -> None:
    from training.read import read_channel

    features = (
        Feature("a", "A"),
        Feature("b", "B", kind="category", choices=("x", "y", '"q", r', "x\nz")),
        Feature("c", "C", nullable=True),
    )
    declaration = replace(birds.manifest.declaration, features=features, target=Target("y", "Y"))
    (tmp_path / "rows.csv").write_bytes(content)
    expected = read_channel(Channel("training", tmp_path, "text/csv"), declaration)
    found = read_table(tmp_path, replace(birds.manifest, declaration=declaration))
    assert len(found) == 2
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    np.testing.assert_array_equal(found.target, expected.target)


@pytest.mark.parametrize("row", ["1,2", "1,2,3,4,5,6,7,8,9"])
def test_a_row_of_another_width_is_told_with_its_cells(housing: Exported, tmp_path: Path, row: str) -> None:
    (tmp_path / "rows.csv").write_text(f"MEDV,CHAS,RM,TAX,PTRATIO,B,LSTAT\n{row}\n")
    with pytest.raises(BadData, match=rf"rows.csv row 1: it has {row.count(',') + 1} cells where 7 were expected"):
        read_table(tmp_path, housing.manifest)


def test_the_largest_number_is_trainings_here_and_the_servers_in_the_runner() -> None:
    import edge.export.rows
    import edge.runner
    import serving.cells
    import training.columns

    assert edge.export.rows.LARGEST == training.columns.LARGEST
    assert edge.runner.LARGEST == serving.cells.LARGEST
    assert np.float32(np.nextafter(edge.runner.LARGEST, 0)) == np.float32(edge.export.rows.LARGEST)


# The student


def test_a_student_of_many_classes_is_as_good_as_its_teacher_whose_probabilities_it_learns() -> None:
    from edge.export.student import answers_of

    chance = np.random.default_rng(0)
    centers = 3 * chance.normal(size=(30, 6))
    labels = tuple(f"c{index}" for index in range(30))

    def teacher(matrix: np.ndarray) -> np.ndarray:
        return answers_of(-np.square(matrix[:, None] - centers).sum(axis=2) / 2, replace(MIXED, kind="class"))

    matrix = (centers[chance.integers(0, 30, 1200)] + chance.normal(size=(1200, 6))).astype(np.float32)
    student = taught(labels, teacher, matrix)
    rows = (centers[chance.integers(0, 30, 600)] + chance.normal(size=(600, 6))).astype(np.float32)
    told, found = teacher(rows), student.answer(rows)
    assert (told.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.95
    assert np.abs(told - found).mean() < 0.005


@pytest.mark.parametrize("absent", [False, True])
def test_a_student_of_two_classes_has_two_logits(absent: bool) -> None:
    def teacher(matrix: np.ndarray) -> np.ndarray:
        share = np.zeros(len(matrix)) if absent else 1 / (1 + np.exp(-2 * matrix[:, 0]))
        return np.column_stack([share, 1 - share])

    matrix = np.random.default_rng(0).normal(size=(300, 1)).astype(np.float32)
    student = taught(("no", "yes"), teacher, matrix)
    assert student.weights[-1].shape[1] == 2
    assert np.abs(teacher(matrix) - student.answer(matrix)).max() < 0.1


def test_ctrl_c_while_a_student_learns_is_no_student(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sklearn.neural_network._stochastic_optimizers.AdamOptimizer.update_params", interrupted)
    with pytest.raises(KeyboardInterrupt):
        taught(("no", "yes"), lambda matrix: np.full((len(matrix), 2), 0.5), np.ones((9, 1), dtype=np.float32))


def taught(labels: tuple[str, ...], teacher: Callable[[np.ndarray], np.ndarray], matrix: np.ndarray) -> Any:
    """Return the student of a function, of numbers a, b, .."""
    from edge.export.student import teach

    features = tuple(Feature(name, name) for name in "abcdefgh"[: matrix.shape[1]])
    declaration = Declaration("d", "D", "A.", features, Target("y", "Y", kind="class", labels=labels), ())
    manifest = Manifest(declaration, labels, (), {}, {}, {}, {}, {}, {}, {})
    return teach(manifest, teacher, matrix)[0]


@pytest.mark.parametrize(
    "labels", [(), ("no", "yes"), ("low", "middle", "high")], ids=["a number", "two labels", "three labels"]
)
@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "lightgbm", "random_forest", "ridge", "mlp"])
def test_every_estimator_can_be_said_in_core_ml(tmp_path: Path, estimator: str, labels: tuple[str, ...]) -> None:
    from edge.export import coreml

    declaration = replace(MODEL, features=SOME, target=Target("T", "", "class" if labels else "number", labels=labels))
    chance = np.random.default_rng(0)
    rows = np.column_stack([chance.normal(size=(400, 2)), chance.integers(0, 3, 400)]).astype(np.float32)
    target = rows[:, 0] + np.abs(rows[:, 1]) * rows[:, 2]
    rows[chance.random(400) < 0.2, 1] = rows[chance.random(400) < 0.1, 2] = np.nan
    if labels:
        target = np.array(labels)[np.digitize(target, np.quantile(target, np.arange(1, len(labels)) / len(labels)))]
    values = {knob.name: knob.default for knob in MODEL.hyperparameters} | {"estimator": estimator, "max_iter": 20}
    pipeline = build_pipeline(declaration, values).fit(rows, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx's
        content = to_onnx(pipeline, rows, 1.0 if labels else float(target.std())).onnx
    (tmp_path / ONNX).write_bytes(content)
    manifest = SimpleNamespace(declaration=declaration, labels=labels, files={ONNX: {"sha256": "0" * 64}})
    coreml.write_model(manifest, content, tmp_path / COREML_MODEL)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(content)
    expected = session.run([session.get_outputs()[-1].name], {"features": rows})[0].reshape(len(rows), -1)
    found = coreml.read_package(tmp_path / COREML_MODEL)(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_core_ml_cannot_say_is_left_out_aloud(
    housing: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge.export import translation

    monkeypatch.setattr(translation, "OPERATORS", {})
    manifest = export(housing.model, tmp_path / "out", ["coreml"])
    why = "the operator TreeEnsembleRegressor can't be said in Core ML here"
    assert manifest.left_out == {COREML_MODEL: why}
    assert list(manifest.artifacts) == [COREML]
    assert f"export: {COREML_MODEL} is LEFT OUT: {why}\n" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {COREML, EDGE}


@pytest.mark.parametrize(("mean", "deviation"), [(5.0, 1.0), (0.0, 1.0), (5.0, 2.0)])
def test_core_ml_takes_a_target_of_any_spread(tmp_path: Path, mean: float, deviation: float) -> None:
    from edge.export import coreml
    from edge.export.student import Student as Taught

    chance = np.random.default_rng(0)
    weights = (chance.normal(size=(MIXED.width, 4)), chance.normal(size=(4, 1)))
    student = Taught(replace(MIXED, mean=mean, deviation=deviation), weights, (np.ones(4), np.ones(1)))
    coreml.write_package(student, tmp_path / COREML)
    rows = np.array([[1, 2, np.nan, 0, 3], [-9, 0, 0.4, np.nan, 3]], dtype=np.float32)
    np.testing.assert_allclose(coreml.read_package(tmp_path / COREML)(rows), student.answer(rows), rtol=1e-5)


# Figures


def test_figures_are_scikit_learns() -> None:
    from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, r2_score

    chance = np.random.default_rng(1)
    target, answers = chance.normal(size=40), chance.normal(size=(40, 1))
    found = score(answers, target, ())
    assert found == pytest.approx({"r2": r2_score(target, answers), "mae": mean_absolute_error(target, answers[:, 0])})
    labels = np.array(["a", "b", "c"])[chance.integers(0, 3, 40)]
    shares = chance.dirichlet([1, 1, 1], 40)
    chosen = np.array(["a", "b", "c"])[shares.argmax(axis=1)]
    expected = {"accuracy": accuracy_score(labels, chosen), "log_loss": log_loss(labels, shares)}
    assert score(shares, labels, ("a", "b", "c")) == pytest.approx(expected)


def test_the_table_of_make_soak_has_a_models_figures(tmp_path: Path) -> None:
    _, _, columns, ((*told,),) = on_devices(SAMPLE, tmp_path, ["ridge"], folds=0)
    assert columns == COLUMNS
    assert len(told) == len(columns)
    assert told[:3] == ["ridge", "held out", "0.502"]
    assert abs(float(told[8])) <= 0.02
    assert float(told[10]) < 20


def test_core_ml_takes_raw_rows_and_its_package_names_nothing_of_the_day(birds: Exported) -> None:
    content = b"".join(files(birds.folder / COREML).values())
    assert b"conversion_date" not in content
    assert b"a category as the index of its choice, a missing value as -3e+38" in content
