"""Checkpoints (T-27 to T-31): what an interrupted job left is gone on from, whenever and however it was interrupted."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import SAMPLE

from contract.errors import BadConfig
from contract.files import sha256
from contract.job import read_job
from contract.manifest import read_manifest
from contract.paths import Paths
from local_test.emulator import Outcome, lay_out, stop, train
from local_test.runners import Processes, Program
from training.checkpoints import KEPT, Checkpoint, Checkpoints

KILLS = int(os.environ.get("KILLS", "3"))
ROUNDS = {
    "hist_gradient_boosting": {"max_iter": "1000"},
    "random_forest": {"estimator": "random_forest", "n_estimators": "300"},
}
STEP = {"hist_gradient_boosting": 100, "random_forest": 30}


def _lay_out(base: Path, folder: Path, estimator: str = "hist_gradient_boosting", **more: str) -> None:
    lay_out(base, {"training": SAMPLE}, {**ROUNDS[estimator], **more})
    (base / "input" / "config" / "checkpointconfig.json").write_text(json.dumps({"LocalPath": str(folder)}))


def _train(base: Path, folder: Path, estimator: str = "hist_gradient_boosting", **more: str) -> Outcome:
    _lay_out(base, folder, estimator, **more)
    return train(Processes(), base)


def _start(base: Path, folder: Path, estimator: str) -> Program:
    _lay_out(base, folder, estimator)
    return Processes().start("train", base, {})


def _rounds_said(output: str) -> int:
    """Return the last count of rounds that the log tells."""
    return max(map(int, re.findall(r"fit: (\d+) of \d+ rounds\n", output)), default=0)


def _resumed_after(output: str) -> int:
    found = re.search(r"fit: goes on after (\d+) of", output)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module", params=list(ROUNDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, float]:
    """The estimator, the sha256 of the model that an uninterrupted job without checkpoints makes, and its seconds."""
    base = tmp_path_factory.mktemp("whole") / "ml"
    lay_out(base, {"training": SAMPLE}, ROUNDS[request.param])
    outcome = train(Processes(), base)
    assert outcome.exit_code == 0, outcome.output
    assert not (base / "checkpoints").exists()
    return request.param, sha256(base / "model" / "model.onnx"), outcome.seconds


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A job that ran to its end, and its checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    assert _train(folder / "ml", folder / "state").exit_code == 0
    return folder / "ml", folder / "state"


def test_a_job_killed_at_a_random_moment_and_started_again_ends_in_the_same_model(whole, tmp_path: Path) -> None:
    estimator, expected, seconds = whole
    chance = random.Random(KILLS)
    for kill in range(KILLS):
        base, folder = tmp_path / f"ml{kill}", tmp_path / f"state{kill}"
        program = _start(base, folder, estimator)
        time.sleep(chance.uniform(0.3, 1) * seconds)
        program.signal(signal.SIGKILL)
        program.wait(10)
        said = _rounds_said(program.output())
        again = train(Processes(), base)
        assert again.exit_code == 0, again.output
        assert "damaged" not in again.output
        assert said <= _resumed_after(again.output) <= said + STEP[estimator], (program.output(), again.output)
        assert sha256(base / "model" / "model.onnx") == expected
        assert not [path.name for path in folder.iterdir() if not path.name.endswith(".checkpoint")]


def test_a_job_that_was_stopped_leaves_a_model_and_goes_on_when_started_again(whole, tmp_path: Path) -> None:
    estimator, expected, _ = whole
    base, folder = tmp_path / "ml", tmp_path / "state"
    program = _start(base, folder, estimator)
    while _rounds_said(program.output()) < 2 * STEP[estimator]:
        time.sleep(0.01)
    assert stop(program, 60) == 0, program.output()
    assert read_manifest(base / "model").origin["stopped_early"] is True
    shutil.rmtree(base / "model")  # T-28: it is empty when a new container starts
    again = _train(base, folder, estimator)
    assert sha256(base / "model" / "model.onnx") == expected
    assert read_manifest(base / "model").origin["resumed_after_rounds"] == _resumed_after(again.output) >= 2 * STEP[estimator]


def test_the_last_two_checkpoints_are_kept_under_the_hosts_name(finished) -> None:
    assert sorted(path.name for path in finished[1].iterdir()) == ["algo-1-000900.checkpoint", "algo-1-001000.checkpoint"]
    assert KEPT == 2


@pytest.fixture
def state(finished, tmp_path: Path) -> Path:
    """A copy of a finished job's checkpoints."""
    return Path(shutil.copytree(finished[1], tmp_path / "state"))


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="a byte short"),
        pytest.param(lambda content: content[:-9] + b"?" + content[-8:], id="a byte changed"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: b"[]\n", id="another file"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(state: Path, tmp_path: Path, finished, damage) -> None:
    newest = state / "algo-1-001000.checkpoint"
    newest.write_bytes(damage(newest.read_bytes()))
    outcome = _train(tmp_path / "ml", state)
    assert f"checkpoint: {newest.name} is damaged and passed over" in outcome.output
    assert _resumed_after(outcome.output) == 900
    assert sha256(tmp_path / "ml" / "model" / "model.onnx") == sha256(finished[0] / "model" / "model.onnx")


def test_a_checkpoint_of_another_job_is_passed_over(state: Path, tmp_path: Path) -> None:
    outcome = _train(tmp_path / "ml", state, learning_rate="0.1")
    assert outcome.exit_code == 0
    assert "is of other data, hyperparameters or libraries and passed over" in outcome.output
    assert _resumed_after(outcome.output) == 0
    assert len(list(state.iterdir())) == KEPT


def _made(folder: Path) -> Checkpoints:
    return Checkpoints.open(folder, "algo-1", "key")


def test_a_checkpoint_that_is_being_uploaded_is_not_removed(tmp_path: Path) -> None:
    checkpoints = _made(tmp_path)
    checkpoints.save(Checkpoint(1, b"one"))
    (tmp_path / "algo-1-000001.checkpoint.sagemaker-uploading").touch()
    for rounds in (2, 3, 4):
        checkpoints.save(Checkpoint(rounds, b"more"))
        (tmp_path / f"algo-1-{rounds:06}.checkpoint.sagemaker-uploaded").touch()
    kept = sorted(path.name for path in tmp_path.glob("*.checkpoint"))
    assert kept == [f"algo-1-{rounds:06}.checkpoint" for rounds in (1, 3, 4)]
    assert _made(tmp_path).latest() == Checkpoint(4, b"more")


def test_other_hosts_checkpoints_are_left_alone(tmp_path: Path) -> None:
    Checkpoints.open(tmp_path, "algo-2", "key").save(Checkpoint(9, b"theirs"))
    for rounds in (1, 2, 3):
        _made(tmp_path).save(Checkpoint(rounds, b"ours"))
    assert _made(tmp_path).latest() == Checkpoint(3, b"ours")
    assert (tmp_path / "algo-2-000009.checkpoint").exists()


def test_a_checkpoint_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path, capsys) -> None:
    checkpoints = _made(tmp_path / "state")
    shutil.rmtree(tmp_path / "state")
    checkpoints.save(Checkpoint(1, b"one"))
    assert "can't be written, training goes on" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["state", "", 7, "/a\0b"], ids=repr)
def test_a_path_that_is_none_is_refused_and_an_empty_one_is_the_usual(tmp_path: Path, path: object) -> None:
    paths = Paths(tmp_path)
    paths.config.mkdir(parents=True)
    (paths.config / "checkpointconfig.json").write_text(json.dumps({"LocalPath": path}))
    if path == "":
        assert read_job(paths, {}).checkpoints == tmp_path / "checkpoints"
    else:
        with pytest.raises(BadConfig, match="absolute path of a folder was expected"):
            read_job(paths, {})


def test_without_the_config_file_the_usual_folder_counts_where_it_is_there(tmp_path: Path) -> None:
    assert read_job(Paths(tmp_path), {}).checkpoints is None
    (tmp_path / "checkpoints").mkdir()
    assert read_job(Paths(tmp_path), {}).checkpoints == tmp_path / "checkpoints"


def test_a_folder_that_cannot_be_made_fails_the_job_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = _train(tmp_path / "ml", tmp_path / "file" / "state")
    assert outcome.exit_code == 1
    assert outcome.failure.startswith(f"UserError: Checkpoints can't be written to {tmp_path}/file/state")
