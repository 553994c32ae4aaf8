"""estimator=auto: what is drawn, what is chosen, and what becomes of a search that is stopped, killed or out of time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from conftest import ROOT, SAMPLE
from forks import Forks, busyness
from numpy.random import RandomState
from threadpoolctl import threadpool_limits

from contract.declaration import AUTO, Declaration, Hyperparameter
from contract.errors import AlgorithmError, Stopped
from contract.hyperparameters import parse_hyperparameters
from contract.manifest import read_manifest
from contract.metrics import metric_regex
from contract.tuning import text
from local_test.emulator import lay_out, train
from model import DECLARATION
from model.pipeline import ESTIMATORS, build_pipeline
from training import space as space_module
from training.champion import Contest, Rung, is_better
from training.checkpoints import Checkpoints
from training.child import run
from training.read import Table
from training.search import MAX_ROWS, Found, _rungs, _sample, brackets, search
from training.space import Space, draw
from training.stop import Stop

STOP_S = 5
SEARCHED = {"estimator": AUTO, "search_seconds": "600"}


def _values(declaration: Declaration = DECLARATION, **given: str) -> dict[str, Any]:
    return dict(parse_hyperparameters({**SEARCHED, **given}, declaration.hyperparameters))


def _only(*estimators: str) -> Declaration:
    """Return the model's declaration with a choice of these estimators alone."""
    knobs = [
        replace(knob, choices=(*estimators, AUTO), default=estimators[0]) if knob.name == "estimator" else knob
        for knob in DECLARATION.hyperparameters
    ]
    return replace(DECLARATION, hyperparameters=tuple(knobs))


RIDGE = _only("ridge")


def _linear(rows: int = 450) -> Table:
    """Return rows whose target is a sum of the columns, with no noise: the less ridge shrinks, the better."""
    matrix = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    return Table(matrix, matrix.astype(np.float64).sum(axis=1))


# What is drawn


@pytest.fixture(scope="module")
def drawn() -> list[dict[str, Any]]:
    """Six hundred draws of the model's own space."""
    space, random = Space(DECLARATION, _values(seed="7")), RandomState(0)
    return [space.rvs(random) for _ in range(600)]


def test_every_estimator_is_drawn_and_auto_is_not(drawn) -> None:
    assert {values["estimator"] for values in drawn} == set(ESTIMATORS)


def test_a_draw_is_a_whole_set_of_values_that_a_job_could_have_asked_for(drawn) -> None:
    for values in drawn:
        raw = {name: text(value) for name, value in values.items()}
        assert parse_hyperparameters(raw, DECLARATION.hyperparameters) == values
        assert build_pipeline(DECLARATION, values)


def test_only_the_knobs_of_the_drawn_estimator_are_moved_and_the_jobs_own_are_kept(drawn) -> None:
    for values in drawn:
        tuned = {knob.name for knob in DECLARATION.tunable(values["estimator"])}
        assert values["seed"] == 7
        for knob in DECLARATION.hyperparameters:
            if knob.estimators and AUTO not in knob.estimators and knob.name not in tuned:
                assert values[knob.name] == knob.default


@pytest.mark.parametrize(
    ("scale", "bounds", "middle"),
    [
        pytest.param("linear", (0.0, 0.9), 0.45, id="linear"),
        pytest.param("logarithmic", (0.0001, 0.1), 0.00316, id="logarithmic"),
        pytest.param("reverse_logarithmic", (0.0, 0.99), 0.9, id="reverse logarithmic"),
    ],
)
def test_half_of_what_is_drawn_lies_below_the_middle_of_the_scale(scale, bounds, middle: float) -> None:
    knob = Hyperparameter("rate", "how fast", "continuous", 0.05, (0.0, 1.0), tunable=True, scale=scale, search=bounds)
    random = RandomState(0)
    values = [draw(knob, random) for _ in range(2_000)]
    assert bounds[0] <= min(values) < max(values) <= bounds[1]
    assert np.mean(np.array(values) < middle) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("scale", ["linear", "logarithmic"])
def test_whole_numbers_are_drawn_with_both_ends(scale) -> None:
    knob = Hyperparameter("rounds", "how many", "integer", 1, (1, 9), tunable=True, scale=scale, search=(1, 3))
    random = RandomState(0)
    assert {draw(knob, random) for _ in range(200)} == {1, 2, 3}


# What is chosen


class Enough(Exception):
    pass


def _look(most: int, arguments: tuple[Any, ...], hear: Callable[[Any], None], *_: object) -> str:
    """Search in this process until so many brackets have ended."""

    def tell(content: Any) -> None:
        hear(content)
        if not isinstance(content, Rung) and content[0] + 1 == most:
            raise Enough

    with pytest.raises(Enough), threadpool_limits(1):
        brackets(tell, *arguments)
    return ""


def _told(table: Table, most: int, **given: str) -> list[Any]:
    """Return what the child tells until so many brackets have ended."""
    told: list[Any] = []
    _look(most, (RIDGE, _values(RIDGE, **given), table), told.append)
    return told


def test_brackets_follow_from_the_seed_whatever_runs_their_fits() -> None:
    table = _linear()
    first = _told(table, 2)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert first == _told(table, 2)
    assert first != _told(table, 2, seed="1")


def test_a_bracket_gives_more_rows_to_fewer_candidates_and_the_first_is_of_the_defaults() -> None:
    told = _told(_linear(), 2)
    assert [content for content in told if not isinstance(content, Rung)] == [(0, [1], [450]), (1, [9, 3], [150, 450])]
    assert told[0].values["alpha"] == next(knob.default for knob in RIDGE.hyperparameters if knob.name == "alpha")


def test_a_search_finds_better_values_than_the_defaults(capsys) -> None:
    table = _linear()
    default = next(content.score for content in _told(table, 1))
    values, found = search(RIDGE, _values(RIDGE), table, Stop(), None, partial(_look, 2))
    assert (values["estimator"], found.metric, found.rows, found.stopped) == ("ridge", "rmse", 450, False)
    assert values["alpha"] < 0.1
    assert found.score < -default
    output = capsys.readouterr().out
    chosen = f"chosen is ridge, alpha={text(values['alpha'])}: rmse {found.score:.6g} in 3 folds of 450 rows"
    assert re.search(rf"^search: 10 candidates in \d+ s; {re.escape(chosen)}$", output, re.M)
    assert len(re.findall(r"^search: bracket 1: 9 on 150 rows, 3 on 450 rows; best so far ridge, rmse", output, re.M)) == 1
    assert not re.search(metric_regex("validation:rmse"), output)


def test_a_search_ends_when_its_time_is_over_and_not_when_its_bracket_is() -> None:
    started = time.monotonic()
    search(RIDGE, _values(RIDGE, search_seconds="1"), _linear(), Stop(), None)
    assert 1 <= time.monotonic() - started < 2 + busyness()


@pytest.mark.parametrize(
    ("challenger", "is_it"),
    [
        pytest.param([3.1, 2.9, 3.2, 3.0], True, id="better on every fold by about as much"),
        pytest.param([2.1, 1.9, 2.2, 2.0], False, id="as good"),
        pytest.param([9.0, 1.0, 1.5, 2.0], False, id="better on one fold by luck"),
        pytest.param([3.0, 3.0, 3.0, -np.inf], False, id="failed on one"),
    ],
)
def test_a_challenger_wins_by_more_than_noise(challenger: list[float], is_it: bool) -> None:
    assert is_better(np.array(challenger), np.array([2.0, 2.0, 2.0, 2.0])) is is_it


def test_a_default_that_fails_loses_to_whatever_does_not() -> None:
    default, challenger = ({**_values(RIDGE), "estimator": "ridge", "alpha": alpha} for alpha in (-1.0, 0.5))
    contest = Contest(RIDGE, default, _linear(), 0)
    assert contest.meet(default).is_champion is False
    champion = contest.meet(challenger)
    assert (champion.values["alpha"], champion.is_champion) == (0.5, True)
    assert contest.meet(default) == champion


def test_classes_are_searched_by_their_log_loss() -> None:
    declaration = replace(RIDGE, target=replace(RIDGE.target, kind="class", labels=("no", "yes"), unit=""))
    table = _linear()
    labels = np.where(table.target > 0, "yes", "no")
    values, found = search(declaration, _values(declaration, search_seconds="2"), Table(table.matrix, labels), Stop(), None)
    assert (values["estimator"], found.metric) == ("ridge", "log_loss")
    assert 0 <= found.score < 0.2


def test_very_many_rows_are_searched_by_a_seeded_part_of_them() -> None:
    table = Table(np.arange(250_000, dtype=np.float32)[:, None], np.arange(250_000.0))
    part = _sample(table, 0)
    assert 0.99 * MAX_ROWS < len(part) <= MAX_ROWS
    assert len(np.unique(part.target)) == len(part)
    np.testing.assert_array_equal(part.matrix, _sample(table, 0).matrix)
    assert not np.array_equal(part.matrix, _sample(table, 1).matrix)


def test_a_rare_label_keeps_small_rungs_away() -> None:
    table = _linear(2_700)
    labels = np.array(["no", "yes"])
    assert _rungs(Table(table.matrix, labels[np.arange(2_700) % 2])) == _rungs(table) == 4
    assert _rungs(Table(table.matrix, labels[(np.arange(2_700) < 12).astype(int)])) == 1


# What goes wrong


def test_a_stop_before_any_candidate_was_scored_says_that_there_is_no_model() -> None:
    asked = Stop()
    asked.requested = True
    with pytest.raises(Stopped, match=r"while searching, before any candidate was scored\. Start the job again"):
        search(RIDGE, _values(RIDGE), _linear(), asked, None)


def test_a_search_that_has_no_time_takes_the_defaults_and_says_so(capsys) -> None:
    values, found = search(DECLARATION, {**_values(), "search_seconds": 0}, _linear(), Stop(), None)
    assert values == {**parse_hyperparameters({}, DECLARATION.hyperparameters), "search_seconds": 0}
    assert (found.score, found.candidates) == (None, 0)
    said = r"search: no candidate was scored in \d+ s, so the defaults are taken: hist_gradient_boosting"
    assert re.search(said, capsys.readouterr().out)


def test_a_search_in_which_every_fit_fails_fails_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no such solver")

    monkeypatch.setattr(space_module, "build_pipeline", broken)
    with pytest.raises(AlgorithmError, match=r"(?s)The search failed: ValueError: .*no such solver"):
        search(RIDGE, _values(RIDGE), _linear(), Stop(), None)


def _talk_and_sleep(tell: Callable[[Any], None]) -> None:
    tell(os.getpid())
    time.sleep(60)


def _talk_and_die(tell: Callable[[Any], None]) -> None:
    tell("one")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_child_told_before_its_time_was_over_is_heard() -> None:
    heard: list[Any] = []
    assert run(_talk_and_sleep, (), heard.append, Stop(), 0.5) == ""
    assert not Path(f"/proc/{heard[0]}").exists()


def test_a_child_that_is_killed_points_at_memory_and_what_it_told_counts() -> None:
    heard: list[Any] = []
    assert "killed by signal 9, most likely for want of memory" in run(_talk_and_die, (), heard.append, Stop(), 30)
    assert heard == ["one"]


def test_pandas_is_whole_before_threads_of_a_search_could_see_half_of_it() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    code += "from training import libraries, search\n"
    code += "search.is_small = lambda table: False\n"
    code += "search.brackets = lambda *_: print('DataFrame' in vars(sys.modules.get('pandas', sys)))\n"
    code += "search._in_threads(print, None, {}, None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_child_dies_with_its_parent() -> None:
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    code += "from training.child import run; from training.stop import Stop; import functools, time\n"
    code += "def work(tell): tell(__import__('os').getpid()); time.sleep(60)\n"
    code += "run(work, (), functools.partial(print, flush=True), Stop(), 60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 5
    while child.exists() and (child / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child goes on after its parent's death"
        time.sleep(0.02)


# A job that starts again


@pytest.fixture
def kept(tmp_path: Path) -> Checkpoints:
    """Checkpoints in which a search has left what it chose, a rare value."""
    checkpoints = Checkpoints.open(tmp_path, "algo-1", "key")
    found = Found("rmse", 1.5, 450, 40, 2.0, False)
    values = {**_values(RIDGE), "estimator": "ridge", "alpha": 0.1234}
    (tmp_path / "algo-1-search.json").write_text(json.dumps({"key": "key", "values": values, "found": vars(found)}))
    return checkpoints


def test_what_was_chosen_is_not_searched_again(kept: Checkpoints, capsys) -> None:
    values, found = search(RIDGE, _values(RIDGE), _linear(), Stop(), kept)
    assert (values["alpha"], found.candidates) == (0.1234, 40)
    assert "search: goes on with what an earlier run chose: 40 candidates in 2 s; chosen is ridge" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(lambda content: content.replace('"key": "key"', '"key": "x"'), "of other data, hyperparameters", id="key"),
        pytest.param(lambda content: content[:-9], "is damaged and passed over", id="cut short"),
        pytest.param(lambda content: content.replace("0.1234", "-5"), "is damaged and passed over", id="a value out of range"),
        pytest.param(lambda _: "[]", "is damaged and passed over", id="another file"),
    ],
)
def test_a_choice_that_cannot_be_used_is_passed_over_and_made_anew(kept: Checkpoints, capsys, damage, said: str) -> None:
    path = kept.folder / "algo-1-search.json"
    path.write_text(damage(path.read_text()))
    values, _ = search(RIDGE, {**_values(RIDGE), "search_seconds": 0}, _linear(), Stop(), kept)
    assert said in capsys.readouterr().out
    assert values["alpha"] != 0.1234
    assert json.loads(path.read_text())["values"] == values


def test_a_stop_during_the_search_ends_in_a_model_of_the_best_so_far_and_a_restart_does_not_search(tmp_path: Path) -> None:
    base, declaration = tmp_path / "ml", _only("ridge", "hist_gradient_boosting")
    lay_out(base, {"training": SAMPLE}, {**SEARCHED, "alpha": "3"})
    (base / "input" / "config" / "checkpointconfig.json").write_text(json.dumps({"LocalPath": str(tmp_path / "state")}))
    program = Forks(("training.search", "_Watch._print"), declaration).start("train", base, {})  # at the end of a bracket
    assert program.wait(300) == 0, program.output()
    assert program.seconds_since_the_stop() < STOP_S * busyness()
    manifest, output = read_manifest(base / "model"), program.output()
    assert len(re.findall(metric_regex("validation:rmse"), output)) == 1  # T-38
    assert "train: alpha is ignored: it is no hyperparameter of auto" in output
    chosen = manifest.hyperparameters
    assert chosen["estimator"] in {"hist_gradient_boosting", "ridge"}
    assert (chosen["searched"]["stopped"], manifest.origin["stopped_early"]) == (True, True)
    assert chosen["searched"]["candidates"] >= 2
    again = train(Forks(declaration=declaration), base)
    assert again.exit_code == 0, again.output
    assert "search: goes on with what an earlier run chose" in again.output
    assert "search: bracket" not in again.output
    assert read_manifest(base / "model").hyperparameters == chosen
