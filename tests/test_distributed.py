"""Training on several hosts: machines of their own here are network namespaces, in which `train` runs as it does anywhere."""

from __future__ import annotations

import csv
import os
import pickle
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import distributed
import joblib
import numpy as np
import pytest
from conftest import ROOT, SAMPLE, lacking, long

from contract.errors import AlgorithmError, BadData, UserError
from contract.hyperparameters import parse_hyperparameters
from contract.job import Channel, Job
from local_test.hosts import Host, cut_off, finish, lay, missing, running, worker_of
from local_test.soak.scale import fits_over_hosts
from model import DECLARATION
from model.metrics import measure
from model.pipeline import build_pipeline
from training.cluster import Cluster
from training.distribute import read_shard
from training.network import resolve
from training.read import Table, read_channel
from training.search import search
from training.space import Candidate
from training.stop import Stop
from training.together import check_one_machine, look

FAST = {"estimator": "lightgbm", "max_iter": "60"}


@pytest.fixture(scope="module")
def spaces() -> None:
    """That this machine can play several hosts."""
    if lack := missing():
        lacking(lack)


def table() -> Table:
    """The whole sample: the same rows, whichever were held out."""
    return read_channel(Channel("training", SAMPLE, ""), DECLARATION)


def header_and_rows() -> tuple[list[str], list[list[str]]]:
    with (SAMPLE / "boston_house_prices.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return header, rows


def deal(folder: Path, header: Sequence[str], parts: Sequence[Sequence[Sequence[object]]]) -> list[Path]:
    """Write each part's rows to a folder of its own; a part without rows is an empty folder."""
    folders = [folder / f"shard{index}" for index in range(len(parts))]
    for shard, rows in zip(folders, parts, strict=True):
        shard.mkdir(parents=True)
        if rows:
            with (shard / "rows.csv").open("w", newline="") as file:
                csv.writer(file).writerows([header, *rows])
    return folders


def shards(folder: Path, parts: int, empty: int = 0) -> list[Path]:
    """Deal the sample's rows out to folders; the last `empty` of them have none."""
    header, rows = header_and_rows()
    full = parts - empty
    return deal(folder, header, [rows[index::full] if index < full else [] for index in range(parts)])


def tree_of(folder: Path, labels: Sequence[str]) -> Path:
    """A copy of the source whose model tells labels apart by one number."""
    for name in ("container", "contract", "model", "training"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "sample"))
    (folder / "model" / "features.py").write_text(
        f"""from contract.declaration import Feature, Target
NAME, TITLE, ABOUT = "made", "Made", "Made for a test."
FEATURES = (Feature("X", "What the label follows from"), Feature("Y", "Noise"))
TARGET = Target("T", "Where X is", kind="class", labels={tuple(labels)!r})
"""
    )
    return folder


def rows_of(label: int, count: int, labels: Sequence[str]) -> list[list[object]]:
    """Rows of one label: their X is within one of its number, their Y anything."""
    return [[label + step / count, step * 7 % 11, labels[label]] for step in range(count)]


@pytest.fixture(scope="module")
def alone() -> float:
    """The rmse of LightGBM on one host, over the sample, of which it has seen as much."""
    values = parse_hyperparameters(FAST, DECLARATION.hyperparameters)
    rows = table()
    learnt = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:404]))
    return measure(build_pipeline(DECLARATION, values).fit(learnt.matrix, learnt.target), rows.matrix, rows.target)["rmse"]


def rmse(host: Host) -> float:
    rows = table()
    return measure(joblib.load(host.base / "model" / "model.joblib"), rows.matrix, rows.target)["rmse"]


@pytest.fixture(scope="module")
def replicated(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of two hosts that both have all rows, one of them bad, ended."""
    header, rows = header_and_rows()
    folder = tmp_path_factory.mktemp("replicated")
    sources = deal(folder, header, [[*rows, [*rows[0][:-1], "bad"]]])
    hosts = lay(folder, sources * 2, {**FAST, "bad_rows": "drop"})
    return hosts, finish(hosts)


@pytest.fixture(scope="module")
def sharded(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of three labels on three hosts, ended: two lack a label, each has a bad row, the last has been given no file."""
    labels, folder = ("low", "mid", "high"), tmp_path_factory.mktemp("sharded")
    low, mid, high = (rows_of(label, 120, labels) for label in range(3))
    bad = ["bad", 0, "low"]
    sources = deal(folder, ["X", "Y", "T"], [[*low, *mid[::2], bad], [*mid[1::2], *high, bad], []])
    root = tree_of(folder / "tree", labels)
    hosts = lay(folder, sources, {**FAST, "bad_rows": "drop"}, sharded=True, root=root)
    return hosts, finish(hosts)


@pytest.fixture(params=["replicated", "sharded"])
def ended(request) -> tuple[list[Host], list[int]]:
    return request.getfixturevalue(request.param)


def test_every_host_ends_well_and_only_the_leader_writes(ended):  # T-34
    hosts, codes = ended
    assert set(codes) == {0}, "\n".join(host.log for host in hosts)
    written = [sorted(path.name for path in (host.base / "model").iterdir()) for host in hosts]
    assert {"manifest.json", "model.onnx", "model.joblib"} <= set(written[0])
    assert not any(written[1:])
    assert not any(list((host.base / "output").rglob("*.*")) for host in hosts[1:])
    assert not any(host.failure for host in hosts)


def test_several_hosts_learn_what_one_host_learns(replicated, alone):
    """Bins and the rows that were held out differ, hence the bound; the mean alone is off by 9.2 thousand dollars."""
    assert abs(rmse(replicated[0][0]) - alone) < 1.0


def test_labels_that_a_host_lacks_are_learnt_from_the_others(sharded):
    """X alone tells the label; who takes one host's labels for all, or mixes them up, is right for two thirds at most."""
    manifest = sharded[0][0].manifest()
    assert manifest["labels"] == ["high", "low", "mid"]
    assert manifest["metrics"]["validation:accuracy"] > 0.95


@pytest.mark.parametrize(("job", "rows", "dropped"), [("replicated", 506, 1), ("sharded", 360, 2)])
def test_no_row_is_counted_twice_or_forgotten_and_bad_ones_neither(request, job, rows, dropped):
    data = request.getfixturevalue(job)[0][0].manifest()["data"]
    assert data["train_rows"] + data["validation_rows"] == rows
    assert sum(data["hosts"].values()) == data["train_rows"]
    assert data["rows_dropped"] == dropped


def test_a_host_without_a_file_works_without_rows(sharded):  # T-23
    hosts, _ = sharded
    assert list(hosts[0].manifest()["data"]["hosts"].values())[2] == 0
    assert "rounds on 2 hosts in " in hosts[0].log


def test_every_host_says_what_it_sent_and_received(ended):
    """Who has no rows speaks with the scheduler alone: some 10 kB, where the others exchange histograms, megabytes."""
    laid, _ = ended
    rows = laid[0].manifest()["data"]["hosts"].values()
    for host, own in zip(laid, rows, strict=True):
        least = 500_000 if own else 1_000
        assert all(least < count < 20_000_000 for count in host.traffic), (host.traffic, own)


def test_lightgbm_says_how_it_connects_and_nothing_a_round(ended):
    for host in ended[0]:
        said = re.findall(r"\[LightGBM\] \[\w+\] (.*)", host.log)
        assert [line for line in said if not re.match(r"(Trying to b|B)ind|Listening|Connect|Local rank", line)] == []


@long
def test_two_labels_one_of_them_on_one_host_alone(spaces, tmp_path):
    labels = ("no", "yes")
    no, yes = (rows_of(label, 200, labels) for label in range(2))
    sources = deal(tmp_path, ["X", "Y", "T"], [no[::2], [*no[1::2], *yes]])
    hosts = lay(tmp_path, sources, FAST, sharded=True, root=tree_of(tmp_path / "tree", labels))
    assert finish(hosts) == [0, 0], hosts[0].log
    assert hosts[0].manifest()["metrics"]["validation:accuracy"] > 0.95


@long
def test_the_same_job_on_the_same_hosts_ends_in_the_same_model(replicated, tmp_path):
    first, _ = replicated
    header, rows = header_and_rows()
    hosts = lay(tmp_path, deal(tmp_path, header, [rows]) * 2, FAST)
    assert finish(hosts) == [0, 0]
    models = [
        [(job[0].base / "model" / name).read_bytes() for name in ("model.onnx", "model.joblib")] for job in (first, hosts)
    ]
    assert models[0] == models[1]


@long
def test_what_hosts_send_a_round_does_not_grow_with_the_rows(spaces, tmp_path):
    _, _, columns, rows = fits_over_hosts([5_000, 20_000], [2], 1, tmp_path)
    few, many = ([float(count) for count in row[columns.index("a host and round: kB")].split(", ")] for row in rows)
    assert min(few) > 10
    assert many == pytest.approx(few, rel=0.1)


@long
def test_rows_of_numbers_that_are_spread_are_learnt_from_too(spaces, tmp_path, alone):
    hosts = lay(tmp_path, shards(tmp_path, 3, empty=1), FAST, sharded=True)
    assert finish(hosts) == [0, 0, 0]
    assert abs(rmse(hosts[0]) - alone) < 1.0


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


def test_a_killed_worker_is_named_by_the_leader_in_time(spaces, tmp_path):
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


@pytest.fixture
def bad_shard(tmp_path) -> list[Path]:
    """Two folders of rows; the second's third row is bad."""
    sources = shards(tmp_path, 2)
    text = (sources[1] / "rows.csv").read_text().splitlines()
    (sources[1] / "rows.csv").write_text("\n".join([*text[:3], text[3] + "x", *text[4:]]))
    return sources


def test_bad_data_on_one_host_comes_to_the_leader_with_host_row_and_column(bad_shard, tmp_path, monkeypatch):
    host = lay(tmp_path, bad_shard, FAST, sharded=True)[1]
    monkeypatch.setenv("SAGEMAKER_BASE_DIR", str(host.base))
    values = parse_hyperparameters(FAST, DECLARATION.hyperparameters)
    with pytest.raises(BadData) as caught:
        read_shard(host.address, [f"{host.address}0", host.address], values)
    assert str(pickle.loads(pickle.dumps(caught.value))).startswith(f"Host {host.address}: rows.csv row 3, column MEDV")


@long
def test_bad_data_on_one_host_is_the_jobs_failure_and_names_host_row_and_column(spaces, bad_shard, tmp_path):
    hosts = lay(tmp_path, bad_shard, FAST, sharded=True)
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


def test_scikit_learns_estimators_refuse_rows_that_are_spread():
    channel = Channel("training", SAMPLE, "", distribution="ShardedByS3Key")
    job = Job({}, {"training": channel}, "algo-1", ("algo-1", "algo-2"), "", "")
    with pytest.raises(UserError, match=r"is ShardedByS3Key over 2 hosts\. Make it FullyReplicated.*estimator=lightgbm"):
        check_one_machine(job, {"estimator": "ridge"})


@long
def test_a_host_that_is_cut_off_is_named_in_time_and_ends_too(spaces, tmp_path):
    with fitting(tmp_path) as (hosts, programs):
        cut_off(hosts[1])
        assert [program.wait(90) for program in programs] == [2, 2]
    assert hosts[0].failure.startswith(f"AlgorithmError: Lost host {hosts[1].address} while fitting")
    assert hosts[1].failure.startswith(f"AlgorithmError: The leader {hosts[0].address} is gone")


class Unsendable(Candidate):
    """A candidate that can't be pickled, as an estimator of one's own may be."""

    def __getstate__(self):
        return {**super().__getstate__(), "lock": threading.Lock()}


class Hopeless(Candidate):
    """A candidate whose every fit fails."""

    def fit(self, matrix, target):
        raise ValueError("no fit for it")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers within this process."""
    options = {"processes": False, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as local, distributed.Client(local) as client:
        yield Cluster(client, {f"algo-{number}": address for number, address in enumerate(client.nthreads())}, Stop())


@pytest.mark.parametrize(
    ("kind", "reason"), [(Unsendable, "TypeError: cannot pickle"), (Hopeless, r"ValueError:[\s\S]*no fit for it")]
)
def test_a_search_over_hosts_that_can_score_nothing_fails_with_the_reason(cluster, monkeypatch, kind, reason):
    """One host fails likewise. Left to wait, the job would end with the defaults once `search_seconds` are over."""
    monkeypatch.setattr("training.search.Candidate", kind)
    values = parse_hyperparameters({"estimator": "auto"}, DECLARATION.hyperparameters)
    with pytest.raises(AlgorithmError, match=f"^The search failed: {reason}"):
        search(DECLARATION, values, table(), Stop(), None, partial(look, cluster))


def test_a_host_whose_name_stays_unknown_is_named_after_a_bounded_wait(capsys):  # T-33
    job = Job({}, {}, "127.0.0.2", ("127.0.0.2", "algo-2.invalid"), "", "")
    with pytest.raises(AlgorithmError, match=r"^Host algo-2\.invalid has no address after 0 s of asking"):
        resolve(job, Stop(), patience_s=0.3)
    assert "algo-2.invalid has no address yet" in capsys.readouterr().out
