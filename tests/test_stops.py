"""A real SIGTERM as each phase of `train` begins: the model is there and serves, or the reason why there is none (T-27)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SAMPLE
from forks import Forks, busyness

from contract.files import TEMPORARY
from contract.manifest import read_manifest
from contract.metrics import metric_regex
from local_test.emulator import lay_out
from serving.predictor import load_predictor

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
