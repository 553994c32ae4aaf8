"""The load bench: what it measures is what runs, what it says follows from that, and what it lacks it names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest
from ahead import ahead
from conftest import ROOT, environment, lacking

from local_test.load import command, rounds, servers, wrk
from local_test.load.cells import FORMATS, Cell, Payload, cells_of, make_rows, numbers_of, payloads_of
from local_test.load.chart import draw
from local_test.load.endurance import by_workers, endure
from local_test.load.inside import by_slots, by_thread, parts
from local_test.load.rounds import Plan, Sample, check, measure
from local_test.load.servers import BERTH, ECHO, FASTAPI, FLASK, Given, Server, started
from local_test.load.session import SESSION, loaded
from local_test.load.table import BARS, COLUMNS, bars_of, rows_of, shares
from local_test.load.wrk import on_cpu, two_cpus
from local_test.procfs import children, family

ONE = Cell("csv", 1, 16)
pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="keeping servers on a CPU takes Linux")


@ahead
def others_python() -> Path:
    """The Python of the environment that has what others serve with."""
    return environment("load")


@pytest.fixture
def generator() -> None:
    """What sending takes; skip or fail where this machine lacks it."""
    try:
        wrk.find_wrk()
        two_cpus()
    except RuntimeError as error:
        lacking(str(error))


@pytest.fixture
def payload(manifest, tmp_path: Path) -> Payload:
    return next(payloads_of([ONE], manifest, tmp_path))


@pytest.fixture
def given(trained: Path, tmp_path: Path) -> Given:
    answer = tmp_path / "answer"
    answer.write_text("24.5\n")
    return Given(trained, min(os.sched_getaffinity(0)), answer)


# The whole, small


@pytest.fixture(scope="module")
def measured(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> rounds.Figures:
    """One cell, one round, Berth and the floor."""
    try:
        plan = Plan([ONE], [ECHO, BERTH], rounds=1, seconds=1)
        return measure(plan, trained, tmp_path_factory.mktemp("load"), lambda line: None)
    except RuntimeError as error:
        if "wrk, which" in str(error) or "one CPU" in str(error):
            lacking(str(error))
        raise


def test_one_round_gives_every_figure_of_berth_and_the_floor(measured: rounds.Figures) -> None:
    (samples,) = measured.values()
    assert set(samples) == {BERTH, ECHO, SESSION}
    for name in (BERTH, ECHO):
        (sample,) = samples[name]
        assert sample.rate > 50
        assert 0 < sample.p50_ms <= sample.p99_ms
        assert 10 < sample.memory_mb < 1_000
        # Sixteen connections are never without a request that waits: CPU time and rate tell of the same work.
        assert sample.had == pytest.approx(sample.rate * sample.cpu_us / 1e6, rel=1e-6)
        assert 0.01 < sample.had < 1.1


def test_the_floor_costs_less_than_berth_and_the_session_alone_less_than_both(measured: rounds.Figures) -> None:
    samples = measured[ONE]
    assert samples[ECHO][0].cpu_us < samples[BERTH][0].cpu_us
    assert samples[SESSION][0].cpu_us < samples[BERTH][0].cpu_us
    assert samples[SESSION][0].cpu_us <= 1.05 * 1e6 / samples[SESSION][0].rate  # it has one thread


def test_the_tables_of_a_small_run_have_its_cell_and_the_bars_that_it_reaches(measured: rounds.Figures) -> None:
    assert [row[:4] for row in rows_of(measured)] == [
        ["CSV", "1", "16", name] for name in ("bare echo", "**Berth**", "the ONNX session alone")
    ]
    assert [asked for _, asked, *_ in bars_of(measured)] == ["at least 0.5 times that of bare echo", "at most 100 MB"]


# What runs


def test_the_floor_runs_as_serve_does(given: Given) -> None:
    said = {}
    for name in (ECHO, BERTH):
        with started(name, given, "text/csv") as server:
            (worker,) = children(server.popen.pid)  # one CPU, so one by default
            assert os.sched_getaffinity(worker) == {given.cpu}
            said[name] = re.sub(r"\d+", "", server.said())
    assert "Using worker" in said[ECHO]
    assert said[ECHO] == said[BERTH]


def test_the_floor_reads_a_body_to_its_end(echo: Server) -> None:
    assert echo.ask(b"1,2\n" * 500_000, "text/csv") == b"24.5\n"
    assert echo.ask(b"1,2\n", "text/csv") == b"24.5\n"


def test_a_setting_of_this_shell_does_not_reach_the_server(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_MODEL_SERVER_WORKERS", "3")
    monkeypatch.setenv("BERTH_ACCESS_LOG", "true")
    monkeypatch.setenv("AIP_HTTP_PORT", "1")
    with started(BERTH, given, "text/csv") as berth:
        assert len(children(berth.popen.pid)) == 1


@pytest.mark.parametrize("name", [BERTH, FASTAPI, FLASK])
def test_every_server_predicts_what_the_model_does_in_every_format(
    name: str, given: Given, manifest, tmp_path: Path, others_python: Path
) -> None:
    given = replace(given, python=others_python)
    cells = [Cell(form, rows, 1) for form in FORMATS for rows in (1, 100)]
    with started(name, given, "text/csv") as server:
        for payload in payloads_of(cells, manifest, tmp_path):
            with loaded(given.model, payload.matrix, given.cpu) as session:
                assert len(session.predictions) == payload.rows
                check(server, payload, session.predictions, 10 * manifest["parity"]["bound"])


def test_servers_end_when_the_measurement_does(given: Given) -> None:
    with started(BERTH, given, "text/csv") as berth:
        members = family(berth.popen.pid)
    assert len(members) == 2
    assert not [pid for pid in members if Path(f"/proc/{pid}").exists()]


def test_on_one_cpu_is_what_is_started_inside_and_nothing_after() -> None:
    before = os.sched_getaffinity(0)
    probe = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with on_cpu(min(before)):
        inside = subprocess.run(probe, capture_output=True, text=True, check=True).stdout
    assert inside.split() == [str(min(before))]
    assert os.sched_getaffinity(0) == before


# What goes wrong


def test_without_wrk_it_says_what_to_install(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"wrk, which sends the requests, is not installed.*apt-get install wrk"):
        measure(Plan([ONE], [ECHO], 1, 1), trained, tmp_path)


def test_on_one_cpu_it_says_that_two_are_needed() -> None:
    granted = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(granted)})
    try:
        with pytest.raises(RuntimeError, match="one CPU may be used here; two are needed"):
            two_cpus()
    finally:
        os.sched_setaffinity(0, granted)


def test_without_their_environment_it_says_how_the_others_are_made(given: Given, tmp_path: Path) -> None:
    nowhere = replace(given, python=tmp_path / "none" / "bin" / "python")
    with (
        pytest.raises(RuntimeError, match=r"none is not there, which Flask.* runs in.*\.ci/venv \.venv-load load"),
        started(FLASK, nowhere, "text/csv"),
    ):
        pass


def test_a_server_that_does_not_start_is_named_with_its_log(given: Given, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"Berth: ended with exit code \d+ before it answered\n.*manifest"),
        started(BERTH, replace(given, base=tmp_path), "text/csv"),
    ):
        pass


def test_a_server_that_dies_under_load_is_named(generator: None, given: Given, payload: Payload) -> None:
    with started(ECHO, given, "text/csv") as echo:
        Timer(0.3, lambda: [os.kill(pid, signal.SIGKILL) for pid in family(echo.popen.pid)]).start()
        with pytest.raises(RuntimeError, match="bare echo: ended with exit code -9"):
            rounds._drive(echo, payload, 2, 1, two_cpus()[1])


def test_a_server_that_answers_errors_alone_is_named(generator: None, given: Given, payload: Payload) -> None:
    payload.body.write_bytes(b"not,a,row\n")
    with (
        started(BERTH, given, "text/csv") as berth,
        pytest.raises(
            RuntimeError, match=r"Berth.*: not one answer of success in [\d.]+ s: [\d,]+ answers that were no success"
        ),
    ):
        rounds._drive(berth, payload, 2, 1, two_cpus()[1])


@pytest.fixture(scope="module")
def echo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers 24.5, whatever it is asked."""
    answer = tmp_path_factory.mktemp("echo") / "answer"
    answer.write_text("24.5\n")
    with started(ECHO, Given(trained, min(os.sched_getaffinity(0)), answer), "text/csv") as running:
        yield running


@pytest.mark.parametrize(
    ("form", "expected", "said"),
    [
        ("csv", [24.6], "predicts 24.5 for row 1 of text/csv, where the model says 24.6; 1 of 1 rows differ"),
        ("csv", [24.5, 24.5], "answers 1 predictions to 1 rows of text/csv"),
        ("json", [24.5], r"answers b'24.5\n'; application/json with predictions was expected"),
    ],
)
def test_a_server_that_answers_wrongly_is_not_measured(
    echo: Server, payload: Payload, form: str, expected: list[float], said: str
) -> None:
    with pytest.raises(RuntimeError) as raised:
        check(echo, replace(payload, format=form), expected, 0.001)
    assert f"bare echo: {said}" in str(raised.value)


def test_a_server_that_answers_rightly_is(echo: Server, payload: Payload) -> None:
    assert 0 < check(echo, payload, [24.5], 0.001) < 60


def test_categories_are_declined_in_words(manifest, tmp_path: Path) -> None:
    other = {**manifest, "target": {**manifest["target"], "kind": "class"}}
    with pytest.raises(RuntimeError, match="the target of this model is a category"):
        next(payloads_of([ONE], other, tmp_path))


# What `make soak` measures beside it


def test_time_and_workers_have_a_row_each_and_a_further_worker_shares_most_of_its_memory(generator, trained, tmp_path) -> None:
    (slice_,) = endure(trained, tmp_path, slices=1, seconds=1)[3]
    assert float(slice_[1].replace(",", "")) > 50
    assert slice_[-1] == "0"
    rows = by_workers(trained, tmp_path, seconds=1)[3]
    assert [row[0] for row in rows] == ["1", "2", "4"]
    assert all(0 < float(row[-1]) < 30 for row in rows[1:])


def test_the_parts_of_a_request_add_up_to_it_and_a_thread_costs_more_than_none(generator, trained, tmp_path) -> None:
    *some, whole = (float(row[1]) for row in parts(trained, tmp_path, calls=300)[3])
    assert sum(some) == pytest.approx(whole, abs=0.3)
    assert all(0 < part < whole for part in some)
    inline, threaded = (float(row[-1].replace(",", "")) for row in by_thread(trained, tmp_path, seconds=1)[3])
    assert inline < threaded


def test_slots_are_as_many_as_the_table_says(generator, trained, tmp_path) -> None:
    assert [row[0] for row in by_slots(trained, tmp_path, seconds=1)[3]] == ["1", "2", "4"]


# The matrix


def test_without_patterns_every_cell_is_measured() -> None:
    assert len(cells_of([])) == 36
    assert {bar.cell for bar in BARS} <= set(cells_of([]))


def test_patterns_choose_cells() -> None:
    assert cells_of(["csv-1-16"]) == [ONE]
    assert {cell.format for cell in cells_of(["json-*"])} == {"json"}
    assert len(cells_of(["csv-1-*", "csv-*-1"])) == 6


def test_a_pattern_that_names_no_cell_is_an_error_that_says_what_cells_are() -> None:
    with pytest.raises(
        RuntimeError, match=r"'csv-2-16' names no cell; .* csv, json, jsonlines; 1, 100, 1000, 10000; 1, 16, 128"
    ):
        cells_of(["csv-1-16", "csv-2-16"])


def test_cells_of_one_payload_share_its_servers(manifest, tmp_path: Path) -> None:
    payloads = list(payloads_of(cells_of(["csv-1-*", "json-100-16"]), manifest, tmp_path))
    assert [(payload.format, payload.rows, payload.connections) for payload in payloads] == [
        ("csv", 1, [1, 16, 128]),
        ("json", 100, [16]),
    ]


def test_made_up_rows_are_the_same_each_time_and_exact_as_float32(manifest) -> None:
    rows = make_rows(manifest, 50)
    assert rows == make_rows(manifest, 50)
    assert len({tuple(row.values()) for row in rows}) == 50
    assert all(float(value) * 8 == int(value * 8) for row in rows for value in row.values())
    assert list(rows[0]) == [feature["name"] for feature in manifest["features"]]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("csv", b"1.5\n2\n"),
        ("json", b'{"predictions": [1.5, 2.0]}'),
        ("jsonlines", b'{"prediction": 1.5}\n{"prediction": 2.0}\n'),
    ],
)
def test_predictions_are_read_from_an_answer_of_every_format(name: str, answer: bytes) -> None:
    assert numbers_of(answer, name) == [1.5, 2.0]


# Tables and chart


def _samples(*rates: float, **more: float) -> list[Sample]:
    figures = {"p50_ms": 2.0, "p99_ms": 4.0, "cpu_us": 100.0, "memory_mb": 90.0, "had": 0.9, "busy": 0.3, **more}
    return [Sample(rate, **figures) for rate in rates]


FIGURES = {
    ONE: {
        BERTH: _samples(600, 500, 900),
        ECHO: _samples(1_000, 2_000, 1_000, p50_ms=1.0, busy=0.7),
        FASTAPI: _samples(300, 300, 300, had=0.8),
        FLASK: _samples(5, 5, 5),
        SESSION: [Sample(30_000)] * 3,
    },
    Cell("json", 1_000, 1): {BERTH: _samples(75, 75, 75), ECHO: _samples(100, 100, 100), SESSION: [Sample(100)] * 3},
}


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    berth = next(row for row in rows_of(FIGURES) if row[:4] == ["CSV", "1", "16", "**Berth**"])
    # By round 0.6, 0.25 and 0.9: the median is 0.6, where the ratio of the medians were 600 / 1,000 by luck alone.
    assert berth[4] == "600 (0.60)"
    assert berth[5] == "2.00 (2.00)"
    assert berth[-2:] == ["0.02", ""]
    swapped = {ONE: {**FIGURES[ONE], BERTH: _samples(500, 600, 900)}}
    assert next(row for row in rows_of(swapped) if row[3] == "**Berth**")[4] == "600 (0.50)"


def test_every_server_has_a_row_in_every_cell_and_the_floor_is_first() -> None:
    rows = rows_of(FIGURES)
    assert [row[3] for row in rows[:2]] == ["bare echo", "**Berth**"]
    assert len(rows) == 5 + 3
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[0][4] == "1,000"


def test_requests_that_fail_are_told_beside_the_figures_of_those_that_do_not() -> None:
    some = {ONE: {BERTH: [replace(sample, failed=share) for sample, share in zip(_samples(1, 2), (0.0, 0.25), strict=True)]}}
    some[ONE][SESSION] = _samples(1, 1)
    assert rows_of(some)[0][-1] == "25.0%"


@pytest.mark.parametrize(
    ("connections", "request_s", "seconds"), [(1, 0.001, 2), (1, 0.25, 3), (16, 0.03, 2), (16, 0.1, 7), (128, 0.1, 52)]
)
def test_a_round_of_a_slow_server_takes_longer(connections: int, request_s: float, seconds: int) -> None:
    assert rounds._seconds(Plan([], [], 1, 2), connections, request_s) == seconds


def test_a_round_without_an_answer_is_made_longer(
    generator: None, echo: Server, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def drive(*_: object, seconds: int, **__: object) -> wrk.Run:
        asked.append(seconds)
        return wrk.Run(8 * (seconds > 5), 0, seconds, 1.0, 1.0, 1.0, 0.1)

    monkeypatch.setattr(rounds, "drive", drive)
    assert rounds._drive(echo, payload, 2, 2, 0).rate == 1
    assert asked == [2, 4, 8]
    monkeypatch.setattr(rounds, "LONGEST_S", 4)
    with pytest.raises(RuntimeError, match="bare echo: answers none of 2 requests in 4 s"):
        rounds._drive(echo, payload, 2, 2, 0)


def test_what_is_asked_is_held_or_not() -> None:
    bars = {asked: (measured, holds) for _, asked, measured, holds in bars_of(FIGURES)}
    assert bars == {
        "at least 0.5 times that of bare echo": ("0.60", "yes"),
        "at least 2 times that of FastAPI, orjson, onnxruntime": ("2.00", "yes"),
        "at least 60 times that of Flask, pandas, scikit-learn": ("120.00", "yes"),
        "at most 100 MB": ("90.00", "yes"),
    }
    slow = {ONE: {**FIGURES[ONE], BERTH: _samples(200, 200, 200, memory_mb=101.0)}}
    assert [holds for *_, holds in bars_of(slow)] == ["**no**"] * 4


def test_shares_tell_whether_the_cpus_were_the_servers_and_the_generators_own() -> None:
    assert shares(FIGURES) == (0.8, 0.7)
    assert shares({Cell("csv", 1, 1): {BERTH: _samples(1.0)}}) == (None, 0.3)


def test_the_sections_are_tables_that_say_how_they_were_measured() -> None:
    asked, cells = command.sections_of(FIGURES, Plan(list(FIGURES), list(servers.TITLES), 3, 2))
    assert asked.startswith('## Load on one core: what is asked\n\n`make load ARGS="--only csv-1-16')
    assert '--rounds 3 --seconds 2"`, ' in asked
    assert "Medians of 3 rounds of 2 s" in cells
    assert "of which they had at least 80% with 16 connections or more" in cells
    assert cells.count("\n| CSV | 1 | 16 |") == 5
    assert "nan" not in asked + cells


def test_the_chart_names_every_server_once_and_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(FIGURES, tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text()
    texts = [node.text for node in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    for title in ("Berth", "bare echo", "the ONNX session alone", "Flask, pandas, scikit-learn"):
        assert texts.count(title) == 1
    assert "CSV, 16 connections" in texts
    assert "JSON, 1 connection" in texts


# The command


def _arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_command_measures_prints_and_writes_where_it_is_asked_to(generator: None, tmp_path: Path, capsys) -> None:
    target = tmp_path / "measured.md"
    words = ["--only", "csv-1-1", "--rounds", "1", "--seconds", "1", "--servers", "echo", "--write", str(target)]
    assert command.load(_arguments(*words)) == 0
    assert "## Load on one core: its cells" in target.read_text()
    assert "| CSV | 1 | 1 | **Berth** |" in capsys.readouterr().out
    assert (tmp_path / "load.svg").read_text().startswith("<?xml")


def test_ctrl_c_keeps_the_cells_that_are_measured(generator: None, trained: Path, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("csv-1-1:"):
            raise KeyboardInterrupt

    figures = measure(Plan([Cell("csv", 1, 1), ONE], [BERTH], rounds=1, seconds=1), trained, tmp_path, stop)
    assert list(figures) == [Cell("csv", 1, 1)]


def test_no_rounds_are_an_error() -> None:
    with pytest.raises(RuntimeError, match="--rounds 0 --seconds 2: both take 1 or more"):
        command.load(_arguments("--rounds", "0"))


def test_all_of_make_load_is_measured_without_arguments() -> None:
    arguments = _arguments()
    assert (arguments.rounds, arguments.only, set(arguments.servers)) == (5, [], set(servers.TITLES))
    recipe = (ROOT / "Makefile").read_text().split("\nload:")[1].split("\n\n")[0]
    assert "--write docs/measured.md" in recipe
