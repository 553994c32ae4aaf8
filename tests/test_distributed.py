"""Training on several hosts: machines of their own here are network namespaces, in which `train` runs as it does anywhere."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import joblib
import pytest
from conftest import ROOT, SAMPLE, lacking

from contract.errors import AlgorithmError
from contract.job import Channel, Job
from local_test.emulator import lay_out
from model import DECLARATION
from model.metrics import measure
from training.network import resolve
from training.read import read_channel
from training.stop import Stop

SWITCH, NETWORK, JOBS = "berthswitch", "10.99.77", itertools.count()
FAST = {"estimator": "lightgbm", "max_iter": "60"}


@dataclass
class Host:
    """A network namespace with an address, and the /opt/ml of its part of the job."""

    index: int
    base: Path
    job: int = 0

    @property
    def space(self) -> str:
        return f"berth{self.job}-{self.index}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.index + 1}"

    def start(self) -> subprocess.Popen[bytes]:
        environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(self.base), "OMP_NUM_THREADS": "1"}
        words = ["ip", "netns", "exec", self.space, sys.executable, str(ROOT / "container" / "train")]
        with (self.base / "log").open("w") as log:
            return subprocess.Popen(words, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def log(self) -> str:
        return (self.base / "log").read_text()

    @property
    def failure(self) -> str:
        path = self.base / "output" / "failure"
        return path.read_text() if path.exists() else ""

    def manifest(self) -> dict:
        return json.loads((self.base / "model" / "manifest.json").read_text())


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def spaces() -> None:
    """That this machine can play several hosts."""
    if shutil.which("ip") is None:
        lacking("there is no ip (package iproute2) to make network namespaces with")
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", SWITCH], capture_output=True).returncode:
        lacking("network namespaces take root's rights")
    ip("netns", "del", SWITCH)


@contextmanager
def network(hosts: Sequence[Host]) -> Iterator[None]:
    """Connect hosts by a switch, in a namespace too: this machine's own may filter what crosses a bridge, as Docker does.

    Each job has new ones, as containers are new: a port is not free at once after a job that was killed.
    """
    switch = f"{SWITCH}{hosts[0].job}"
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in hosts:
            connect(host, switch)
        yield
    finally:
        for space in (*(host.space for host in hosts), switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


def connect(host: Host, switch: str) -> None:
    port = f"port{host.index}"
    ip("netns", "add", host.space)
    ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "net", "netns", host.space)
    ip("-n", switch, "link", "set", port, "master", "bridge", "up")
    ip("-n", host.space, "addr", "add", f"{host.address}/24", "dev", "net")
    ip("-n", host.space, "link", "set", "net", "up")
    ip("-n", host.space, "link", "set", "lo", "up")


def lay(tmp_path: Path, sources: Sequence[Path], knobs: dict[str, str], distribution: str) -> list[Host]:
    """Return hosts with what the platform gives each of them: one source a host."""
    job = next(JOBS)
    hosts = [Host(index, tmp_path / f"host{index}", job) for index in range(len(sources))]
    names = [host.address for host in hosts]
    for host, source in zip(hosts, sources, strict=True):
        lay_out(host.base, {"training": source}, knobs)
        config = host.base / "input" / "config"
        described = {"training": {"TrainingInputMode": "File", "S3DistributionType": distribution}}
        (config / "inputdataconfig.json").write_text(json.dumps(described))
        (config / "resourceconfig.json").write_text(json.dumps({"current_host": host.address, "hosts": names}))
    return hosts


@contextmanager
def running(hosts: Sequence[Host]) -> Iterator[list[subprocess.Popen[bytes]]]:
    with network(hosts):
        programs = [host.start() for host in hosts]
        try:
            yield programs
        finally:
            for program in programs:
                if program.poll() is None:
                    os.killpg(program.pid, signal.SIGKILL)
                    program.wait()


def finish(hosts: Sequence[Host], timeout_s: float = 240) -> list[int]:
    """Run the job to its end and return the exit codes."""
    with running(hosts) as programs:
        return [program.wait(timeout_s) for program in programs]


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
    host = Host(0, tmp_path_factory.mktemp("alone"))
    lay_out(host.base, {"training": SAMPLE}, FAST)
    environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(host.base)}
    subprocess.run([sys.executable, ROOT / "container" / "train"], env=environ, check=True, capture_output=True)
    return rmse(host)


@pytest.fixture(scope="module")
def replicated(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of three hosts that all have all rows, ended."""
    hosts = lay(tmp_path_factory.mktemp("replicated"), [SAMPLE] * 3, FAST, "FullyReplicated")
    return hosts, finish(hosts)


@pytest.fixture(scope="module")
def sharded(spaces, tmp_path_factory) -> tuple[list[Host], list[int]]:
    """A job of three hosts, of which the last has been given no file, ended."""
    folder = tmp_path_factory.mktemp("sharded")
    hosts = lay(folder, shards(folder, 3, empty=1), FAST, "ShardedByS3Key")
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
        sent, received = re.search(r"network: [\d.]+ sent (\d+) bytes, received (\d+) bytes, [\d.]+ s\n", host.log).groups()
        assert 10_000 < int(sent) < 20_000_000
        assert 10_000 < int(received) < 20_000_000


def at_work(hosts: Sequence[Host], programs, sign: str) -> None:
    """Wait until the leader has printed a line."""
    deadline = time.monotonic() + 60
    while sign not in hosts[0].log:
        assert time.monotonic() < deadline, hosts[0].log
        assert programs[0].poll() is None, hosts[0].log
        time.sleep(0.1)


def worker_of(host: Host) -> int:
    """Return the process id of a host's Dask worker."""
    listed = subprocess.run(["ip", "netns", "pids", host.space], capture_output=True, text=True, check=True).stdout.split()
    return next(int(pid) for pid in listed if b"dask_worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


LONG = {**FAST, "max_iter": "10000", "max_leaf_nodes": "200", "min_samples_leaf": "1"}


@contextmanager
def fitting(tmp_path: Path) -> Iterator[tuple[list[Host], list[subprocess.Popen[bytes]]]]:
    """A job of two hosts in the midst of a fit that would take minutes."""
    hosts = lay(tmp_path, [SAMPLE] * 2, LONG, "FullyReplicated")
    with running(hosts) as programs:
        at_work(hosts, programs, "Local rank")
        yield hosts, programs


@pytest.fixture(scope="module")
def cut_off(spaces, tmp_path_factory) -> Iterator[tuple[list[Host], list[subprocess.Popen[bytes]]]]:
    """A job one of whose hosts has lost its network; what takes long about it is the waiting, so that others run meanwhile."""
    with fitting(tmp_path_factory.mktemp("cut-off")) as (hosts, programs):
        ip("-n", f"{SWITCH}{hosts[0].job}", "link", "set", "port1", "down")
        yield hosts, programs


def test_a_killed_worker_is_named_by_the_leader_in_time(cut_off, tmp_path):
    with fitting(tmp_path) as (hosts, programs):
        os.kill(worker_of(hosts[1]), signal.SIGKILL)
        assert programs[0].wait(15) == 2
        assert programs[1].wait(45) == 2
    assert hosts[0].failure.startswith(f"AlgorithmError: Lost host {hosts[1].address} while fitting")
    assert hosts[1].failure == ""
    assert not any((hosts[0].base / "model").iterdir())


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
    hosts = lay(tmp_path, sources, FAST, "ShardedByS3Key")
    assert finish(hosts) == [1, 1]
    assert hosts[0].failure.startswith(f"UserError: Host {hosts[1].address}: rows.csv row 3")
    assert hosts[1].failure == ""


def test_scikit_learns_estimators_fit_on_the_leader_and_cross_validate_on_all(spaces, tmp_path):
    hosts = lay(tmp_path, [SAMPLE] * 2, {"estimator": "ridge", "cv_folds": "4"}, "FullyReplicated")
    assert finish(hosts) == [0, 0]
    assert float(re.search(r"metric cv:rmse=([\d.]+);", hosts[0].log)[1]) == pytest.approx(5.3, abs=0.6)
    assert hosts[0].manifest()["data"]["train_rows"] == 404


def test_scikit_learns_estimators_refuse_rows_that_are_spread(spaces, tmp_path):
    hosts = lay(tmp_path, shards(tmp_path, 2), {"estimator": "ridge"}, "ShardedByS3Key")
    assert finish(hosts) == [1, 1]
    assert "is ShardedByS3Key over 2 hosts. Make it FullyReplicated" in hosts[0].failure
    assert "estimator=lightgbm" in hosts[0].failure


def test_a_host_that_is_cut_off_is_named_in_time_and_ends_too(cut_off):
    hosts, programs = cut_off
    assert [program.wait(120) for program in programs] == [2, 2]
    assert hosts[0].failure.startswith(f"AlgorithmError: Lost host {hosts[1].address} while fitting")
    assert hosts[1].failure.startswith(f"AlgorithmError: The leader {hosts[0].address} is gone")


def test_a_host_whose_name_stays_unknown_is_named_after_a_bounded_wait(capsys):  # T-33
    job = Job({}, {}, "127.0.0.2", ("127.0.0.2", "algo-2.invalid"), "", "")
    with pytest.raises(AlgorithmError, match=r"^Host algo-2\.invalid has no address after 0 s of asking"):
        resolve(job, Stop(), patience_s=0.3)
    assert "algo-2.invalid has no address yet" in capsys.readouterr().out
