"""Two ways to run the image's words over an /opt/ml: as processes of a source tree, and as containers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from local_test.network import OutOfReach, is_beside

WATCHED = {
    "lines": ("logs", "--timestamps"),
    "changed": ("diff",),
    "times": ("inspect", "--format", "[{{json .State.StartedAt}}, {{json .State.FinishedAt}}]"),
}
"""What is asked of a container that is watched, once it has ended."""
ROOT = Path(__file__).resolve().parent.parent


class Program(Protocol):
    """A running `train` or `serve`."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""

    @property
    def pid(self) -> int:
        """Its first process, as this machine numbers it; 0 where that can't be seen from here."""

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""

    def is_running(self) -> bool:
        """Say whether it has not ended."""

    def signal(self, number: int) -> None:
        """Send a signal to the program's first process."""

    def output(self) -> str:
        """Return what it has printed so far."""


class Platform(Protocol):
    """A way to run the image's words over an /opt/ml."""

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start `train` or `serve`."""


@dataclass(frozen=True)
class Processes:
    """Runs the words from a source tree, without Docker."""

    root: Path = ROOT

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start a word with SAGEMAKER_BASE_DIR for /opt/ml; `serve` takes a free port."""
        port = int(environ.get("SAGEMAKER_BIND_TO_PORT") or free_port()) if word == "serve" else 0
        own = {"SAGEMAKER_BASE_DIR": str(base), **({"SAGEMAKER_BIND_TO_PORT": str(port)} if port else {})}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SAGEMAKER_")}
        log = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the program runs
        popen = subprocess.Popen(
            [sys.executable, self.root / "container" / word],
            env={**inherited, **own, **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        return Process(popen, log, f"http://127.0.0.1:{port}")


@dataclass
class Process:
    """A word as a process of this machine."""

    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    url: str
    final: str = ""
    """All that it printed, once it has ended."""

    @property
    def pid(self) -> int:
        """Its first process."""
        return self.popen.pid

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code."""
        code = self.popen.wait(timeout_s)
        self.final = self.output()
        self.log.close()
        return code

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def output(self) -> str:
        """Return what it has printed so far."""
        if self.log.closed:
            return self.final
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode("utf-8", "replace")  # the offset is the program's too


@dataclass(frozen=True)
class Launch:
    """How a container is started, where it is not as `start` does."""

    words: tuple[str, ...] = ("serve",)
    """What follows the image's name: none for a bare start."""
    environ: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[str, ...] = ()
    """`folder:place[:ro]`."""
    port: int = 8080
    """Where it is expected to listen; 0 for a program that doesn't, which gets no network."""
    options: tuple[str, ...] = ()
    """More words for `docker run`, such as `--read-only`."""
    network: str = ""
    """The network to be on; where none is named, an internal one with a port and none without."""
    watched: bool = False
    """Whether to note, once it has ended, when it printed what and which of the image's own files it changed."""


@dataclass(frozen=True)
class Containers:
    """Runs the words of an image, without a network that leads anywhere."""

    image: str
    docker: str = "docker"
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise RuntimeError where the image isn't there."""
        try:
            self._docker("image", "inspect", "--format", "{{.Id}}", self.image)
        except RuntimeError as error:
            raise RuntimeError(f"{error}. Build it first: make image IMAGE={self.image}") from None

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start `docker run IMAGE WORD` over the tree (T-1, H-1); `serve` sees nothing but the model, read-only."""
        mount = f"{base}:/opt/ml" if word == "train" else f"{base / 'model'}:/opt/ml/model:ro"
        return self.launch(Launch((word,), environ, (mount,), 8080 if word == "serve" else 0))

    def launch(self, launch: Launch) -> Container:
        """Start a container.

        Raises:
            RuntimeError: the engine can't start it: no such word on PATH, say; the message has the engine's own.
        """
        name = f"berth-{uuid.uuid4().hex[:12]}"
        variables = [part for item in launch.environ.items() for part in ("--env", "=".join(item))]
        mounts = [part for mount in launch.mounts for part in ("--volume", mount)]
        network = launch.network or (_internal_network(self.docker) if launch.port else "none")
        command = ["run", "--detach", "--name", name, "--network", network, *mounts, *variables, *self.options, *launch.options]
        try:
            self._docker(*command, self.image, *launch.words)
        except RuntimeError:
            subprocess.run([self.docker, "rm", "--force", name], capture_output=True, check=False)  # it was made, not started
            _internal_network.cache_clear()  # somebody may have removed it
            raise
        url = f"http://{self._address(name)}:{launch.port}" if launch.port else ""
        return Container(self.docker, name, url, watched=launch.watched)

    def inspect(self) -> dict[str, Any]:
        """Return what the engine knows of the image."""
        found: dict[str, Any] = json.loads(self._docker("image", "inspect", self.image))[0]
        return found

    def _address(self, name: str) -> str:
        """Return a container's address; raises OutOfReach where it is on no network of this machine's."""
        told = "{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}"
        found = self._docker("inspect", "--format", told, name)
        if found.strip("/0") and not is_beside(found):
            subprocess.run([self.docker, "rm", "--force", name], capture_output=True, check=False)
            raise OutOfReach(f"{self.docker}'s containers can't be reached from here: this machine has no address in {found}")
        return found.partition("/")[0]

    def _docker(self, *arguments: str) -> str:
        return _told(self.docker, *arguments)


@cache
def _internal_network(docker: str) -> str:
    """Return a network on which this machine reaches containers and they reach nothing; it is looked for once."""
    if subprocess.run([docker, "network", "inspect", "berth-internal"], capture_output=True, check=False).returncode:
        try:
            _told(docker, "network", "create", "--internal", "berth-internal")
        except RuntimeError:  # another run may have made it meanwhile
            _told(docker, "network", "inspect", "berth-internal")
    return "berth-internal"


def _told(docker: str, *arguments: str) -> str:
    """Return what the engine's client prints; raises RuntimeError with what it says where it fails."""
    done = subprocess.run([docker, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Container:
    """A word as a container; it is removed once it has been waited for."""

    docker: str
    name: str
    url: str
    ended: dict[str, Any] = field(default_factory=dict)
    watched: bool = False

    @cached_property
    def pid(self) -> int:
        """Its first process; 0 where the engine runs on another machine, or in a virtual one."""
        asked = [self.docker, "inspect", "--format", "{{.State.Pid}} {{.Id}}", self.name]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if len(told) != 2 or told[0] == "0":
            return 0
        try:
            groups = Path(f"/proc/{told[0]}/cgroup").read_text()
        except OSError:
            return 0
        return int(told[0]) if told[1] in groups else 0  # the number may be another process's here

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""
        if not self.ended:
            if timeout_s is not None and timeout_s < 1 and self.is_running():  # too short for a client to start and wait
                raise subprocess.TimeoutExpired("docker wait", timeout_s)
            done = subprocess.run(
                [self.docker, "wait", self.name], capture_output=True, text=True, timeout=timeout_s, check=True
            )
            seen = {name: self._ask(*words) for name, words in WATCHED.items()} if self.watched else {}
            self.ended.update(output=self.output(), code=int(done.stdout), **seen)
            subprocess.run([self.docker, "rm", "--force", self.name], capture_output=True, check=False)
        return int(self.ended["code"])

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        state = [self.docker, "inspect", "--format", "{{.State.Running}}", self.name]
        return subprocess.run(state, capture_output=True, text=True, check=False).stdout.strip() == "true"

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended takes none."""
        subprocess.run([self.docker, "kill", "--signal", str(int(number)), self.name], capture_output=True, check=False)

    def output(self) -> str:
        """Return what it has printed so far."""
        if self.ended:
            return str(self.ended["output"])
        return self._ask("logs")

    @property
    def printed_at(self) -> list[float]:
        """When each line came, in seconds since its start, once it has ended and was watched."""
        moments = (line.split(" ", 1)[0] for line in self.ended.get("lines", "").splitlines())
        return [(datetime.fromisoformat(moment) - self._times[0]).total_seconds() for moment in moments if moment]

    @property
    def ran_s(self) -> float:
        """How long it ran, by the engine's clock, once it has ended and was watched."""
        return (self._times[1] - self._times[0]).total_seconds()

    @property
    def _times(self) -> list[datetime]:
        return [datetime.fromisoformat(moment) for moment in json.loads(self.ended["times"])]

    @property
    def changed(self) -> list[str]:
        """The paths in the image's own file system that it made, changed or removed, once it has ended and was watched."""
        return [line.split(" ", 1)[1] for line in self.ended.get("changed", "").splitlines() if " " in line]

    def _ask(self, *words: str) -> str:
        command = [self.docker, *words, self.name]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", check=False
        )
        return done.stdout


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
