"""Checkpoints (T-27 to T-31): what an interrupted job left is gone on from, whenever and however it was interrupted."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import SAMPLE
from forks import Forks, busyness
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from contract.declaration import Target
from contract.errors import BadConfig
from contract.files import sha256
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel, read_job
from contract.manifest import read_manifest
from contract.paths import Paths
from local_test.emulator import Outcome, lay_out, stop, train
from model import DECLARATION
from serving.predictor import load_predictor
from training.checkpoints import KEPT, Checkpoint, Checkpoints
from training.fit import Plan
from training.read import Table, read_channel
from training.rounds import Enough, Fit

KILLS = int(os.environ.get("KILLS", "1"))
INTERVAL_S = 0.1
SLACK_S = 1.0
"""A round and the writing of a checkpoint, which takes at most a 20th of the time; more where others keep the machine busy."""
ROUNDS = {
    "hist_gradient_boosting": {"max_iter": "400"},
    "lightgbm": {"estimator": "lightgbm", "max_iter": "400"},
    "random_forest": {"estimator": "random_forest", "n_estimators": "200"},
    "mlp": {"estimator": "mlp", "epochs": "400", "learning_rate_init": "0.001"},
}
Whole = tuple[str, str, float]
"""An estimator, the sha256 of the model that an uninterrupted job without checkpoints makes, and its seconds."""


def _lay_out(base: Path, folder: Path, hyperparameters: Mapping[str, str]) -> None:
    lay_out(base, {"training": SAMPLE}, {"checkpoint_interval_s": str(INTERVAL_S), **hyperparameters})
    (base / "input" / "config" / "checkpointconfig.json").write_text(json.dumps({"LocalPath": str(folder)}))


def _train(base: Path, folder: Path, estimator: str = "hist_gradient_boosting", **more: str) -> Outcome:
    _lay_out(base, folder, {**ROUNDS[estimator], **more})
    return train(Forks(), base)


def _kept(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, by rounds."""
    return sorted(folder.glob("*.checkpoint"))


def _rounds(path: Path) -> int:
    return int(path.stem.split("-")[-1])


def _resumed_after(output: str) -> int:
    found = re.search(r"fit: goes on after (\d+) of", output)
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """A function: what an uninterrupted job of an estimator comes to, run at the first call."""

    @cache
    def run(estimator: str) -> Whole:
        base = tmp_path_factory.mktemp("whole") / "ml"
        lay_out(base, {"training": SAMPLE}, ROUNDS[estimator])
        outcome = train(Forks(), base)
        assert outcome.exit_code == 0, outcome.output
        assert not (base / "checkpoints").exists()
        return estimator, sha256(base / "model" / "model.onnx"), outcome.seconds

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A job that ran to its end, and its checkpoints."""
    folder = tmp_path_factory.mktemp("finished")
    assert _train(folder / "ml", folder / "state").exit_code == 0
    return folder / "ml", folder / "state"


def _kill(base: Path, after_s: float) -> tuple[float, float]:
    """Start `train`, kill it after some seconds; return when its fit began, if it did, and when it was killed."""
    program = Forks().start("train", base, {})
    begun, moment = math.inf, time.time() + after_s
    while time.time() < moment:
        if begun == math.inf and "fit: begins" in program.output():
            begun = time.time()
        time.sleep(0.005)
    killed = time.time()
    program.signal(signal.SIGKILL)
    program.wait(10)
    return begun, killed


@pytest.mark.parametrize("estimator", ROUNDS)
def test_a_job_killed_at_a_random_moment_and_started_again_ends_in_the_same_model(
    whole, tmp_path: Path, estimator: str
) -> None:
    _, expected, seconds = whole(estimator)
    chance, losses = random.Random(KILLS), []
    for kill in range(KILLS):
        base, folder = tmp_path / f"ml{kill}", tmp_path / f"state{kill}"
        _lay_out(base, folder, ROUNDS[estimator])
        begun, killed = _kill(base, chance.uniform(0, seconds))
        last = _kept(folder)[-1:]
        if not last or _rounds(last[0]) < _total(estimator):  # the fit was going on
            losses.append(max(0.0, killed - (last[0].stat().st_mtime if last else begun)))
        again = train(Forks(), base)
        assert again.exit_code == 0, again.output
        assert "damaged" not in again.output
        assert _resumed_after(again.output) == (_rounds(last[0]) if last else 0)
        assert sha256(base / "model" / "model.onnx") == expected
        assert not [path.name for path in folder.iterdir() if not path.name.endswith(".checkpoint")]
        assert max(losses, default=0) <= INTERVAL_S + SLACK_S * busyness()
    in_fit = f"{len(losses)} of them before the last round: at most {max(losses, default=0):.2f} s of the fit lost"
    print(f"kills: {estimator}: {KILLS} killed, {in_fit}, {INTERVAL_S} s between checkpoints")


def _total(estimator: str) -> int:
    return max(int(value) for value in ROUNDS[estimator].values() if value.isdigit())


def test_a_search_killed_at_a_random_moment_and_started_again_ends_in_a_model_that_serves(tmp_path: Path) -> None:
    chance, chosen_before = random.Random(KILLS), 0
    for kill in range(KILLS):
        base, folder = tmp_path / f"ml{kill}", tmp_path / f"state{kill}"
        _lay_out(base, folder, {"estimator": "auto", "search_seconds": "1"})
        _kill(base, chance.uniform(0, 4))
        choice = folder / "algo-1-search.json"
        kept = json.loads(choice.read_text())["values"] if choice.exists() else None
        again = train(Forks(), base)
        assert again.exit_code == 0, again.output
        assert "damaged" not in again.output
        load_predictor(base / "model")
        if kept:
            chosen_before += 1
            assert read_manifest(base / "model").hyperparameters.items() >= kept.items()
    print(f"kills: auto: {KILLS} killed, {chosen_before} of them after the choice: no choice lost, no model damaged")


@pytest.mark.parametrize("estimator", ["hist_gradient_boosting", "random_forest"])
def test_a_job_that_was_stopped_leaves_a_model_and_goes_on_when_started_again(whole, tmp_path: Path, estimator: str) -> None:
    base, folder = tmp_path / "ml", tmp_path / "state"
    _lay_out(base, folder, ROUNDS[estimator])
    program = Forks().start("train", base, {})
    while not _kept(folder):
        time.sleep(0.01)
    assert stop(program, 60) == 0, program.output()
    assert read_manifest(base / "model").origin["stopped_early"] is True
    rounds = _rounds(_kept(folder)[-1])
    shutil.rmtree(base / "model")  # T-28: it is empty when a new container starts
    again = _train(base, folder, estimator)
    assert sha256(base / "model" / "model.onnx") == whole(estimator)[1]
    assert read_manifest(base / "model").origin["resumed_after_rounds"] == _resumed_after(again.output) == rounds


def test_the_last_two_checkpoints_are_kept_under_the_hosts_name(finished) -> None:
    before, last = _kept(finished[1])
    assert last.name == "algo-1-000400.checkpoint"
    assert before.name.startswith("algo-1-000")
    assert KEPT == 2


# Each way in which a fit goes on, in this process: after any round, through a pickle, to the same predictions


HOUSING = read_channel(Channel("training", SAMPLE, ""), DECLARATION)
LABELLED = Table(HOUSING.matrix, np.where(HOUSING.target > 30, "high", np.where(HOUSING.target > 20, "middle", "low")))


@pytest.mark.parametrize("kind", ["number", "class"])
@pytest.mark.parametrize(
    ("hyperparameters", "leave_after"),
    [
        pytest.param({"max_iter": "40"}, 1, id="boosting after its first round"),
        pytest.param({"max_iter": "40"}, 39, id="boosting before its last round"),
        pytest.param({"estimator": "random_forest", "n_estimators": "30"}, 10, id="forest"),
        pytest.param({"estimator": "mlp", "epochs": "30"}, 11, id="mlp"),
        pytest.param({"estimator": "lightgbm", "max_iter": "30"}, 11, id="lightgbm"),
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@threadpool_limits.wrap(1)
def test_a_fit_left_after_any_round_goes_on_to_the_same_model(kind: str, hyperparameters, leave_after: int) -> None:
    table = HOUSING if kind == "number" else LABELLED
    target = DECLARATION.target if kind == "number" else Target("T", "", kind="class", labels=("low", "middle", "high"))
    values = parse_hyperparameters(hyperparameters, DECLARATION.hyperparameters)
    plan = Plan.from_values(replace(DECLARATION, target=target), values)
    kept: list[tuple[int, bytes]] = []

    def leave(rounds: int, pipeline) -> None:
        if rounds >= leave_after:
            joblib.dump(pipeline(), file := io.BytesIO())
            kept.append((rounds, file.getvalue()))
            raise Enough

    whole = Fit(clone(plan.pipeline), plan.parameter, plan.rounds, 0, table, lambda *_: None).run()
    with pytest.raises(Enough):
        Fit(clone(plan.pipeline), plan.parameter, plan.rounds, 0, table, leave).run()
    rounds, content = kept[0]
    left = joblib.load(io.BytesIO(content))
    assert leave_after <= rounds < plan.rounds
    assert len(left.predict(table.matrix)) == len(table)
    assert "Observed" not in type(left.steps[-1][1]).__name__
    assert _answers(Fit(left, plan.parameter, plan.rounds, rounds, table, lambda *_: None).run(), table) == _answers(
        whole, table
    )


def _answers(pipeline: Pipeline, table: Table) -> list[float]:
    pipeline.set_params(**({"estimator__n_jobs": 1} if "estimator__n_jobs" in pipeline.get_params() else {}))
    answer = pipeline.predict_proba if hasattr(pipeline, "predict_proba") else pipeline.predict
    return answer(table.matrix).tolist()


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
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, capsys, damage) -> None:
    for rounds in (1, 2):
        _made(tmp_path).save(Checkpoint(rounds, b"a pickled pipeline"))
    newest = _kept(tmp_path)[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    assert _made(tmp_path).latest() == Checkpoint(1, b"a pickled pipeline")
    assert f"checkpoint: {newest.name} is damaged and passed over" in capsys.readouterr().out


def test_a_job_goes_on_from_the_checkpoint_before_a_damaged_one(state: Path, tmp_path: Path, finished) -> None:
    before, newest = _kept(state)
    newest.write_bytes(newest.read_bytes()[:-1])
    outcome = _train(tmp_path / "ml", state)
    assert _resumed_after(outcome.output) == _rounds(before)
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
