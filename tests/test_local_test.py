"""The platform's part as it is played here: emulator, account, client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ahead import ahead, scratch
from conftest import ROOT, SAMPLE, timed

from local_test import payloads
from local_test.emulator import Endpoint, lay_out, serving, train
from local_test.run import CALLS, run
from local_test.runners import Containers, Processes
from local_test.soak import growth

FEW_ROUNDS = {"max_iter": "20"}


def predict(*arguments: str, body: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "local_test" / "predict.py", *arguments]
    return subprocess.run(command, input=body, capture_output=True, text=True, check=False)


def test_the_client_sends_the_books_payload_and_prints_the_answer(endpoint: Endpoint, manifest: dict) -> None:
    done = predict("--url", endpoint.program.url)
    (answer,) = json.loads(done.stdout)["prediction"]
    assert answer == pytest.approx(manifest["samples"][0]["prediction"], abs=manifest["parity"]["bound"])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.npy", "rows.parquet"])
def test_the_client_sends_a_file_by_its_ending(endpoint: Endpoint, manifest: dict, tmp_path: Path, name: str) -> None:
    bodies = {
        "rows.csv": payloads.csv_body,
        "rows.jsonl": payloads.jsonlines_body,
        "rows.json": payloads.json_body,
        "rows.npy": payloads.npy_body,
        "rows.parquet": payloads.parquet_body,
    }
    (tmp_path / name).write_bytes(bodies[name](manifest))
    done = predict("--url", endpoint.program.url, str(tmp_path / name))
    assert len(json.loads(done.stdout)["prediction"]) == 3, done.stderr


def test_the_client_takes_a_payload_from_standard_input(endpoint: Endpoint, manifest: dict) -> None:
    done = predict("--url", endpoint.program.url, "-", body=payloads.csv_body(manifest).decode())
    assert len(json.loads(done.stdout)["prediction"]) == 3, done.stderr


def test_the_client_ends_with_the_servers_message(endpoint: Endpoint) -> None:
    done = predict("--url", endpoint.program.url, "-", body="1,2\n")
    assert done.returncode == 1
    assert done.stderr.startswith("400: Row 1 has 2 values; the model takes 6")


def test_the_client_says_what_to_do_where_nothing_listens() -> None:
    done = predict("--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "make serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client_names_a_file_that_is_not_there(endpoint: Endpoint) -> None:
    done = predict("--url", endpoint.program.url, "nowhere.csv")
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere.csv: ")
    assert "make serve" not in done.stderr


def test_the_account_shows_metrics_answers_and_timings(main_job: str) -> None:
    assert "metric validation:rmse=" in main_job
    assert main_job.count("  200 in ") == len(CALLS)
    assert "== All answered ==" in main_job


def test_the_account_ends_with_the_jobs_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Processes(), tmp_path / "ml", SAMPLE, {"estimater": "ridge"}) == 1
    assert "did you mean estimator?" in capsys.readouterr().out


def test_a_server_that_can_not_start_is_reported_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"exit code 2 before /ping.*\n.*manifest\.json"), serving(Processes(), tmp_path):
        pass


@timed
def test_training_is_stopped_as_the_platform_stops_it(tmp_path: Path) -> None:
    slow = {"estimator": "mlp", "epochs": "10000", "learning_rate_init": "0.00001", "hidden_units": "1024"}
    lay_out(tmp_path, {"training": SAMPLE}, slow)
    outcome = train(Processes(), tmp_path, stop_after_s=5)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.seconds < 15
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["origin"]["stopped_early"] is True


def test_containers_train_and_serve_without_a_network(
    docker: str, image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Containers(image, docker), tmp_path / "ml", SAMPLE, FEW_ROUNDS) == 0
    assert "== All answered ==" in capsys.readouterr().out


def test_a_served_container_has_no_network_but_an_internal_one(docker: str, image: str, trained: Path) -> None:
    with serving(Containers(image, docker), trained) as endpoint:
        name = endpoint.program.name  # type: ignore[attr-defined]
        networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}"
        assert inspect(docker, name, networks) == "berth-internal"
        assert inspect(docker, "berth-internal", "{{.Internal}}", "network") == "true"


def inspect(docker: str, name: str, template: str, kind: str = "container") -> str:
    command = [docker, kind, "inspect", "--format", template, name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@ahead
def phases() -> dict[str, float]:
    """The table of where a small job's seconds go."""
    *_, rows = growth.cost_of_sample(SAMPLE, scratch(), rounds=1)
    return {what: float(told.strip("*")) for what, told in rows}


def test_a_small_jobs_seconds_are_told_phase_by_phase(phases: dict[str, float]) -> None:
    laps = [phases[what] for what, _ in growth.PHASES]
    assert all(lap >= 0 for lap in laps)  # a busy machine reads two lines at once
    assert sum(laps) == pytest.approx(phases["train"], abs=0.05)
    assert phases["**more than the script**"] == pytest.approx(phases["train"] - phases["the bare script"], abs=0.02)


@ahead
def grown() -> dict[str, str]:
    """The row of 2,000 rows in the table of what training costs as they grow."""
    return dict(zip(growth.COLUMNS, growth.measure(2_000, "lightgbm", 1, scratch()), strict=True))


def test_the_growth_of_a_job_is_measured_beside_a_bare_script(grown: dict[str, str]) -> None:
    assert (grown["estimator"], grown["rows"]) == ("lightgbm", "2,000")
    assert 50 < float(grown["bare script: MB"]) < 1_000
    assert 50 < float(grown["train: MB"]) <= float(grown["foretold: MB"])
    assert float(grown["with checkpoints: ratio"]) > 0
