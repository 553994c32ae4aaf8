"""training/: from the platform's files to a verified model directory, by the program `train` itself wherever it matters."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import joblib
import numpy as np
import onnxruntime
import pytest
from conftest import MIXED, ROOT, SAMPLE, timed
from forks import Forks, busyness
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline

from contract.declaration import Declaration, Feature, Target
from contract.errors import BadChannel, BadData, SchemaMismatch
from contract.files import sha256
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel, Job
from contract.manifest import read_manifest
from contract.metrics import metric_regex
from local_test import emulator, runners
from local_test.emulator import Outcome, lay_out, train
from local_test.runners import Processes
from model import DECLARATION
from training.beside import Beside
from training.fit import Plan
from training.progress import Progress
from training.read import Table, read_channel
from training.rounds import Fit
from training.split import read_data

QUICK = {"max_iter": "10"}
CSV = SAMPLE / "boston_house_prices.csv"
STOP_S = 5
REPORT_FILES = {"report/report.html", "report/model_card.json", "report/metrics.json"}
MODEL_FILES = {"model.onnx", "model.joblib", "manifest.json", *REPORT_FILES}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """An empty folder to lay a job out in."""
    return tmp_path / "ml"


def _train(
    base: Path,
    hyperparameters: dict[str, str] | None = None,
    channels: dict[str, Path] | None = None,
    tree: Path = ROOT,
) -> Outcome:
    lay_out(base, channels or {"training": SAMPLE}, hyperparameters or QUICK)
    return train(Processes(tree), base)


def _channel(folder: Path, content: str | bytes = "", name: str = "a.csv") -> Path:
    """Write a file into a folder and return the folder."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _lines(rows: int | None = None) -> list[str]:
    return CSV.read_text().splitlines()[: None if rows is None else rows + 1]


# What a job leaves


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A small job that has a name, and what it printed on each stream."""
    base = tmp_path_factory.mktemp("quick") / "ml"
    lay_out(base, {"training": SAMPLE}, {**QUICK, "_tuning_objective_metric": "validation:rmse", "alpha": "2"})
    environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), "TRAINING_JOB_NAME": "mine-1", "TRAINING_JOB_ARN": "arn:x"}
    environ |= {"BERTH_VERSION": "1.2.3", "BERTH_REVISION": "abc"}
    program = [sys.executable, ROOT / "container" / "train"]
    return base, subprocess.run(program, env=environ, capture_output=True, text=True, check=True)


def test_a_job_leaves_its_model_a_report_and_no_failure(quick) -> None:
    base, _ = quick
    assert _files(base / "model") == MODEL_FILES
    assert not (base / "output" / "failure").exists()


def test_the_manifest_holds_for_the_files_beside_it(quick) -> None:
    manifest = read_manifest(quick[0] / "model")
    assert manifest.declaration == DECLARATION
    assert set(manifest.files) == MODEL_FILES - {"manifest.json"}
    assert manifest.labels == ()


def test_the_manifests_samples_are_the_datas_first_rows(quick) -> None:
    manifest = read_manifest(quick[0] / "model")
    header, *rows = [line.replace('"', "").split(",") for line in _lines(3)]
    expected = [{name: float(row[header.index(name)]) for name in DECLARATION.feature_names} for row in rows]
    model = joblib.load(quick[0] / "model" / "model.joblib")
    matrix = np.array([list(row.values()) for row in expected], dtype=np.float32)
    assert [sample["row"] for sample in manifest.samples] == expected
    assert [sample["prediction"] for sample in manifest.samples] == model.predict(matrix).tolist()


def test_a_job_says_where_its_model_comes_from(quick) -> None:
    origin = read_manifest(quick[0] / "model").origin
    told = {"training_job_name": "mine-1", "training_job_arn": "arn:x", "image_version": "1.2.3", "image_revision": "abc"}
    assert {key: origin[key] for key in told} == told
    assert origin["stopped_early"] is False
    assert datetime.fromisoformat(origin["started"]) <= datetime.fromisoformat(origin["ended"])
    assert origin["versions"]["scikit-learn"].count(".") == 2


def test_a_job_keeps_its_hyperparameters_and_the_ranges_of_its_data(quick) -> None:
    manifest = read_manifest(quick[0] / "model")
    assert manifest.hyperparameters == parse_hyperparameters({**QUICK, "alpha": "2"}, DECLARATION.hyperparameters)
    assert set(manifest.ranges) == set(DECLARATION.feature_names)
    assert manifest.ranges["CHAS"] == {"minimum": 0.0, "maximum": 1.0, "median": 0.0, "missing": 0}
    assert (manifest.data["train_rows"], manifest.data["validation_rows"]) == (404, 102)
    assert len(manifest.data["sha256"]) == 64


def test_onnx_was_within_the_bound_on_every_row(quick) -> None:
    parity = read_manifest(quick[0] / "model").parity
    assert (parity["onnx"], parity["rows"]) == (True, 506)
    assert 0 <= parity["difference"] <= parity["bound"] < 1e-3


def test_metrics_are_on_stdout_once_each_and_equal_the_manifests(quick) -> None:
    metrics = read_manifest(quick[0] / "model").metrics
    both = {f"{part}:{name}" for part in ("train", "validation") for name in ("rmse", "mae", "r2")}
    assert set(metrics) == {*both, "validation:interval_coverage"}
    for name, value in metrics.items():
        assert [float(text) for text in re.findall(metric_regex(name), quick[1].stdout)] == [pytest.approx(value, rel=1e-5)]


def test_a_hyperparameter_of_another_estimator_is_said_to_be_ignored(quick) -> None:
    assert "alpha is ignored: it is no hyperparameter of hist_gradient_boosting" in quick[1].stdout


def test_a_job_has_a_line_for_each_phase(quick) -> None:
    phases = [line.split(":")[0] for line in quick[1].stdout.splitlines() if not line.startswith("metric ")]
    assert list(dict.fromkeys(phases)) == ["train", "data", "fit", "export", "report", "model"]


def test_a_good_job_prints_nothing_on_stderr(quick) -> None:
    assert quick[1].stderr == ""


def test_the_saved_pipeline_starts_anew_when_it_is_fitted_again(quick) -> None:
    assert joblib.load(quick[0] / "model" / "model.joblib").get_params()["estimator__warm_start"] is False


def test_model_joblib_and_model_onnx_agree_on_every_row(quick) -> None:
    folder = quick[0] / "model"
    matrix = read_channel(Channel("training", SAMPLE, ""), DECLARATION).matrix
    answers = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"features": matrix})[0][:, 0]
    np.testing.assert_allclose(answers, joblib.load(folder / "model.joblib").predict(matrix), rtol=0, atol=1e-3)


def test_the_same_inputs_give_the_same_model(quick, base: Path) -> None:
    """Run once more over a folder that an earlier run has filled; its failure and files that are not ours stay."""
    folder = base / "model"
    _channel(base / "output", "an earlier reason", "failure")
    for name in (*MODEL_FILES, "notes.txt"):
        _channel(folder, "of an earlier run", name)
    outcome = _train(base)
    assert outcome.exit_code == 0, outcome.output
    assert sha256(folder / "model.onnx") == sha256(quick[0] / "model" / "model.onnx")
    assert read_manifest(folder).samples == read_manifest(quick[0] / "model").samples
    assert (folder / "notes.txt").read_text() == "of an earlier run"
    assert _files(folder) == {*MODEL_FILES, "notes.txt"}


def test_the_default_model_scores_at_least_0_78_over_five_folds(base: Path) -> None:
    outcome = _train(base, {"cv_folds": "5"})
    found = re.findall(metric_regex("cv:r2"), outcome.output)
    assert outcome.exit_code == 0, outcome.output
    assert len(found) == 1
    assert float(found[0]) >= 0.78


@pytest.mark.parametrize(
    "hyperparameters",
    [
        pytest.param({"estimator": '"random_forest"', "n_estimators": "10"}, id="random_forest"),
        pytest.param({"estimator": "ridge", "cv_folds": "3"}, id="ridge"),
        pytest.param({"estimator": "mlp", "epochs": "20"}, id="mlp"),
    ],
)
def test_every_other_estimator_trains_too(base: Path, hyperparameters: dict[str, str]) -> None:
    outcome = _train(base, hyperparameters)
    assert outcome.exit_code == 0, outcome.output
    assert "onnx" in read_manifest(base / "model").parity


# Channels, in the program


def test_a_validation_channel_takes_the_place_of_the_split(base: Path, tmp_path: Path) -> None:
    training = _channel(tmp_path / "t", "\n".join(_lines(400)))
    validation = _channel(tmp_path / "v", "\n".join([_lines(0)[0], *_lines()[401:]]))
    outcome = _train(base, QUICK, {"train": training, "validation": validation})
    assert outcome.exit_code == 0, outcome.output
    data = read_manifest(base / "model").data
    assert (data["train_rows"], data["validation_rows"]) == (400, 106)
    assert "held out (the channel validation)" in outcome.output


def test_a_job_without_config_files_finds_its_usual_channel(base: Path) -> None:
    lay_out(base, {"training": SAMPLE})
    shutil.rmtree(base / "input" / "config")
    shutil.rmtree(base / "output")
    shutil.rmtree(base / "model")
    (base / "input" / "data" / "training-manifest").write_text("s3://bucket/key")
    outcome = train(Processes(), base)
    assert outcome.exit_code == 0, outcome.output
    assert read_manifest(base / "model").data["train_rows"] == 404


def _fails(outcome: Outcome, exit_code: int, *parts: str) -> None:
    """Check that a job failed as the platform is to see it: exit code, useful first line, at most 1,024 characters."""
    assert outcome.exit_code == exit_code, outcome.output
    assert len(outcome.failure) <= 1024
    first = outcome.failure.splitlines()[0]
    assert all(part in first for part in parts), first
    assert "Traceback" not in outcome.failure


@pytest.mark.parametrize(
    ("hyperparameters", "channels", "parts"),
    [
        pytest.param({}, {}, ("UserError:", "channels are: none", "'training'"), id="no channel"),
        pytest.param({}, {"test": SAMPLE}, ("UserError:", "channels are: test", "'training'"), id="another channel"),
        pytest.param({"max_iter": "0"}, {"training": SAMPLE}, ("UserError:", "max_iter is '0'; it takes"), id="bad value"),
        pytest.param({"maxiter": "5"}, {"training": SAMPLE}, ("UserError:", "did you mean max_iter?"), id="unknown name"),
        pytest.param({"\ud800": "5"}, {"training": SAMPLE}, ("UserError:", "is not a hyperparameter"), id="half a character"),
        pytest.param({"x" * 3000: "5"}, {"training": SAMPLE}, ("UserError:",), id="an endless name"),
    ],
)
def test_a_job_that_cannot_be_done_says_why(base: Path, hyperparameters, channels, parts: tuple[str, ...]) -> None:
    lay_out(base, channels, hyperparameters)
    _fails(train(Processes(), base), 1, *parts)
    assert not any((base / "model").iterdir())


def test_a_channel_without_a_file_is_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    _fails(_train(base, QUICK, {"training": tmp_path / "empty"}), 1, "UserError: Channel 'training' holds no file")


def test_a_bad_cell_reaches_the_failure_file(base: Path, tmp_path: Path) -> None:
    folder = _channel(tmp_path / "t", "\n".join(_lines(20)).replace("6.421", "many"))
    _fails(_train(base, QUICK, {"training": folder}), 1, "a.csv row 2, column RM: 'many' is not a finite number")


def test_an_earlier_reason_is_not_overwritten(base: Path) -> None:
    _channel(base / "output", "another host was first", "failure")
    lay_out(base, {})
    outcome = train(Processes(), base)
    assert (outcome.exit_code, outcome.failure) == (1, "another host was first")


# Reading, as a table of files


def _read(folder: Path, declaration: Declaration = DECLARATION) -> Table:
    return read_channel(Channel("training", folder, ""), declaration)


@pytest.fixture(scope="module")
def housing() -> Table:
    """The sample's first 30 rows."""
    return _read(SAMPLE).take(np.arange(30))


def _cells() -> list[list[str]]:
    return [line.split(",") for line in _lines(30)]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\n".join(_lines(30)), id="as it is, without a last line end"),
        pytest.param("\r\n".join(_lines(30)) + "\r\n", id="CRLF"),
        pytest.param("\ufeff" + "\n".join(_lines(30)), id="BOM"),
        pytest.param("\n".join(_lines(30)).replace('"', ""), id="no quotes"),
        pytest.param("\n".join(_lines(30)) + "\n\n\n", id="blank lines at the end"),
        pytest.param("\n".join(",".join(reversed(row)) for row in _cells()), id="columns in another order"),
        pytest.param("\n".join(", ".join(row) for row in _cells()), id="spaces after commas"),
        pytest.param("\n".join(" , ".join(cell.strip('"') for cell in row) for row in _cells()), id="spaces around commas"),
        pytest.param("\n".join(f"{line},note" for line in _lines(30)), id="one more column"),
        pytest.param("\n".join(f"{line},x,y" for line in _lines(30)), id="two more columns of no name of ours"),
        pytest.param(
            "\n".join(f"{line},{tail}" for line, tail in zip(_lines(30), ["same,same", *["1,a"] * 30], strict=True)),
            id="more columns, of one name",
        ),
        pytest.param("\n".join(f'{line},"a, ""b"""' for line in _lines(30)), id="more columns, with commas and quotes"),
    ],
)
def test_a_file_reads_the_same_however_it_is_written(tmp_path: Path, housing: Table, content: str) -> None:
    table = _read(_channel(tmp_path, content))
    np.testing.assert_array_equal(table.matrix, housing.matrix)
    np.testing.assert_array_equal(table.target, housing.target)
    assert table.fingerprint() == housing.fingerprint()


def test_all_files_of_a_channel_are_read_in_the_order_of_their_paths(tmp_path: Path, housing: Table, capsys) -> None:
    header, *rows = _lines(30)
    _channel(tmp_path, "\n".join([header, *rows[20:]]), "deep/er/part-00000")
    _channel(tmp_path, "\n".join([header, *rows[10:20]]), "b.CSV")
    _channel(tmp_path, "\n".join([header, *rows[:10]]), "a.csv")
    for other in ("notes.txt", "_SUCCESS", ".a.csv.crc", ".ipynb_checkpoints/a-checkpoint.csv", "_temporary/0/part-0"):
        _channel(tmp_path, "not for training", other)
    _channel(tmp_path, "", "empty.csv")
    np.testing.assert_array_equal(_read(tmp_path).matrix, housing.matrix[[*range(20), *range(20, 30)]])
    assert "passed over, of no format that is read, or empty: empty.csv, notes.txt" in capsys.readouterr().out


def test_a_header_alone_is_a_file_of_no_rows(tmp_path: Path, housing: Table) -> None:
    _channel(tmp_path, "\n".join(_lines(30)), "a.csv")
    _channel(tmp_path, _lines(0)[0], "b.csv")
    np.testing.assert_array_equal(_read(tmp_path).target, housing.target)


def test_numbers_are_read_to_the_last_bit(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    declaration = replace(DECLARATION, features=(Feature("X", "x"),), target=Target("Y", "y"))
    rows = [f"1,{number!r}" for number in np.clip(numbers, -1e38, 1e38).tolist()]
    table = _read(_channel(tmp_path, "\n".join(["X,Y", *rows])), declaration)
    assert table.target.tolist() == [float(row.split(",")[1]) for row in rows]


NAN = float("nan")


@pytest.mark.parametrize("header", ["N,M,C,D,T", "N , M , C , D , T ", '"N","M","C","D","T"', 'N, "M", "C", "D", "T"'])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param("1,2,0,red,no", [1, 2, 0, 0], id="all there"),
        pytest.param("1,,1,,yes", [1, NAN, 1, NAN], id="empty cells"),
        pytest.param("1,NaN,NA,null,yes", [1, NAN, 2, NAN], id="words for missing, and a choice that is one"),
        pytest.param("1,nAn,1,NULL,yes", [1, NAN, 1, NAN], id="words in any case"),
        pytest.param("1,nUlL,1,nUlL,yes", [1, NAN, 1, NAN], id="words in really any case"),
        pytest.param("1, NA ,1, na ,yes", [1, NAN, 1, NAN], id="words with spaces"),
        pytest.param(" 1.5 , 2 , 1 , dark blue , yes ", [1.5, 2, 1, 1], id="spaces around"),
        pytest.param('"1","2","1","dark blue","yes"', [1, 2, 1, 1], id="all in quotes"),
        pytest.param("1e3,-.5,1,red,yes", [1000, -0.5, 1, 0], id="other spellings of numbers"),
    ],
)
def test_a_cell_means_what_it_means_in_a_request(tmp_path: Path, header: str, row: str, expected: list[float]) -> None:
    table = _read(_channel(tmp_path, f"{header}\n{row}\n"), MIXED)
    np.testing.assert_array_equal(table.matrix[0], np.array(expected, dtype=np.float32))
    assert table.target.tolist() == [row.split(",")[-1].strip(' "')]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(",2,0,red,no", "column N: empty; a value was expected", id="missing in a number"),
        pytest.param("NaN,2,0,red,no", "column N: empty", id="NaN in a number"),
        pytest.param("1,2,,red,no", "column C: empty", id="missing in a category"),
        pytest.param("1,2,0,red,", "column T: empty", id="missing label"),
        pytest.param("1,2,0,green,no", "column D: 'green' is not one of red, dark blue", id="no such choice"),
        pytest.param("1,2,1.0,red,no", "column C: '1.0' is not one of 0, 1, NA", id="a choice spelled as a number"),
        pytest.param("1,2,0,Red,no", "column D: 'Red' is not one of", id="a choice in another case"),
        pytest.param("1,2,0,red,maybe", "column T: 'maybe' is not one of no, yes", id="no such label"),
        pytest.param("inf,2,0,red,no", "column N: 'inf' is not a finite number", id="infinity"),
        pytest.param("1,-Infinity,0,red,no", "column M: '-inf' is not a finite number", id="infinity where missing is allowed"),
        pytest.param("1e39,2,0,red,no", "column N: '1e+39' is not a finite number of float32's range", id="beyond float32"),
        pytest.param("1_000,2,0,red,no", "column N: '1_000' is not a finite number", id="underscore"),
        pytest.param("٣,2,0,red,no", "column N: '٣' is not a finite number", id="digits of another script"),
        pytest.param("0x10,2,0,red,no", "column N: '0x10' is not a finite number", id="hexadecimal"),
        pytest.param("true,2,0,red,no", "column N: 'true' is not a finite number", id="a boolean"),
        pytest.param('"1,5",2,0,red,no', "column N: '1,5' is not a finite number", id="a decimal comma"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(BadData) as caught:
        _read(_channel(tmp_path, f"N,M,C,D,T\n1,2,0,red,no\n{row}\n", "in/b.csv"), MIXED)
    assert caught.value.message.lower().startswith(f"in/b.csv row 2, {message}".lower())
    assert (caught.value.facts["row"], caught.value.facts["count"]) == (2, 1)


def test_ten_faults_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    rows = "\n".join(["x,2,0,green,no"] * 8)
    with pytest.raises(BadData) as caught:
        _read(_channel(tmp_path, f"N,M,C,D,T\n{rows}\n"), MIXED)
    *lines, last = caught.value.message.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == [
        "a.csv row 1, column D",
        "a.csv row 1, column N",
        "a.csv row 2, column D",
    ]
    assert len(lines) == 10
    assert last == "16 faults in all; the first 10 are named."


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        pytest.param(b"N,M,C,T\n1,2,0,no\n", SchemaMismatch, "a.csv lacks D. Its header is: N, M, C, T.", id="a column less"),
        pytest.param(b"N,M,C,D,T,N\n1,2,0,red,no,1\n", SchemaMismatch, "a.csv has N twice", id="a column twice"),
        pytest.param(b"1,2,0,red,no\n", SchemaMismatch, "a.csv lacks N, M, C, D, T", id="no header"),
        pytest.param(
            b"N;M;C;D;T\n1;2;0;red;no\n", SchemaMismatch, "lacks N, M, C, D, T. Its header is: N;M;C;D;T", id="semicolons"
        ),
        pytest.param(b"n,m,c,d,t\n1,2,0,red,no\n", SchemaMismatch, "lacks N, M", id="names in another case"),
        pytest.param(b"\n\n", SchemaMismatch, "a.csv lacks N", id="blank lines"),
        pytest.param(b"N,M,C,D,T\n1,2,0,red,no,9\n", BadData, "a.csv is not CSV", id="a row too wide"),
        pytest.param(
            b"N,M,C,D,T\nx,2,0,red,no,9\n", BadData, "a.csv is not CSV", id="a row too wide, with a word for a number"
        ),
        pytest.param(b"N,M,C,D,T\n1,2,0,red,no\n1,2,0,red,no,9\n", BadData, "a.csv is not CSV", id="a later row too wide"),
        pytest.param(b'N,M,C,D,T\n1,2,0,"red,no\n', BadData, "a.csv is not CSV", id="a quote left open"),
        pytest.param("N,M,C,D,T\n1,2,0,röd,no\n".encode("latin-1"), BadData, "a.csv is not CSV", id="latin-1"),
        pytest.param("Ñ,N,M,C,D,T\n".encode("latin-1"), BadData, "a.csv is not CSV in UTF-8", id="latin-1 in the header"),
        pytest.param(b"\xff\xfeN\x00", BadData, "a.csv is not CSV", id="UTF-16"),
        pytest.param(b"PK\x03\x04\x00\x00\x80\xff", BadData, "a.csv is not CSV", id="a zip"),
    ],
)
def test_a_file_that_is_no_table_of_ours_is_named(tmp_path: Path, content: bytes, error, message: str) -> None:
    with pytest.raises(error) as caught:
        _read(_channel(tmp_path, content), MIXED)
    assert message in caught.value.message


def test_a_row_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"a\.csv row 2, column T: empty"):
        _read(_channel(tmp_path, "N,M,C,D,T\n1,2,0,red,no\n1,2,0,red\n"), MIXED)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param((), "has no folder", id="no folder"),
        pytest.param(("README.md",), "holds README.md; at least one CSV file", id="no CSV"),
        pytest.param(("_SUCCESS",), "holds no file; at least one CSV file", id="a marker alone"),
    ],
)
def test_a_channel_without_csv_says_what_it_holds(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    for name in files:
        _channel(tmp_path / "t", "text", name)
    with pytest.raises(BadChannel, match=message):
        _read(tmp_path / "t", MIXED)


# Splitting


def _job(**channels: Path) -> Job:
    return Job({}, {name: Channel(name, path, "") for name, path in channels.items()}, "algo-1", ("algo-1",), "", "")


def _mixed_rows(rows: int, label: Callable[[int], str] = lambda row: "yes" if row % 4 else "no", missing: bool = False) -> str:
    body = [f"{row},{'' if missing else row},{row % 2},red,{label(row)}" for row in range(rows)]
    return "\n".join(["N,M,C,D,T", *body])


def _values(declaration: Declaration, **raw: str) -> dict[str, object]:
    return dict(parse_hyperparameters(raw, declaration.hyperparameters))


def test_a_split_keeps_every_row_once_and_classes_in_proportion(tmp_path: Path) -> None:
    data = read_data(_job(training=_channel(tmp_path, _mixed_rows(100))), MIXED, _values(MIXED))
    assert sorted([*data.train.matrix[:, 0], *data.validation.matrix[:, 0]]) == list(range(100))
    assert np.unique(data.validation.target, return_counts=True)[1].tolist() == [5, 15]


def test_a_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    job = _job(train=_channel(tmp_path, _mixed_rows(100)))
    held_out = [read_data(job, MIXED, _values(MIXED, seed=seed)).validation.fingerprint() for seed in ("1", "1", "2")]
    assert held_out[0] == held_out[1] != held_out[2]


@pytest.mark.parametrize(
    ("content", "validation", "message"),
    [
        pytest.param(_mixed_rows(9), None, "has 9 rows; at least 10", id="too few rows"),
        pytest.param(_mixed_rows(0), None, "has 0 rows", id="no rows"),
        pytest.param(
            _mixed_rows(20, lambda _: "yes"), None, "No training row has the label no", id="a label that never occurs"
        ),
        pytest.param(_mixed_rows(20, missing=True), None, "No training row has a value for M", id="a column without a value"),
        pytest.param(_mixed_rows(20), _mixed_rows(0), "Channel 'validation' has no rows", id="an empty validation channel"),
    ],
)
def test_rows_that_cannot_teach_are_refused(tmp_path: Path, content: str, validation: str | None, message: str) -> None:
    channels = {"training": _channel(tmp_path / "t", content)}
    if validation is not None:
        channels["validation"] = _channel(tmp_path / "v", validation)
    with pytest.raises(BadData) as caught:
        read_data(_job(**channels), MIXED, _values(MIXED))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("folds", "rows"), [("12", 11), ("4", 12)], ids=["more folds than rows", "more folds than rows of a label"]
)
def test_more_folds_than_rows_are_refused_before_the_fit(tmp_path: Path, folds: str, rows: int) -> None:
    content = _mixed_rows(rows, lambda row: "no" if row < 3 else "yes")
    with pytest.raises(BadData, match=f"cv_folds is {folds}"):
        read_data(_job(training=_channel(tmp_path, content)), MIXED, _values(MIXED, cv_folds=folds))


# Stopping


def _start(base: Path, hyperparameters: dict[str, str]) -> runners.Program:
    lay_out(base, {"training": SAMPLE}, hyperparameters)
    return Processes().start("train", base, {})


def _wait_for(program: runners.Program, text: str) -> None:
    deadline = time.monotonic() + 120
    while text not in program.output():
        assert time.monotonic() < deadline, program.output()
        time.sleep(0.02)


def _stop(program: runners.Program) -> tuple[int, float]:
    started = time.monotonic()
    code = emulator.stop(program, 60)
    return code, time.monotonic() - started


LONG_FOLDS = {"cv_folds": "20", "max_iter": "300"}
BOOSTING = {"max_iter": "5000"}


@timed
def test_a_stop_before_there_is_a_model_says_so(base: Path) -> None:
    program = _start(base, QUICK)
    _wait_for(program, "train: boston-housing")
    code, seconds = _stop(program)
    failure = (base / "output" / "failure").read_text()
    assert (code, failure.startswith("Stopped: Stopped by a signal while")) == (143, True)
    assert "Start the job again." in failure
    assert seconds < STOP_S
    assert not any((base / "model").iterdir())


@timed
@pytest.mark.parametrize(
    ("hyperparameters", "sign", "early"),
    [
        pytest.param(BOOSTING, "fit: begins", True, id="in the fit of histogram boosting"),
        pytest.param(
            {"max_iter": "10000", "estimator": "lightgbm", "max_leaf_nodes": "31"},
            "fit: begins",
            True,
            id="in the fit of lightgbm",
        ),
        pytest.param({"estimator": "mlp", "epochs": "10000", "hidden_units": "512"}, "fit: begins", True, id="in a network's"),
        pytest.param({"estimator": "random_forest", "n_estimators": "5000"}, "fit: begins", True, id="in a forest's"),
        pytest.param(LONG_FOLDS, "fit: 300 of 300 rounds", False, id="in the cross-validation"),
    ],
)
def test_a_stop_keeps_the_best_model_so_far(base: Path, hyperparameters: dict[str, str], sign: str, early: bool) -> None:
    lay_out(base, {"training": SAMPLE}, hyperparameters)
    program = Forks().start("train", base, {})
    _wait_for(program, sign)
    time.sleep(0.3)  # for a round to be done
    code, seconds = _stop(program)
    assert code == 0, program.output()
    assert seconds < STOP_S * busyness()
    assert read_manifest(base / "model").origin["stopped_early"] is early, program.output()
    assert len(re.findall(metric_regex("validation:rmse"), program.output())) == 1  # T-38
    assert not (base / "output" / "failure").exists()


@timed
def test_a_signal_after_the_work_is_done_changes_nothing(base: Path) -> None:
    program = _start(base, QUICK)
    _wait_for(program, "model: ")
    time.sleep(0.05)  # Python now takes its modules and its signal handlers apart
    code, _ = _stop(program)
    assert code == 0, program.output()
    assert read_manifest(base / "model").origin["stopped_early"] is False


@timed
def test_the_signal_handler_is_in_place_within_0_3_s(base: Path) -> None:
    """As a process started by us it would die of the signal without a handler; as process 1 it would ignore it (T-4)."""
    program = _start(base, QUICK)
    assert isinstance(program, runners.Process)
    started = time.monotonic()
    caught = 1 << (signal.SIGTERM - 1)
    while not int(re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{program.popen.pid}/status").read_text())[1], 16) & caught:  # type: ignore[index]
        assert time.monotonic() - started < 5
        time.sleep(0.005)
    seconds = time.monotonic() - started
    code, _ = _stop(program)
    assert code == 143, program.output()
    assert seconds < 0.3


def test_a_killed_job_leaves_the_earlier_model_and_no_child(quick, base: Path) -> None:
    shutil.copytree(quick[0] / "model", base / "model")
    program = _start(base, BOOSTING)
    assert isinstance(program, runners.Process)
    _wait_for(program, "fit: begins")
    time.sleep(0.5)
    children = Path(f"/proc/{program.popen.pid}/task/{program.popen.pid}/children").read_text().split()
    program.signal(signal.SIGKILL)
    assert program.wait(10) == -signal.SIGKILL
    deadline = time.monotonic() + 3
    while any(_alive(int(child)) for child in children):
        assert time.monotonic() < deadline, "the child fits on after its parent's death"
        time.sleep(0.1)
    assert read_manifest(base / "model") == read_manifest(quick[0] / "model")
    assert _files(base / "model") == MODEL_FILES


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# Progress


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    reader, writer = os.openpty()
    termios.tcsetwinsize(writer, (24, 80))
    with os.fdopen(reader, "rb", buffering=0) as shown, os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        bar = Progress("fit", "rounds", 10)
        bar.update(5)
        bar.end(10)
        text = shown.read(4096).decode()
    assert "fit:" in text
    assert "| 0/10 " in text
    assert "\r" in text
    assert capfd.readouterr().err == ""


def test_a_log_gets_a_line_now_and_then_with_rate_and_rest(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("training.progress.EVERY_S", 0)
    progress = Progress("fit", "rounds", 1_000, 500)
    progress.update(750)
    progress.end(1_000)
    line, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"fit: 750 of 1,000 rounds, \S+ a second, [\d,]+ s left", line)
    assert re.fullmatch(r"fit: 1,000 of 1,000 rounds in \d+\.\d s", last)


# Another model/, in a copy of the tree


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what `train` is made of."""
    tree = tmp_path / "tree"
    for name in ("contract", "model", "training", "container"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    return tree


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


TREES = """
from contract.declaration import Feature, Target

NAME, TITLE, ABOUT = "trees", "Trees", "Made up."
FEATURES = (
    Feature("HEIGHT", "how high", unit="m"),
    Feature("GIRTH", "how thick", unit="cm", nullable=True),
    Feature("SOIL", "what below", kind="category", choices=("clay", "sand")),
    Feature("BARK", "of what kind", kind="category", choices=("smooth", "rough"), nullable=True),
)
TARGET = Target("SPECIES", "which tree", kind="class", labels=("oak", "ash", "elm"))
"""
SPECIES = ("oak", "ash", "elm")


def _trees(rows: int) -> str:
    random = np.random.default_rng(0)
    lines = ["SPECIES,BARK,SOIL,GIRTH,HEIGHT"]
    for row in range(rows):
        kind = row % 3
        girth = "" if row % 7 == 3 else f"{random.normal(50 + 40 * kind, 10):.2f}"
        lines.append(
            f"{SPECIES[kind]},{('smooth', 'rough', '')[row % 3]},{('clay', 'sand')[row % 2]},{girth},{random.normal(10, 1):.3f}"
        )
    return "\n".join(lines)


def test_classes_categories_and_missing_values_go_all_the_way(copy: Path, base: Path, tmp_path: Path) -> None:
    (copy / "model" / "features.py").write_text(TREES)
    outcome = _train(base, {"cv_folds": "3", **QUICK}, {"training": _channel(tmp_path / "t", _trees(150))}, copy)
    assert outcome.exit_code == 0, outcome.output
    manifest = read_manifest(base / "model")
    assert manifest.labels == ("ash", "elm", "oak")
    assert {f"{part}:{name}" for part in ("train", "validation") for name in ("accuracy", "f1", "log_loss")} == set(
        manifest.metrics
    )
    assert manifest.samples[0]["row"]["BARK"] == "smooth"
    assert manifest.samples[2]["row"]["BARK"] is None
    assert manifest.samples[2]["row"]["SOIL"] == "clay"
    prediction = manifest.samples[0]["prediction"]
    assert prediction["label"] == "oak"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1)
    assert manifest.ranges["BARK"]["missing"] > 0
    assert sum(manifest.ranges["SOIL"]["counts"].values()) == 120
    assert float(re.findall(metric_regex("cv:accuracy"), outcome.output)[0]) > 0.9
    inputs = np.array([[10, np.nan, 1, np.nan]], dtype=np.float32)
    labels, probabilities = onnxruntime.InferenceSession(base / "model" / "model.onnx").run(None, {"features": inputs})
    assert (labels.tolist(), probabilities.shape) == (["elm"], (1, 3))


def test_a_model_onnx_cannot_express_needs_leave_and_then_replaces_the_earlier_onnx(copy: Path, base: Path) -> None:
    pipeline = copy / "model" / "pipeline.py"
    _replace(pipeline, 'regressor=lambda values: Ridge(alpha=values["alpha"])', "regressor=lambda values: _Odd()")
    pipeline.write_text(pipeline.read_text() + "\n\nclass _Odd(Ridge):\n    pass\n")
    _channel(base / "model", "of an earlier run", "model.onnx")
    refused = _train(base, {"estimator": "ridge"}, tree=copy)
    _fails(refused, 2, "ExportFailed: ONNX can't express this pipeline", "_Odd")
    assert [path.name for path in (base / "model").iterdir()] == ["model.onnx"]
    allowed = _train(base, {"estimator": "ridge", "allow_sklearn": "True"}, tree=copy)
    assert allowed.exit_code == 0, allowed.output
    manifest = read_manifest(base / "model")
    assert (set(manifest.files), manifest.parity["onnx"]) == ({"model.joblib", *REPORT_FILES}, False)
    assert not (base / "model" / "model.onnx").exists()


def test_a_bug_exits_2_with_its_traceback_in_the_log_alone(copy: Path, base: Path) -> None:
    _replace(copy / "model" / "__init__.py", "DECLARATION =", "DECLARATION = 1 / 0 or")
    outcome = _train(base, tree=copy)
    _fails(outcome, 2, "AlgorithmError: ZeroDivisionError: division by zero")
    assert "Traceback (most recent call last)" in outcome.output


def test_a_bug_in_the_fit_exits_2_with_its_traceback_in_the_log_alone(copy: Path, base: Path) -> None:
    _replace(
        copy / "model" / "pipeline.py",
        'regressor=lambda values: Ridge(alpha=values["alpha"])',
        "regressor=lambda values: Ridge(alpha='x')",
    )
    outcome = _train(base, {"estimator": "ridge"}, tree=copy)
    _fails(outcome, 2, "AlgorithmError: The fit failed: InvalidParameterError")
    assert "Traceback (most recent call last)" in outcome.output


def test_a_fit_that_is_killed_points_at_memory(copy: Path, base: Path) -> None:
    _replace(
        copy / "training" / "fit.py",
        "    warnings.simplefilter(",
        "    import os\n    os.kill(os.getpid(), 9)\n    warnings.simplefilter(",
    )
    _fails(_train(base, tree=copy), 2, "AlgorithmError: The fit failed: its process was killed by signal 9", "memory")


def test_a_declaration_that_contradicts_itself_is_the_users_fault(copy: Path, base: Path) -> None:
    _replace(copy / "model" / "features.py", '"CHAS"', '"RM"')
    outcome = _train(base, tree=copy)
    _fails(outcome, 1, "UserError: model/ has 1 fault(s) in its declaration:")
    assert "column 'RM' is declared twice" in outcome.failure
    assert json.loads((base / "input" / "config" / "hyperparameters.json").read_text()) == QUICK


# Libraries


def test_pandas_is_left_out_until_somebody_asks_for_it() -> None:
    script = """
import sys
from training import libraries, alone, artifacts, report
libraries.load_lightgbm()
assert "pandas" not in sys.modules
import pandas
from sklearn.ensemble import HistGradientBoostingRegressor
frame = pandas.DataFrame({"rooms": range(20), "tax": range(20)})
print(*HistGradientBoostingRegressor(max_iter=1).fit(frame, frame.tax).feature_names_in_)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("rooms tax\n", "")


def test_boosting_lets_go_of_its_copy_of_the_rows_and_of_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[np.ndarray] = []
    plain = HistGradientBoostingRegressor._preprocess_X
    kept = lambda self, rows, **options: (held.append((found := plain(self, rows, **options))[0]), found)[1]  # noqa: E731
    monkeypatch.setattr(HistGradientBoostingRegressor, "_preprocess_X", kept)
    rows = np.random.default_rng(0).random((200, 3))
    table = Table(rows.astype(np.float32), rows[:, 0])
    Fit(make_pipeline(HistGradientBoostingRegressor(max_iter=3)), "max_iter", 3, 0, table, lambda *_: None).run()
    assert held[0].shape == (0, 3)
    assert table.matrix.tolist() == rows.astype(np.float32).tolist()


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "lightgbm"])
@pytest.mark.parametrize("kind", ["number", "class"])
def test_rows_that_only_the_fit_looks_at_go_once_they_are_binned_and_the_model_is_the_same(estimator: str, kind: str) -> None:
    values = parse_hyperparameters({"estimator": estimator, "max_iter": "5"}, DECLARATION.hyperparameters)
    target = DECLARATION.target if kind == "number" else Target("T", "", kind="class", labels=("low", "high"))
    plan, rows = Plan.from_values(replace(DECLARATION, target=target), values), np.random.default_rng(0).random((200, 6))
    truth = rows[:, 0] if kind == "number" else np.where(rows[:, 0] > 0.5, "high", "low")
    kept, spent = (Table(rows.astype(np.float32), truth.copy()) for _ in range(2))
    models = [
        Fit(clone(plan.pipeline), plan.parameter, 5, 0, table, lambda *_: None, spends=table is spent).run()
        for table in (kept, spent)
    ]
    assert (len(kept), len(spent)) == (200, 0)
    first, second = (model.predict(kept.matrix).tolist() for model in models)
    assert first == second


def test_rows_that_a_cross_validation_shares_with_the_fit_stay_for_it(tmp_path: Path) -> None:
    lay_out(tmp_path, {"training": SAMPLE, "validation": SAMPLE}, {**QUICK, "cv_folds": "3"})
    outcome = train(Forks(), tmp_path)
    assert outcome.exit_code == 0, outcome.output
    assert "cv:rmse=" in outcome.output


# Work beside the fit


@pytest.mark.parametrize("idle", [False, True])
@pytest.mark.parametrize("started", [False, True])
def test_work_beside_the_fit_is_done_once_whether_it_was_started_or_not(idle: bool, started: bool) -> None:
    calls: list[int] = []
    beside = Beside(lambda: calls.append(threading.get_native_id()), idle=idle)
    if started:
        beside.start()
    assert beside.result() is None
    assert (len(calls), calls[0] == threading.get_native_id()) == (1, not started)


def test_what_work_beside_the_fit_raises_is_raised_where_its_result_is_wanted() -> None:
    beside = Beside(lambda: 1 / 0, idle=False)
    beside.start()
    with pytest.raises(ZeroDivisionError):
        beside.result()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's schedulers")
def test_idle_work_gives_way_until_its_result_is_wanted() -> None:
    policies, wanted = [], threading.Event()

    def work() -> None:
        policies.append(os.sched_getscheduler(0))
        wanted.wait(60)
        policies.append(os.sched_getscheduler(0))

    beside = Beside(work, idle=True)
    beside.start()
    threading.Timer(0.2, wanted.set).start()
    beside.result()
    assert policies[0] == os.SCHED_IDLE
    assert policies[1] in {os.SCHED_OTHER, os.SCHED_IDLE}  # who may not take it back leaves it idle
