"""contract/: what a platform writes is read in every spelling it comes in, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from contract import cgroup
from contract.cells import is_missing, read_number
from contract.declaration import Declaration, Feature, Hyperparameter, Target, check
from contract.errors import BadChannel, BadConfig, BadDeclaration, BadHyperparameters, BadSetting, DamagedModel
from contract.files import replacing, sha256, write_text
from contract.hyperparameters import ignored_hyperparameters, parse_hyperparameters
from contract.job import TRAINING, VALIDATION, read_job
from contract.manifest import JOBLIB, MANIFEST, ONNX, Manifest, read_manifest, write_manifest, write_model
from contract.metrics import metric_line, metric_regex, report_metric
from contract.paths import Paths
from contract.settings import read_choice, read_flag, read_integer
from model import DECLARATION

KNOBS = (
    Hyperparameter("kind", "a word", "categorical", "oak", choices=("oak", "5", "true")),
    Hyperparameter("rounds", "a count", "integer", 10, (1, 100)),
    Hyperparameter("rate", "a share", "continuous", 0.5, (0.0, 1.0), estimators=("oak",)),
    Hyperparameter("keep", "a switch", "boolean", False),
)
DECLARED = Declaration(
    name="trees-1",
    title="Trees",
    about="Made up.",
    features=(
        Feature("HEIGHT", "how high", unit="m", range=(0, 100)),
        Feature("SOIL", "what below", kind="category", choices=("clay", "NA"), nullable=True),
    ),
    target=Target("SPECIES", "which", kind="class", labels=("ash", "oak")),
    hyperparameters=KNOBS,
)

# Hyperparameters


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        pytest.param("rounds", "5", 5, id="str() of a number"),
        pytest.param("rounds", '"5"', 5, id="JSON text"),
        pytest.param("rounds", '"\\"5\\""', 5, id="JSON text in JSON text"),
        pytest.param("rounds", "5.0", 5, id="a whole number as tuning sends it"),
        pytest.param("rounds", "1e1", 10, id="exponent"),
        pytest.param("rounds", " 5 ", 5, id="spaces around"),
        pytest.param("rate", "1", 1.0, id="a whole number for a continuous one"),
        pytest.param("rate", '"0.25"', 0.25, id="continuous as JSON text"),
        pytest.param("rate", "0", 0.0, id="the lower bound"),
        pytest.param("keep", "true", True, id="JSON true"),
        pytest.param("keep", "True", True, id="Python's True"),
        pytest.param("keep", '"true"', True, id="true as JSON text"),
        pytest.param("keep", '"False"', False, id="Python's False as JSON text"),
        pytest.param("kind", "oak", "oak", id="raw text"),
        pytest.param("kind", '"oak"', "oak", id="quoted text"),
        pytest.param("kind", "5", "5", id="a choice that looks like a number"),
        pytest.param("kind", '"true"', "true", id="a choice that looks like a boolean, quoted"),
    ],
)
def test_a_hyperparameter_means_the_same_in_every_spelling(name: str, text: str, value: object) -> None:
    parsed = parse_hyperparameters({name: text}, KNOBS)[name]
    assert (parsed, type(parsed)) == (value, type(value))


def test_what_is_not_given_has_its_default() -> None:
    assert parse_hyperparameters({}, KNOBS) == {"kind": "oak", "rounds": 10, "rate": 0.5, "keep": False}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        pytest.param("rounds", "5.5", "a whole number from 1 to 100", id="a fraction for an integer"),
        pytest.param("rounds", "0", "a whole number from 1 to 100", id="below"),
        pytest.param("rounds", "101", "a whole number from 1 to 100", id="above"),
        pytest.param("rounds", "true", "a whole number from 1 to 100", id="a boolean for a number"),
        pytest.param("rounds", "", "a whole number from 1 to 100", id="empty"),
        pytest.param("rounds", "[5]", "a whole number from 1 to 100", id="a list"),
        pytest.param("rounds", "null", "a whole number from 1 to 100", id="null"),
        pytest.param("rounds", "9" * 400, "a whole number from 1 to 100", id="an integer beyond float64"),
        pytest.param("rounds", "9" * 5_000, "a whole number from 1 to 100", id="more digits than Python reads"),
        pytest.param("rate", "NaN", "a number from 0 to 1", id="NaN"),
        pytest.param("rate", "Infinity", "a number from 0 to 1", id="infinity"),
        pytest.param("rate", "-Infinity", "a number from 0 to 1", id="minus infinity"),
        pytest.param("rate", "1e999", "a number from 0 to 1", id="beyond float64"),
        pytest.param("rate", "1.0001", "a number from 0 to 1", id="a little above"),
        pytest.param("keep", "1", "true or false", id="1 for a boolean"),
        pytest.param("keep", "yes", "true or false", id="yes for a boolean"),
        pytest.param("kind", "elm", "one of oak, 5, true", id="no such choice"),
        pytest.param("kind", "Oak", "one of oak, 5, true", id="another case"),
        pytest.param("kind", "[" * 100_000, "one of oak, 5, true", id="deep nesting"),
    ],
)
def test_a_hyperparameter_out_of_bounds_says_what_it_takes(name: str, text: str, expected: str) -> None:
    with pytest.raises(BadHyperparameters) as caught:
        parse_hyperparameters({name: text}, KNOBS)
    assert f"it takes {expected}." in caught.value.message
    assert caught.value.message.startswith(f"{name} is ")
    assert len(caught.value.message) < 200


def test_bounds_are_spelled_out_in_digits() -> None:
    seed = Hyperparameter("seed", "a seed", "integer", 0, (0, 2**31 - 1))
    with pytest.raises(BadHyperparameters, match=r"a whole number from 0 to 2147483647\."):
        parse_hyperparameters({"seed": "-1"}, [seed])


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(BadHyperparameters) as caught:
        parse_hyperparameters({"rounds": "0", "rate": "x", "color": "red", "keep": "true"}, KNOBS)
    headline, *lines = caught.value.message.splitlines()
    assert headline == "3 hyperparameters can't be used:"
    assert [line.split()[0] for line in lines] == ["rounds", "rate", "color"]
    assert caught.value.facts["faults"] == lines


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    with pytest.raises(BadHyperparameters, match=r"^round is not a hyperparameter of this model; did you mean rounds\?$"):
        parse_hyperparameters({"round": "5"}, KNOBS)


def test_an_unknown_name_like_no_other_gets_them_all() -> None:
    with pytest.raises(BadHyperparameters, match="known are: kind, rounds, rate, keep"):
        parse_hyperparameters({"zzz": "5"}, KNOBS)


@pytest.mark.parametrize("name", ["_tuning_objective_metric", "sagemaker_program", "sagemaker_container_log_level"])
def test_the_platforms_own_names_are_passed_over(name: str) -> None:
    assert parse_hyperparameters({name: "anything"}, KNOBS) == parse_hyperparameters({}, KNOBS)


def test_a_hyperparameter_of_another_estimator_is_said_to_be_ignored() -> None:
    raw = {"rate": "0.1", "rounds": "5"}
    assert ignored_hyperparameters(raw, KNOBS, "oak") == []
    assert ignored_hyperparameters(raw, KNOBS, "elm") == ["rate"]


# The job


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An /opt/ml whose config folder is empty."""
    base = Paths(tmp_path / "ml")
    base.config.mkdir(parents=True)
    base.data.mkdir()
    return base


def test_a_job_without_any_config_file_is_empty(paths: Paths) -> None:
    job = read_job(paths, {})
    assert (job.hyperparameters, job.channels, job.host, job.hosts, job.name) == ({}, {}, "algo-1", ("algo-1",), "")


@pytest.mark.parametrize("name", ["training", "train"])
def test_without_inputdataconfig_the_usual_folders_are_channels(paths: Paths, name: str) -> None:
    for folder in (name, "validation", "something"):
        (paths.data / folder).mkdir()
    (paths.data / f"{name}-manifest").write_text("s3://bucket/key")
    job = read_job(paths, {})
    assert set(job.channels) == {name, "validation"}
    assert job.channel(TRAINING).path == paths.data / name  # type: ignore[union-attr]
    assert job.channel(VALIDATION).path == paths.data / "validation"  # type: ignore[union-attr]


def test_what_lies_beside_the_declared_channels_is_never_read(paths: Paths) -> None:
    (paths.config / "inputdataconfig.json").write_text(
        '{"training": {"TrainingInputMode": "FastFile", "ContentType": "text/csv"}}'
    )
    for folder in ("training", "validation", "train"):
        (paths.data / folder).mkdir()
    (paths.data / "training-manifest").write_text("s3://bucket/key")
    job = read_job(paths, {})
    assert list(job.channels) == ["training"]
    assert job.channels["training"].content_type == "text/csv"


def test_resource_config_in_the_wrong_case_is_no_resource_config(paths: Paths) -> None:
    (paths.config / "resourceConfig.json").write_text('{"current_host": "algo-7", "hosts": ["algo-7", "algo-8"]}')
    assert read_job(paths, {}).hosts == ("algo-1",)


def test_hosts_and_the_jobs_name_are_read(paths: Paths) -> None:
    (paths.config / "resourceconfig.json").write_text('{"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "x": 1}')
    job = read_job(paths, {"TRAINING_JOB_NAME": "mine", "TRAINING_JOB_ARN": "arn:aws:x"})
    assert (job.host, job.hosts, job.name, job.arn) == ("algo-2", ("algo-1", "algo-2"), "mine", "arn:aws:x")


def test_instance_groups_and_topology_change_nothing(paths: Paths) -> None:  # T-35
    hosts = {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"], "network_interface_name": "eth1"}
    groups = [{"instance_group_name": name, "instance_type": "ml.m5.large", "hosts": [f"algo-{name}"]} for name in "12"]
    more = {"current_instance_type": "ml.m5.large", "current_group_name": "2", "instance_groups": groups, "topology": None}
    (paths.config / "resourceconfig.json").write_text(json.dumps(hosts))
    without = read_job(paths, {})
    (paths.config / "resourceconfig.json").write_text(json.dumps({**hosts, **more}))
    assert read_job(paths, {}) == without
    assert without.hosts == ("algo-1", "algo-2")


def test_variables_of_the_toolkits_change_nothing(paths: Paths) -> None:  # T-17
    told = {"SM_HOSTS": '["x", "y"]', "SM_CURRENT_HOST": "x", "SM_CHANNELS": '["z"]', "SM_HPS": '{"a": 1}', "SM_HP_SEED": "7"}
    told["SM_MODEL_DIR"] = "/elsewhere"
    assert read_job(paths, told) == read_job(paths, {})
    assert Paths.from_environ({"SAGEMAKER_BASE_DIR": "/x", **told}) == Paths.from_environ({"SAGEMAKER_BASE_DIR": "/x"})


def test_a_hand_made_hyperparameter_file_may_hold_json_values(paths: Paths) -> None:
    (paths.config / "hyperparameters.json").write_text('{"rounds": 5, "keep": true, "kind": "oak", "rate": 0.25}')
    values = parse_hyperparameters(read_job(paths, {}).hyperparameters, KNOBS)
    assert values == {"rounds": 5, "keep": True, "kind": "oak", "rate": 0.25}


@pytest.mark.parametrize("name", ["hyperparameters", "inputdataconfig", "resourceconfig"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b'{"a": ', id="cut off"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[1, 2]", id="a list"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff\xfe{}", id="not UTF-8"),
        pytest.param(b"[" * 200_000, id="deep nesting"),
    ],
)
def test_a_config_file_that_is_no_json_object_is_named(paths: Paths, name: str, content: bytes) -> None:
    (paths.config / f"{name}.json").write_bytes(content)
    with pytest.raises(BadConfig, match=rf"^{name}\.json (can't be read as JSON|holds)") as caught:
        read_job(paths, {})
    assert caught.value.facts["file"] == f"{name}.json"


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        pytest.param("inputdataconfig", {"training": "File"}, "training", id="a channel that is a text"),
        pytest.param("inputdataconfig", {"training": {"TrainingInputMode": ["File"]}}, "training", id="a mode that is a list"),
        pytest.param("inputdataconfig", {"training": {"ContentType": 5}}, "training", id="a content type that is a number"),
        pytest.param("resourceconfig", {"hosts": "algo-1"}, "hosts", id="hosts that are a text"),
        pytest.param("resourceconfig", {"hosts": [1, 2]}, "hosts", id="hosts that are numbers"),
        pytest.param("resourceconfig", {"hosts": 2}, "hosts", id="hosts that are a number"),
    ],
)
def test_a_config_file_of_wrong_types_is_named(paths: Paths, name: str, content: object, named: str) -> None:
    (paths.config / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises((BadConfig, BadChannel)) as caught:
        read_job(paths, {})
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"TrainingInputMode": "Tape"}, "the mode 'Tape'; expected was one of: File, FastFile, Pipe", id="mode"),
        pytest.param({"RecordWrapperType": "Zip"}, "the record wrapper 'Zip'", id="wrapper"),
        pytest.param({"CompressionType": "Zstd"}, "the compression 'Zstd'", id="compression"),
        pytest.param({"ContentType": "text/csv; header=maybe"}, "the header 'maybe'", id="header"),
    ],
)
def test_a_channel_that_cannot_be_read_is_refused_by_name(paths: Paths, options: dict[str, str], message: str) -> None:
    (paths.config / "inputdataconfig.json").write_text(json.dumps({"training": options}))
    with pytest.raises(BadChannel) as caught:
        read_job(paths, {})
    assert f"Channel 'training' has {message}" in caught.value.message


def test_a_channel_without_a_mode_is_in_file_mode(paths: Paths) -> None:
    (paths.config / "inputdataconfig.json").write_text('{"training": {}}')
    assert read_job(paths, {}).channels["training"].content_type == ""


def test_paths_are_below_the_base_directory() -> None:
    assert str(Paths.from_environ({}).model) == "/opt/ml/model"
    assert str(Paths.from_environ({"SAGEMAKER_BASE_DIR": ""}).failure) == "/opt/ml/output/failure"
    assert str(Paths.from_environ({"SAGEMAKER_BASE_DIR": "/else"}).config) == "/else/input/config"


# The declaration

HEIGHT, SOIL = DECLARED.features
ROUNDS = KNOBS[1]


def _features(*features: Feature) -> Declaration:
    return replace(DECLARED, features=features)


def _target(**changes: object) -> Declaration:
    return replace(DECLARED, target=replace(DECLARED.target, **changes))


def _knobs(**changes: object) -> Declaration:
    return replace(DECLARED, hyperparameters=(replace(ROUNDS, **changes),))


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        pytest.param(replace(DECLARED, name="has space"), "name 'has space': it takes up to 63", id="name"),
        pytest.param(replace(DECLARED, name="x" * 64), "it takes up to 63", id="name too long"),
        pytest.param(_features(), "features: there are none", id="no features"),
        pytest.param(_features(HEIGHT, HEIGHT), "column 'HEIGHT' is declared twice", id="doubled feature"),
        pytest.param(_target(name="HEIGHT"), "column 'HEIGHT' is declared twice", id="target named as a feature"),
        pytest.param(_target(name=" SPECIES"), "target ' SPECIES': a name is not empty", id="target name with a space"),
        pytest.param(_target(name=""), "target '': a name is not empty", id="target without a name"),
        pytest.param(_features(replace(HEIGHT, name="A ")), "feature 'A ': a name is not empty", id="space at the end"),
        pytest.param(_features(replace(HEIGHT, name="")), "feature '': a name is not empty", id="no feature name"),
        pytest.param(_features(replace(HEIGHT, name="data")), "that name has a meaning in requests", id="reserved"),
        pytest.param(_features(replace(HEIGHT, kind="text")), "kind 'text' is neither 'number' nor 'category'", id="kind"),  # type: ignore[arg-type]
        pytest.param(_features(replace(HEIGHT, choices=("a",))), "only a category has choices", id="choices of a number"),
        pytest.param(_features(replace(SOIL, choices=())), "0 choices declared; at least 1", id="no choices"),
        pytest.param(_features(replace(SOIL, choices=("a", "a"))), "'a' stands twice among its choices", id="choice twice"),
        pytest.param(_features(replace(SOIL, choices=("a ",))), "choices are texts, not empty", id="choice with a space"),
        pytest.param(_features(replace(SOIL, choices=(1, 2))), "choices are texts, not empty", id="choices are numbers"),  # type: ignore[arg-type]
        pytest.param(_features(replace(HEIGHT, range=(5, 5))), "range (5, 5) does not grow", id="range of a point"),
        pytest.param(_target(kind="rank"), "kind 'rank' is neither 'number' nor 'class'", id="target kind"),
        pytest.param(_target(kind="number"), "only a class has labels", id="labels of a number"),
        pytest.param(_target(labels=("ash",)), "1 labels declared; at least 2", id="one label"),
        pytest.param(_target(labels=("ash", "ash")), "'ash' stands twice among its labels", id="label twice"),
        pytest.param(
            replace(DECLARED, hyperparameters=(ROUNDS, ROUNDS)), "hyperparameter 'rounds' is declared twice", id="knob twice"
        ),
        pytest.param(_knobs(kind="real"), "kind 'real' is not one of", id="knob kind"),
        pytest.param(_knobs(default="5"), "default '5' is not of kind integer", id="default of another kind"),
        pytest.param(_knobs(default=True), "default True is not of kind integer", id="a boolean for an integer"),
        pytest.param(_knobs(default=0), "default 0 is outside its range (1, 100)", id="default out of range"),
        pytest.param(_knobs(range=None), "a number needs a range", id="no range"),
        pytest.param(_knobs(kind="boolean", default=1, range=None), "default 1 is not of kind boolean", id="boolean default"),
        pytest.param(
            _knobs(kind="categorical", default="b", choices=("a",), range=None),
            "default 'b' is not among its choices",
            id="default is no choice",
        ),
        pytest.param(
            _knobs(name="sagemaker_x"),
            "hyperparameter 'sagemaker_x': names that start so are the platform's",
            id="knob with the platform's prefix",
        ),
    ],
)
def test_a_rule_of_the_declaration_has_its_own_message(declaration: Declaration, message: str) -> None:
    with pytest.raises(BadDeclaration) as caught:
        check(declaration)
    headline, *faults = caught.value.message.splitlines()
    assert headline == "model/ has 1 fault(s) in its declaration:"
    assert len(faults) == 1
    assert message in faults[0]


def test_all_faults_of_a_declaration_are_listed_at_once() -> None:
    broken = replace(DECLARED, name="", features=(replace(HEIGHT, kind="text"), replace(SOIL, choices=())))  # type: ignore[arg-type]
    with pytest.raises(BadDeclaration) as caught:
        check(replace(broken, target=Target("T", "t", kind="class")))
    assert len(caught.value.message.splitlines()) == 1 + 4


def test_a_good_declaration_passes_as_it_is() -> None:
    assert check(DECLARED) is DECLARED


@pytest.mark.parametrize("declaration", [DECLARED, DECLARATION], ids=["made up", "the model's"])
def test_a_declaration_survives_json(declaration: Declaration) -> None:
    assert Declaration.from_json(json.loads(json.dumps(declaration.to_json()))) == declaration


def test_keys_of_a_later_version_are_left_out() -> None:
    document = json.loads(json.dumps(DECLARED.to_json()))
    document["features"][0]["color"] = "red"
    document["new"] = 1
    assert Declaration.from_json(document) == DECLARED


# The manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model directory with two files and their manifest."""
    (tmp_path / ONNX).write_bytes(b"onnx bytes")
    (tmp_path / JOBLIB).write_bytes(b"joblib bytes")
    write_manifest(tmp_path, MANIFEST_OF_TREES, [ONNX, JOBLIB])
    return tmp_path


MANIFEST_OF_TREES = Manifest(
    declaration=DECLARED,
    labels=("ash", "oak"),
    samples=(
        {"row": {"HEIGHT": 3.5, "SOIL": None}, "prediction": {"label": "ash", "probabilities": {"ash": 1.0, "oak": 0.0}}},
    ),
    hyperparameters={"rounds": 5, "kind": "oak"},
    metrics={"validation:accuracy": 0.5},
    ranges={"HEIGHT": {"minimum": 1.0, "maximum": 2.0, "missing": 0}},
    data={"train_rows": 5, "sha256": "ab"},
    parity={"onnx": True, "difference": 0.0},
    origin={"training_job_name": "Größe"},
    files={},
)


def test_a_manifest_survives_its_file(folder: Path) -> None:
    manifest = read_manifest(folder)
    assert replace(manifest, files={}) == MANIFEST_OF_TREES
    assert manifest.files[ONNX] == {"sha256": sha256(folder / ONNX), "size_bytes": 10}


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
sys.path[:0] = {paths!r}
from test_contract import MANIFEST_OF_TREES
import contract.files
from contract.manifest import write_model
left = int(sys.argv[2])
def fsync(handle, before=os.fsync):
    global left
    left -= 1
    os.kill(os.getpid(), signal.SIGKILL) if left < 0 else before(handle)
os.fsync = fsync
content = dict.fromkeys(["model.joblib", "model.onnx", "report/report.html"], lambda path: path.write_bytes(b"new"))
write_model(Path(sys.argv[1]), replace(MANIFEST_OF_TREES, metrics={{"new": 1.0}}), content)
"""


@pytest.mark.parametrize("after", range(5))
def test_a_run_that_is_killed_while_it_writes_never_mixes_two_models(folder: Path, after: int) -> None:
    program = KILLED.format(paths=[str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    done = subprocess.run([sys.executable, "-c", program, str(folder), str(after)], check=False)
    assert done.returncode == (-signal.SIGKILL if after < 4 else 0)
    if after < 4:
        assert not (folder / "manifest.json").exists()
        done = subprocess.run([sys.executable, "-c", program, str(folder), "9"], check=False)
    assert read_manifest(folder).metrics == {"new": 1.0}
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {ONNX, JOBLIB, "manifest.json", "report.html"}


def test_a_model_that_cannot_be_written_leaves_the_earlier_one(folder: Path) -> None:
    def fail(_: Path) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        write_model(folder, MANIFEST_OF_TREES, {JOBLIB: lambda path: path.write_bytes(b"new"), ONNX: fail})
    assert replace(read_manifest(folder), files={}) == MANIFEST_OF_TREES
    assert {path.name for path in folder.iterdir()} == {ONNX, JOBLIB, "manifest.json"}


def test_a_manifest_of_an_earlier_version_has_no_intervals(folder: Path) -> None:
    document = json.loads((folder / "manifest.json").read_text())
    for key in ("intervals", "confidence", "report", "intended_use", "limits"):
        del document[key]
    (folder / "manifest.json").write_text(json.dumps(document))
    assert replace(read_manifest(folder), files={}) == MANIFEST_OF_TREES
    assert MANIFEST_OF_TREES.intervals is None


def test_unknown_files_beside_the_model_are_ignored(folder: Path) -> None:
    (folder / "model.tar.gz").write_bytes(b"x")
    assert set(read_manifest(folder).files) == {ONNX, JOBLIB}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"onnx bytez", "does not have the sha256", id="tampered"),
        pytest.param(b"onnx", "has 4 bytes where the manifest says 10", id="truncated"),
        pytest.param(b"onnx bytes and more", "has 19 bytes", id="longer"),
        pytest.param(None, "can't be read (No such file or directory)", id="missing"),
    ],
)
def test_a_damaged_file_is_named(folder: Path, content: bytes | None, message: str) -> None:
    (folder / ONNX).unlink()
    if content is not None:
        (folder / ONNX).write_bytes(content)
    with pytest.raises(DamagedModel) as caught:
        read_manifest(folder)
    assert f"{folder / ONNX} {message}" in caught.value.message
    assert caught.value.facts["file"] == ONNX


def _edited(**changes: object) -> str:
    document = {**MANIFEST_OF_TREES.to_json(), **changes}
    return json.dumps({key: value for key, value in document.items() if value is not None})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut off"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="no keys"),
        pytest.param("[" * 200_000, id="deep nesting"),
        pytest.param(_edited(features=None), id="no features"),
        pytest.param(_edited(features=[{"x": 1}]), id="a feature without a name"),
        pytest.param(_edited(samples=None), id="no samples"),
        pytest.param(_edited(schema=99), id="another schema"),
        pytest.param(_edited(files=["model.onnx"]), id="files that are a list"),
        pytest.param(_edited(files={"model.onnx": "abc"}), id="a file that is a text"),
        pytest.param(_edited(files={"model.onnx": {"size_bytes": 10}}), id="a file without its sha256"),
    ],
)
def test_what_is_no_manifest_says_so(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedModel) as caught:
        read_manifest(folder)
    assert str(folder / MANIFEST) in caught.value.message
    assert caught.value.facts["file"] == MANIFEST


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/hostname", "a/../../b", ""])
def test_a_manifest_names_no_file_outside_its_folder(folder: Path, name: str) -> None:
    (folder / MANIFEST).write_text(_edited(files={name: {"sha256": "ab", "size_bytes": 1}}))
    with pytest.raises(DamagedModel, match="outside the folder"):
        read_manifest(folder)


def test_a_folder_without_a_manifest_says_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(DamagedModel, match=r"manifest.json can't be read .* Train first"):
        read_manifest(tmp_path)


# Files


def _write_half_and_crash(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_crash_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        _write_half_and_crash(temporary)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_until_the_block_ends_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.name.endswith(".sagemaker-ignore")
    assert path.read_text() == "new"


def test_a_block_that_writes_nothing_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


# CPUs and memory


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 8, id="no cgroup"),
        pytest.param({"cpu.max": "max 100000\n"}, 8, id="v2 without a limit"),
        pytest.param({"cpu.max": "200000 100000\n"}, 2, id="v2 of two CPUs"),
        pytest.param({"cpu.max": "150000 100000\n"}, 2, id="v2 of one and a half"),
        pytest.param({"cpu.max": "10000 100000\n"}, 1, id="v2 of a tenth"),
        pytest.param({"cpu.max": "9900000 100000\n"}, 8, id="v2 of more than there are"),
        pytest.param({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8, id="v1 without a limit"),
        pytest.param({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3, id="v1 of three"),
        pytest.param({"cpu/cpu.cfs_quota_us": "300000\n"}, 3, id="v1 without its period"),
    ],
)
def test_cpus_are_those_the_cgroup_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(cgroup.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    _write(tmp_path, files)
    assert cgroup.cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, 2**34, id="no cgroup"),
        pytest.param({"memory.max": "max\n"}, 2**34, id="v2 without a limit"),
        pytest.param({"memory.max": "536870912\n"}, 2**29, id="v2"),
        pytest.param({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2**34, id="v1 without a limit"),
        pytest.param({"memory/memory.limit_in_bytes": "536870912\n"}, 2**29, id="v1"),
    ],
)
def test_memory_is_what_the_cgroup_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr(cgroup.os, "sysconf", {"SC_PAGE_SIZE": 2**12, "SC_PHYS_PAGES": 2**22}.__getitem__)
    _write(tmp_path, files)
    assert cgroup.memory_bytes(tmp_path) == expected


# Settings


@pytest.mark.parametrize(("raw", "value"), [("", 7), (" ", 7), ("5", 5), (" 5 ", 5), ("1", 1), ("9", 9)])
def test_a_whole_number_is_read_or_has_its_default(raw: str, value: int) -> None:
    assert read_integer({"X": raw}, "X", 7, (1, 9)) == value
    assert read_integer({}, "X", 7, (1, 9)) == 7


@pytest.mark.parametrize("raw", ["0", "10", "x", "1.5", "--5", "-", "5-", "1_0", "٣", "9" * 5_000, "1e1", "true"])
def test_a_bad_whole_number_names_its_variable_and_bounds(raw: str) -> None:
    with pytest.raises(BadSetting, match=r"^X is .*; it takes a whole number from 1 to 9\.$") as caught:
        read_integer({"X": raw}, "X", 7, (1, 9))
    assert caught.value.facts == {"setting": "X"}
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("raw", "value"),
    [("true", True), ("True", True), ("1", True), ("YES", True), ("", False), ("false", False), ("0", False), ("No", False)],
)
def test_a_flag_is_read_in_any_case(raw: str, value: bool) -> None:
    assert read_flag({"X": raw}, "X") is value


def test_a_flag_that_is_neither_names_its_variable() -> None:
    with pytest.raises(BadSetting, match=r"^X is 'maybe'; it takes true or false\.$"):
        read_flag({"X": "maybe"}, "X")


def test_a_choice_is_one_of_its_words_and_the_first_by_default() -> None:
    assert read_choice({"X": "b"}, "X", ("a", "b")) == "b"
    assert read_choice({"X": " "}, "X", ("a", "b")) == "a"
    with pytest.raises(BadSetting, match=r"^X is 'c'; it takes one of: a, b\.$"):
        read_choice({"X": "c"}, "X", ("a", "b"))


# Cells and metrics


@pytest.mark.parametrize("cell", ["", " ", "NaN", "nan", "NAN", "null", "NULL", "NA", "na", "\t"])
def test_what_stands_for_a_missing_value(cell: str) -> None:
    assert is_missing(cell)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("5", 5.0),
        (" 5 ", 5.0),
        ("-1e-3", -0.001),
        ("+.5", 0.5),
        ("1_000", None),
        ("٣", None),
        ("inf", None),
        ("nan", None),
        ("1e999", None),
        ("0x10", None),
        ("1,5", None),
        ("", None),
        ("true", None),
    ],
)
def test_what_stands_for_a_number(cell: str, number: float | None) -> None:
    assert read_number(cell) == number


@pytest.mark.parametrize(
    "value",
    [0.0, 1.0, -1.0, 3.21747, 1e-300, -1e-12, 1e300, -123456789.0, 1234567.0, 0.1 + 0.2, 5, 1e16],
)
@pytest.mark.parametrize("name", ["validation:rmse", "cv:r2", "train:log_loss", "a.b"])
def test_a_metrics_regex_reads_its_line_back(name: str, value: float) -> None:
    expression = re.compile(metric_regex(name))
    found = expression.search(metric_line(name, value))
    assert found
    assert float(found[1]) == pytest.approx(value, rel=1e-5, abs=0)
    assert expression.groups == 1
    assert len(expression.pattern) <= 500


def test_a_metrics_regex_reads_no_other_metrics_line() -> None:
    assert not re.search(metric_regex("a.b"), metric_line("a-b", 1.0))
    assert not re.search(metric_regex("rmse"), metric_line("validation:rmse", 1.0))
    assert not re.search(metric_regex("cv:r2"), metric_line("cv:r21", 1.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_metric_that_is_no_number_is_not_printed(value: float) -> None:
    stream = io.StringIO()
    report_metric("x", value, stream)
    report_metric("y", 1.5, stream)
    assert stream.getvalue() == "metric y=1.5;\n"


def test_the_contracts_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DECLARED.name = "other"  # type: ignore[misc]
