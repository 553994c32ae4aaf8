"""What `export` makes of a trained model for devices: files that are read back here, by others' readers where there are any."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, SAMPLE

from contract.edge import COREML, EDGE, FLOAT, INT8, Column, Preprocessing, read_edge_manifest
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
    assert list(manifest.artifacts) == [ONNX, INT8, FLOAT, COREML]
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


def test_reference_kernels_say_the_same_within_the_manifests_bound(exported: Exported) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    student, manifest = Student(exported.folder / INT8), read_edge_manifest(exported.folder)
    rows = exported.rows()[:100]
    found = np.array([student.predict(row) for row in rows])
    student._interpreter = Interpreter(
        str(exported.folder / INT8), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF
    )
    student._interpreter.allocate_tensors()
    assert np.abs(np.array([student.predict(row) for row in rows]) - found).max() <= manifest.bound


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


def test_core_ml_agrees_with_the_server_and_with_the_student_on_every_row(served: tuple[Exported, np.ndarray]) -> None:
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


def test_the_runner_works_copied_to_a_device_and_takes_below_20_microseconds_a_row(housing: Exported, tmp_path: Path) -> None:
    shutil.copy(housing.folder / INT8, tmp_path)
    said, told = alone(tmp_path, INT8, "--row", ROW)
    bound = read_edge_manifest(housing.folder).artifacts[INT8]["largest_difference"]
    assert abs(float(said) - housing.manifest.samples[0]["prediction"]) <= bound
    (microseconds,) = re.findall(r"^1 row, ([\d.]+) us a row \(median\)$", told, re.MULTILINE)
    assert float(microseconds) < 20
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
    assert re.fullmatch(r"Adelie \(Adelie 0\.9\d\d, Chinstrap 0\.0\d\d, Gentoo 0\.0\d\d\)\n", said)


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
    said = run("export", "tflite", "--model", housing.model, "--student-loss", "-1", fails=2)
    assert re.search(
        r"The student's R2 on held-out rows is 0\.\d+, where at least 1\.\d+ was expected: the model's is 0\.\d+\.", said
    )
    assert files(housing.folder) == before
    with pytest.raises(ExportFailed, match=r"student_int8.tflite has an R2 of 0\.\d+ on held-out rows, where at least 1\.\d+"):
        export(housing.model, tmp_path / "new", ["tflite"], tolerance=Tolerance(int8=-1))
    assert not (tmp_path / "new").exists()
    with pytest.raises(ExportFailed, match=r"student_float.tflite is .* off what it was made of"):
        export(housing.model, tmp_path / "new", ["tflite"], tolerance=Tolerance(float=0))
    assert not (tmp_path / "new").exists()


def test_files_of_others_stay_and_stale_ones_of_ours_go(birds: Exported, tmp_path: Path) -> None:
    (tmp_path / ".export.killed.sagemaker-ignore").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "student_int8_edgetpu.tflite").write_text("of an earlier student")
    export(birds.model, tmp_path, ["onnx"])
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ONNX, EDGE}


def test_rows_that_the_model_was_not_trained_on_are_refused(housing: Exported, tmp_path: Path) -> None:
    text = next(SAMPLE.glob("*.csv")).read_text()
    (tmp_path / "rows.csv").write_text(text.replace("6.575", "6.574", 1))
    said = run("export", "--model", housing.model, "--data", tmp_path / "rows.csv", fails=1)
    assert "isn't what this model was trained on: 404 rows with the sha256 " in said
    assert "Give the channel of its training job: --data DIR" in said


def test_where_nothing_can_be_written_the_message_says_what_to_do(housing: Exported, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BadArtifact, match=r"Nothing can be written to .*file/edge \(Not a directory\). Name another folder: --out"
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


def test_a_model_with_a_validation_channel_is_exported_with_it(tmp_path: Path) -> None:
    header, *rows = sample_lines()
    for name, part in (("training", rows[::2]), ("validation", rows[1::2])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.csv").write_text("\n".join(",".join(row) for row in [header, *part]))
    channels = {name: tmp_path / name for name in ("training", "validation")}
    lay_out(tmp_path / "ml", channels, {"estimator": "ridge"})
    outcome = train(Processes(), tmp_path / "ml")
    assert outcome.exit_code == 0, outcome.output
    manifest = export(tmp_path / "ml" / "model", kinds=["tflite"])
    assert (manifest.data["train_rows"], manifest.data["validation_rows"]) == (253, 253)
    assert manifest.data["student"]["r2"] > manifest.data["teacher"]["r2"] - 0.02


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
