"""Several hosts on one machine: each a network namespace with an /opt/ml of its own, in which `train` runs as it does anywhere.

It takes root's rights and `ip` (package iproute2). Hosts of two jobs, or of two programs that play jobs, never meet.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_test.emulator import lay_out
from local_test.runners import ROOT

SWITCH, NETWORK, JOBS = "berthswitch", "10.99.77", itertools.count()
Program = subprocess.Popen[bytes]


@dataclass
class Host:
    """A network namespace with an address, and the /opt/ml of its part of the job."""

    index: int
    base: Path
    job: str
    root: Path = ROOT
    """The source tree it trains from."""

    @property
    def space(self) -> str:
        """The name of its network namespace."""
        return f"berth{self.job}-{self.index}"

    @property
    def switch(self) -> str:
        """The name of the namespace that connects its job's hosts."""
        return f"{SWITCH}{self.job}"

    @property
    def address(self) -> str:
        """Its address, which is its name in the job too."""
        return f"{NETWORK}.{self.index + 1}"

    @property
    def log(self) -> str:
        """What `train` has printed so far."""
        return (self.base / "log").read_text()

    @property
    def failure(self) -> str:
        """The failure file's text, empty without one."""
        path = self.base / "output" / "failure"
        return path.read_text() if path.exists() else ""

    @property
    def traffic(self) -> tuple[int, int]:
        """The bytes that it says it has sent, and received."""
        found = re.search(r"network: [\d.]+ sent (\d+) bytes, received (\d+) bytes, [\d.]+ s\n", self.log)
        if not found:
            raise RuntimeError(f"Host {self.address} does not say what it sent and received:\n{self.log}")
        return int(found[1]), int(found[2])

    def manifest(self) -> dict[str, Any]:
        """Return its model's manifest, as JSON types."""
        manifest: dict[str, Any] = json.loads((self.base / "model" / "manifest.json").read_text())
        return manifest

    def start(self, environ: Mapping[str, str]) -> Program:
        """Start `train` in the namespace, as the first of a process group."""
        own = {"SAGEMAKER_BASE_DIR": str(self.base), "OMP_NUM_THREADS": "1"}
        words = ["ip", "netns", "exec", self.space, sys.executable, str(self.root / "container" / "train")]
        with (self.base / "log").open("w") as log:
            return subprocess.Popen(
                words, env={**os.environ, **own, **environ}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )


def missing() -> str:
    """Say what this machine lacks to play several hosts; empty where it lacks nothing."""
    if shutil.which("ip") is None:
        return "there is no ip (package iproute2) to make network namespaces with"
    probe = f"{SWITCH}{os.getpid()}"
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:  # noqa: S607
        return "network namespaces take root's rights"
    ip("netns", "del", probe)
    return ""


def lay(
    folder: Path,
    sources: Sequence[Path],
    knobs: Mapping[str, str],
    *,
    held_out: Path | None = None,
    sharded: bool = False,
    root: Path = ROOT,
) -> list[Host]:
    """Return hosts with what the platform gives each of them: one source of the training channel a host."""
    validation = {"validation": held_out} if held_out else {}
    job = f"{os.getpid()}-{next(JOBS)}"
    hosts = [Host(index, folder / f"host{index}", job, root) for index in range(len(sources))]
    names = [host.address for host in hosts]
    distribution = {"training": {"S3DistributionType": "ShardedByS3Key" if sharded else "FullyReplicated"}}
    for host, source in zip(hosts, sources, strict=True):
        lay_out(host.base, {"training": source, **validation}, knobs, distribution)
        resources = {"current_host": host.address, "hosts": names}
        (host.base / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    return hosts


@contextmanager
def running(hosts: Sequence[Host], environ: Mapping[str, str] | None = None) -> Iterator[list[Program]]:
    """Start the job on all hosts, and kill what of it still runs at the end."""
    with _network(hosts):
        programs = [host.start(environ or {}) for host in hosts]
        try:
            yield programs
        finally:
            for program in programs:
                if program.poll() is None:
                    os.killpg(program.pid, signal.SIGKILL)
                    program.wait()


def finish(hosts: Sequence[Host], environ: Mapping[str, str] | None = None, timeout_s: float = 240) -> list[int]:
    """Run the job to its end and return the exit codes."""
    with running(hosts, environ) as programs:
        return [program.wait(timeout_s) for program in programs]


def cut_off(host: Host) -> None:
    """Take a host's network away, as a cable that is drawn."""
    ip("-n", host.switch, "link", "set", f"port{host.index}", "down")


def worker_of(host: Host) -> int:
    """Return the process id of a host's Dask worker."""
    listed = subprocess.run(["ip", "netns", "pids", host.space], capture_output=True, text=True, check=True).stdout.split()  # noqa: S607
    return next(int(pid) for pid in listed if b"dask_worker" in (Path("/proc") / pid / "cmdline").read_bytes())


def ip(*words: str) -> None:
    """Run the command of this name."""
    subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: S607


@contextmanager
def _network(hosts: Sequence[Host]) -> Iterator[None]:
    """Connect hosts by a switch, in a namespace too: this machine's own may filter what crosses a bridge, as Docker does.

    Each job has new ones, as containers are new: a port is not free at once after a job that was killed.
    """
    switch = hosts[0].switch
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        for host in hosts:
            _connect(host)
        yield
    finally:
        for space in (*(host.space for host in hosts), switch):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)  # noqa: S607


def _connect(host: Host) -> None:
    port = f"port{host.index}"
    ip("netns", "add", host.space)
    ip("-n", host.switch, "link", "add", port, "type", "veth", "peer", "name", "net", "netns", host.space)
    ip("-n", host.switch, "link", "set", port, "master", "bridge", "up")
    ip("-n", host.space, "addr", "add", f"{host.address}/24", "dev", "net")
    ip("-n", host.space, "link", "set", "net", "up")
    ip("-n", host.space, "link", "set", "lo", "up")
