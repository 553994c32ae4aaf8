"""A real SIGTERM as each phase of `train` begins: the model is there and serves, or the reason why there is none (T-27)."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SAMPLE
from forks import Forks, busyness
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestRegressor
from sklearn.pipeline import Pipeline

from contract.errors import Stopped
from contract.files import TEMPORARY
from contract.manifest import read_manifest
from contract.metrics import metric_regex
from local_test.emulator import lay_out
from local_test.soak.stops import COLUMNS, MOMENTS, measure
from serving.predictor import load_predictor
from training import fit as fitting
from training import rounds
from training.checkpoints import Checkpoints
from training.fit import Keeper, Plan, _thin, fit
from training.read import Table
from training.rounds import STEPS, Fit
from training.split import Data
from training.stop import Stop

STOP_S = 5
BEFORE = {
    "reading": ("training.split", "read_channel"),
    "splitting": ("training.split", "_split"),
    "looking for checkpoints": ("training.alone", "job_key"),
    "starting the fit": ("training.fit", "run"),
}
"""Phases before there is a model, and the function each begins with."""
AFTER = {
    "evaluating": ("training.evaluate", "evaluate"),
    "rounding thresholds": ("training.export", "snap_thresholds"),
    "converting to ONNX": ("training.export", "_convert"),
    "resampling the metrics": ("training.evaluate", "_confidence"),
    "calibrating intervals": ("training.evaluate", "calibrate"),
    "explaining by importance": ("training.report", "explain"),
    "explaining by dependence": ("training.explain", "_averages"),
    "drawing the report": ("training.plots", "importances"),
    "writing the card": ("training.report", "model_card"),
    "writing the model": ("training.artifacts", "write_model"),
    "writing the manifest": ("contract.manifest", "write_manifest"),
    "printing the tuned lines": ("training.artifacts", "report_metric"),
}
"""Phases after the fit, in their order."""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A job that looks for checkpoints, laid out."""
    lay_out(tmp_path / "ml", {"training": SAMPLE}, {"max_iter": "10"})
    (tmp_path / "ml" / "checkpoints").mkdir()
    return tmp_path / "ml"


def _stop_at(place: tuple[str, str], base: Path) -> tuple[int, str]:
    """Return the exit code and the output of a job that gets a SIGTERM there, and ends in time."""
    program = Forks(place).start("train", base, {})
    code = program.wait(120)
    seconds = program.seconds_since_the_stop()
    print(f"ended {seconds:.2f} s after the signal")
    assert seconds < STOP_S * busyness(), program.output()
    return code, program.output()


@pytest.mark.parametrize("phase", BEFORE)
def test_a_stop_before_a_round_was_done_leaves_a_reason_and_nothing_else(base: Path, phase: str) -> None:
    code, output = _stop_at(BEFORE[phase], base)
    assert code == 143, output
    assert (base / "output" / "failure").read_text().startswith("Stopped: Stopped by a signal while")
    assert not any((base / "model").iterdir())
    assert not re.search(metric_regex("validation:rmse"), output)


@pytest.mark.parametrize("phase", AFTER)
def test_a_stop_after_the_fit_ends_in_a_whole_model_that_serves(base: Path, phase: str) -> None:
    code, output = _stop_at(AFTER[phase], base)
    assert code == 0, output
    load_predictor(base / "model")  # its self-test predicts the manifest's samples
    assert read_manifest(base / "model").origin["stopped_early"] is False
    assert (base / "model" / "report" / "report.html").exists()
    assert not list(base.rglob(f".*{TEMPORARY}"))
    assert len(re.findall(metric_regex("validation:rmse"), output)) == 1  # T-38


def test_stops_are_measured_on_as_many_rows_as_asked_for(tmp_path: Path) -> None:
    asked = [moment for moment in MOMENTS if moment.what in {"while reading", "in the cross-validation"}]
    reading, folds = (dict(zip(COLUMNS, row, strict=True)) for row in measure(2_000, tmp_path, Forks(), asked))
    assert (reading["exit code"], reading["left"][:8]) == ("143", "Stopped:")
    assert (folds["exit code"], folds["left"]) == ("0", "the model")
    assert max(float(row["s from the signal to the end"]) for row in (reading, folds)) < STOP_S * busyness()


# Rounds that take long: a stop can't wait for their end


TABLE = Table(np.zeros((4, 1), dtype=np.float32), np.zeros(4))


class Slow(BaseEstimator):
    """Grows a tree in some seconds, and the tree after `last_quick` in a minute."""

    def __init__(self, n_estimators: int = 1, seconds: float = 0.01, last_quick: int = 1_000, warm_start: bool = False) -> None:
        self.n_estimators, self.seconds, self.last_quick, self.warm_start = n_estimators, seconds, last_quick, warm_start

    def fit(self, *_: object) -> Slow:
        self.trees_ = getattr(self, "trees_", 0) if self.warm_start else 0
        for tree in range(self.trees_, self.n_estimators):
            time.sleep(self.seconds if tree < self.last_quick else 60)
        self.trees_ = self.n_estimators
        return self


def test_rounds_of_slow_trees_hold_fewer_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROUND_S", 0.015)
    done = [0]
    Fit(Pipeline([("e", Slow())]), "n_estimators", 4 * STEPS, 0, TABLE, lambda count, _: done.append(count)).run()
    assert done == list(range(4 * STEPS + 1))  # one at a time, of 0.01 s; without an eye on the time it would be four


def test_a_stop_in_a_round_that_outlasts_the_grace_keeps_the_one_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fitting, "SLOW_S", 0.0)
    monkeypatch.setattr(fitting, "LEAVE_S", 0.2)
    stop = Stop()

    def ask() -> None:
        while not (tmp_path / "fitted.joblib").exists():
            time.sleep(0.01)
        stop.requested = True

    threading.Thread(target=ask, daemon=True).start()
    plan = Plan(Pipeline([("e", Slow(last_quick=1))]), "n_estimators", STEPS, 0, 0, 60.0)
    fitted = fit(plan, Data(TABLE, TABLE, TABLE), tmp_path, stop)
    assert fitted.stopped
    assert fitted.model.steps[-1][1].trees_ == 1


@pytest.mark.parametrize(
    ("most_nodes", "trees"),
    [pytest.param(60, 3, id="all"), pytest.param(30, 2, id="some"), pytest.param(5, None, id="not even one")],
)
def test_a_stopped_forest_keeps_as_many_trees_as_can_be_exported(monkeypatch, most_nodes: int, trees: int | None) -> None:
    monkeypatch.setattr(fitting, "MOST_NODES", most_nodes)
    matrix = np.arange(6, dtype=np.float32)[:, None]
    model = Pipeline([("e", RandomForestRegressor(3, bootstrap=False))]).fit(matrix, matrix[:, 0])  # 11 nodes a tree
    if trees is None:
        with pytest.raises(Stopped, match=r"trees of 11 nodes.*max_depth"):
            _thin(model)
    else:
        assert _thin(model) is (trees < 3)
        assert len(model.steps[-1][1].estimators_) == model.steps[-1][1].n_estimators == trees


def test_what_a_slow_round_leaves_is_no_checkpoint_before_one_is_due(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoints = Checkpoints.open(tmp_path / "state", "algo-1", "key")
    keeper = Keeper(tmp_path / "left", lambda _: None, 3_600.0, checkpoints)
    keeper(1, lambda: Pipeline([("e", Slow())]))
    assert not (tmp_path / "left").exists()
    monkeypatch.setattr(fitting, "SLOW_S", 0.0)
    keeper(2, lambda: Pipeline([("e", Slow())]))
    assert (tmp_path / "left").exists()
    assert checkpoints.latest() is None
