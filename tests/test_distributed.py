"""Training on several hosts: machines of their own here are network namespaces, in which `train` runs as it does anywhere."""

from __future__ import annotations

import csv
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

import pytest
from conftest import ROOT, SAMPLE, lacking

from local_test.emulator import lay_out

HOSTS, SWITCH, NETWORK = 3, "berthswitch", "10.99.77"
FAST = {"estimator": "lightgbm", "max_iter": "60"}


@dataclass
class Host:
    """A network namespace with an address, and the /opt/ml of its part of the job."""

    index: int
    base: Path

    @property
    def space(self) -> str:
        return f"berth{self.index}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.index + 1}"

    def start(self) -> subprocess.Popen[str]:
        environ = {**os.environ, "SAGEMAKER_BASE_DIR": str(self.base), "OMP_NUM_THREADS": "1"}
        words = ["ip", "netns", "exec", self.space, sys.executable, str(ROOT / "container" / "train")]
        log = (self.base / "log").open("w")
        return subprocess.Popen(words, env=environ, stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True)

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
def spaces() -> Iterator[int]:
    """Three hosts on a switch, which has a namespace too: this machine's own may filter what crosses a bridge, as Docker does."""
    if shutil.which("ip") is None:
        lacking("there is no ip (package iproute2) to make network namespaces with")
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", SWITCH], capture_output=True).returncode:
        lacking("network namespaces take root's rights")
    try:
        ip("-n", SWITCH, "link", "add", "bridge", "type", "bridge")
        ip("-n", SWITCH, "link", "set", "bridge", "up")
        for index in range(HOSTS):
            connect(index)
        yield HOSTS
    finally:
        for space in (*(f"berth{index}" for index in range(HOSTS)), SWITCH):
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


def connect(index: int) -> None:
    space, port = f"berth{index}", f"port{index}"
    ip("netns", "add", space)
    ip("-n", SWITCH, "link", "add", port, "type", "veth", "peer", "name", "net", "netns", space)
    ip("-n", SWITCH, "link", "set", port, "master", "bridge", "up")
    ip("-n", space, "addr", "add", f"{NETWORK}.{index + 1}/24", "dev", "net")
    ip("-n", space, "link", "set", "net", "up")
    ip("-n", space, "link", "set", "lo", "up")


def lay(tmp_path: Path, sources: Sequence[Path], knobs: dict[str, str], distribution: str) -> list[Host]:
    """Return hosts with what the platform gives each of them: one source a host."""
    hosts = [Host(index, tmp_path / f"host{index}") for index in range(len(sources))]
    names = [host.address for host in hosts]
    for host, source in zip(hosts, sources, strict=True):
        lay_out(host.base, {"training": source}, knobs)
        config = host.base / "input" / "config"
        described = {"training": {"TrainingInputMode": "File", "S3DistributionType": distribution}}
        (config / "inputdataconfig.json").write_text(json.dumps(described))
        (config / "resourceconfig.json").write_text(json.dumps({"current_host": host.address, "hosts": names}))
    return hosts


@contextmanager
def running(hosts: Sequence[Host]) -> Iterator[list[subprocess.Popen[str]]]:
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
    return host.manifest()["metrics"]["validation:rmse"]


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
