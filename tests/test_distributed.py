"""Training on several hosts: machines of their own here are network namespaces, in which `train` runs as it does anywhere."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import joblib
import pytest
from conftest import ROOT, SAMPLE, lacking, long

from contract.errors import AlgorithmError
from contract.job import Channel, Job
from local_test.emulator import lay_out
from local_test.hosts import Host, cut_off, finish, lay, missing, running, worker_of
from model import DECLARATION
from model.metrics import measure
from training.network import resolve
from training.read import read_channel
from training.stop import Stop

FAST = {"estimator": "lightgbm", "max_iter": "60"}


@pytest.fixture(scope="module")
def spaces() -> None:
    """That this machine can play several hosts."""
    if lack := missing():
        lacking(lack)


def rmse(host: Host) -> float:
    """Return the model's error over the whole sample: the same rows, whichever were held out."""
    table = read_channel(Channel("training", SAMPLE, ""), DECLARATION)
    return measure(joblib.load(host.base / "model" / "model.joblib"), table.matrix, table.target)["rmse"]


def shards(folder: Path, parts: int, empty: int = 0) -> list[Path]:
    """Deal the sample's rows out to folders; the last `empty` of them have none."""
    with (SAMPLE / "boston_house_prices.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    folders = [folder / f"shard{index}" for index in range(parts)]
    for index, part in enumerate(folders):
        part.mkdir(parents=True)
        if index < parts - empty:
            with (part / "rows.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *rows[index :: parts - empty]])
    return folders


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> float:
    """The rmse of the same job on one host."""
    host = Host(0, tmp_path_factory.mktemp("alone"), "")
    lay_out(host.base, {"training": SAMPLE}, FAST)
    environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(host.base)}
    subprocess.run([sys.executable, ROOT / "container" / "train"], env=environ, check=True, capture_output=True)
    return rmse(host)


@pytest.fixture(scope="module")
def replicated(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of three hosts that all have all rows, ended."""
    hosts = lay(tmp_path_factory.mktemp("replicated"), [SAMPLE] * 3, FAST)
    return hosts, finish(hosts)


@pytest.fixture(scope="module")
def sharded(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of three hosts, of which the last has been given no file, ended."""
    folder = tmp_path_factory.mktemp("sharded")
    hosts = lay(folder, shards(folder, 3, empty=1), FAST, sharded=True)
    return hosts, finish(hosts)


@pytest.fixture(params=["replicated", "sharded"])
def ended(request) -> tuple[list[Host], list[int]]:
    return request.getfixturevalue(request.param)


def test_every_host_ends_well_and_only_the_leader_writes(ended):  # T-34
    hosts, codes = ended
    assert codes == [0, 0, 0], "\n".join(host.log for host in hosts)
    written = [sorted(path.name for path in (host.base / "model").iterdir()) for host in hosts]
    assert {"manifest.json", "model.onnx", "model.joblib"} <= set(written[0])
    assert written[1:] == [[], []]
    assert [list((host.base / "output").rglob("*.*")) for host in hosts[1:]] == [[], []]
    assert [host.failure for host in hosts] == ["", "", ""]


def test_several_hosts_learn_what_one_host_learns(ended, alone):
    """Bins and the rows that were held out differ, hence the bound; the mean alone is off by 9.2 thousand dollars."""
    assert abs(rmse(ended[0][0]) - alone) < 1.0


def test_no_row_is_counted_twice_or_forgotten(ended):
    data = ended[0][0].manifest()["data"]
    assert data["train_rows"] + data["validation_rows"] == 506
    assert sum(data["hosts"].values()) == data["train_rows"]


def test_a_host_without_a_file_works_without_rows(sharded):  # T-23
    hosts, _ = sharded
    assert list(hosts[0].manifest()["data"]["hosts"].values())[2] == 0
    assert "on 2 hosts" in hosts[0].log


def test_every_host_says_what_it_sent_and_received(ended):
    for host in ended[0]:
        assert all(10_000 < count < 20_000_000 for count in host.traffic)


def at_work(hosts: Sequence[Host], programs, sign: str) -> None:
    """Wait until the leader has printed a line."""
    deadline = time.monotonic() + 60
    while sign not in hosts[0].log:
        assert time.monotonic() < deadline, hosts[0].log
        assert programs[0].poll() is None, hosts[0].log
        time.sleep(0.1)


LONG = {**FAST, "max_iter": "10000", "max_leaf_nodes": "200", "min_samples_leaf": "1"}


@contextmanager
def fitting(tmp_path: Path) -> Iterator[tuple[list[Host], list[subprocess.Popen[bytes]]]]:
    """A job of two hosts in the midst of a fit that would take minutes."""
    hosts = lay(tmp_path, [SAMPLE] * 2, LONG)
    with running(hosts) as programs:
        at_work(hosts, programs, "Local rank")
        yield hosts, programs


@pytest.fixture(scope="module")
def isolated(spaces, tmp_path_factory) -> Iterator[tuple[list[Host], list[subprocess.Popen[bytes]]]]:
    """A job one of whose hosts has lost its network; what takes long about it is the waiting, so that others run meanwhile."""
    with fitting(tmp_path_factory.mktemp("cut-off")) as (hosts, programs):
        cut_off(hosts[1])
        yield hosts, programs


def test_a_killed_worker_is_named_by_the_leader_in_time(isolated, tmp_path):
    with fitting(tmp_path) as (hosts, programs):
        os.kill(worker_of(hosts[1]), signal.SIGKILL)
        assert programs[0].wait(15) == 2
        assert programs[1].wait(45) == 2
    assert hosts[0].failure.startswith(f"AlgorithmError: Lost host {hosts[1].address} while fitting")
    assert hosts[1].failure == ""
    assert not any((hosts[0].base / "model").iterdir())


@long
def test_a_leader_that_is_killed_ends_the_others_in_time(spaces, tmp_path):
    with fitting(tmp_path) as (hosts, programs):
        programs[0].kill()
        assert programs[1].wait(45) == 2
    assert hosts[1].failure.startswith(f"AlgorithmError: The leader {hosts[0].address} is gone")


def test_a_stop_ends_every_host_within_the_platforms_patience(spaces, tmp_path):  # T-27
    with fitting(tmp_path) as (hosts, programs):
        for program in programs:
            program.send_signal(signal.SIGTERM)
        assert [program.wait(30) for program in programs] == [143, 143]
    assert hosts[0].failure.startswith("Stopped: Stopped by a signal while fitting")
    assert hosts[1].failure == ""


@long
def test_a_worker_that_alone_is_stopped_ends_the_job_within_the_platforms_patience(spaces, tmp_path):  # T-27
    with fitting(tmp_path) as (hosts, programs):
        programs[1].send_signal(signal.SIGTERM)
        assert programs[0].wait(60) == 2
        assert programs[1].wait(30) in {2, 143}
    assert hosts[1].address in hosts[0].failure


def test_bad_data_on_one_host_is_the_jobs_failure_and_names_host_row_and_column(spaces, tmp_path):
    sources = shards(tmp_path, 2)
    text = (sources[1] / "rows.csv").read_text().splitlines()
    (sources[1] / "rows.csv").write_text("\n".join([*text[:3], text[3] + "x", *text[4:]]))
    hosts = lay(tmp_path, sources, FAST, sharded=True)
    assert finish(hosts) == [1, 1]
    assert hosts[0].failure.startswith(f"UserError: Host {hosts[1].address}: rows.csv row 3")
    assert hosts[1].failure == ""


@long
def test_a_search_and_its_folds_are_shared_out_and_end_in_a_model(spaces, tmp_path):
    """The rows that the other host fits candidates to come over the network: 5 MB, where a search that fails moves 0.03."""
    hosts = lay(tmp_path, [SAMPLE] * 2, {"estimator": "auto", "search_seconds": "15", "cv_folds": "4"})
    assert finish(hosts) == [0, 0], hosts[0].log
    assert hosts[0].manifest()["trained_with"]["searched"]["candidates"] >= 5, hosts[0].log
    assert hosts[1].traffic[0] > 1_000_000
    assert float(re.search(r"metric cv:rmse=([\d.]+);", hosts[0].log)[1]) < 5.0
    assert hosts[0].manifest()["data"]["train_rows"] == 404


@long
def test_scikit_learns_estimators_fit_on_the_leader_and_cross_validate_on_all(spaces, tmp_path):
    hosts = lay(tmp_path, [SAMPLE] * 2, {"estimator": "ridge", "cv_folds": "4"})
    assert finish(hosts) == [0, 0]
    assert float(re.search(r"metric cv:rmse=([\d.]+);", hosts[0].log)[1]) == pytest.approx(5.3, abs=0.6)
    assert hosts[0].manifest()["data"]["train_rows"] == 404


def test_scikit_learns_estimators_refuse_rows_that_are_spread(spaces, tmp_path):
    hosts = lay(tmp_path, shards(tmp_path, 2), {"estimator": "ridge"}, sharded=True)
    assert finish(hosts) == [1, 1]
    assert "is ShardedByS3Key over 2 hosts. Make it FullyReplicated" in hosts[0].failure
    assert "estimator=lightgbm" in hosts[0].failure


def test_a_host_that_is_cut_off_is_named_in_time_and_ends_too(isolated):
    hosts, programs = isolated
    assert [program.wait(120) for program in programs] == [2, 2]
    assert hosts[0].failure.startswith(f"AlgorithmError: Lost host {hosts[1].address} while fitting")
    assert hosts[1].failure.startswith(f"AlgorithmError: The leader {hosts[0].address} is gone")


def test_a_host_whose_name_stays_unknown_is_named_after_a_bounded_wait(capsys):  # T-33
    job = Job({}, {}, "127.0.0.2", ("127.0.0.2", "algo-2.invalid"), "", "")
    with pytest.raises(AlgorithmError, match=r"^Host algo-2\.invalid has no address after 0 s of asking"):
        resolve(job, Stop(), patience_s=0.3)
    assert "algo-2.invalid has no address yet" in capsys.readouterr().out
