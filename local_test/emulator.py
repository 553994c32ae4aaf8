"""The platform's part, played here: an /opt/ml laid out for a job, `train` and `serve` run as processes or as containers.

What the platform does and a plain start does not: no network, the model mounted read-only (H-4), 2 s for a ping (H-8),
60 s for an invocation (H-11), SIGTERM and then SIGKILL (T-27: 120 s, H-6: 30 s).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

ROOT = Path(__file__).resolve().parent.parent
PING_S, INVOKE_S, START_S = 2, 60, 480  # H-7: 8 minutes until the first 200
STOP_TRAINING_S, STOP_SERVING_S = 120, 30


@dataclass(frozen=True)
class Reply:
    """What the server answered."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    seconds: float

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


@dataclass(frozen=True)
class Outcome:
    """How a training job ended."""

    exit_code: int
    output: str
    failure: str
    """The failure file's text, empty without one (T-26)."""
    seconds: float


class Program(Protocol):
    """A running `train` or `serve`."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""

    def signal(self, number: int) -> None:
        """Send a signal to the program's first process."""

    def output(self) -> str:
        """Return what it has printed so far."""


class Platform(Protocol):
    """A way to run the image's words over an /opt/ml."""

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start `train` or `serve`."""


def lay_out(base: Path, channels: Mapping[str, Path], hyperparameters: Mapping[str, str] | None = None) -> None:
    """Make the /opt/ml of a training job below `base`: the three config files of every platform, the channels' copies."""
    config = base / "input" / "config"
    for folder in (config, base / "model", base / "output" / "data"):  # T-12
        folder.mkdir(parents=True, exist_ok=True)
    for name, source in channels.items():
        shutil.copytree(source, base / "input" / "data" / name, dirs_exist_ok=True)
    described = {name: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"} for name in channels}
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}
    documents = {"hyperparameters": hyperparameters or {}, "inputdataconfig": described, "resourceconfig": resources}
    for name, document in documents.items():
        (config / f"{name}.json").write_text(json.dumps(document))


def train(
    platform: Platform, base: Path, environ: Mapping[str, str] | None = None, stop_after_s: float | None = None
) -> Outcome:
    """Run a training job to its end; with `stop_after_s`, stop it as StopTrainingJob does."""
    started = time.monotonic()
    program = platform.start("train", base, environ or {})
    try:
        exit_code = program.wait(stop_after_s)
    except subprocess.TimeoutExpired:
        exit_code = stop(program, STOP_TRAINING_S)
    failure = base / "output" / "failure"
    text = failure.read_text() if failure.exists() else ""
    return Outcome(exit_code, program.output(), text, time.monotonic() - started)


def stop(program: Program, patience_s: float) -> int:
    """Send SIGTERM, after the platform's patience SIGKILL, and return the exit code."""
    program.signal(signal.SIGTERM)
    try:
        return program.wait(patience_s)
    except subprocess.TimeoutExpired:
        program.signal(signal.SIGKILL)
        return program.wait()


@dataclass
class Endpoint:
    """A started `serve`."""

    program: Program
    seconds_to_ready: float = field(default=0.0)

    def ping(self) -> Reply:
        """Ask `/ping` as the platform does."""
        return self._call("GET", "/ping", None, {}, PING_S)

    def invoke(self, body: bytes, content_type: str = "text/csv", accept: str = "", path: str = "/invocations") -> Reply:
        """Send a payload; headers as SageMaker leaves them (H-13)."""
        headers = {"Content-Type": content_type, **({"Accept": accept} if accept else {})}
        return self._call("POST", path, body, headers, INVOKE_S)

    def get(self, path: str) -> Reply:
        """Get a page."""
        return self._call("GET", path, None, {}, INVOKE_S)

    def _call(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float) -> Reply:
        request = urllib.request.Request(self.program.url + path, body, dict(headers), method=method)
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return Reply(response.status, response.read(), dict(response.headers), time.monotonic() - started)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), dict(error.headers), time.monotonic() - started)


@contextlib.contextmanager
def serving(platform: Platform, base: Path, environ: Mapping[str, str] | None = None) -> Iterator[Endpoint]:
    """Start `serve`, wait until `/ping` is 200, give the endpoint, and stop it as the platform does.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message has what it printed.
    """
    started = time.monotonic()
    program = platform.start("serve", base, environ or {})
    endpoint = Endpoint(program)
    try:
        _wait_until_ready(endpoint, started)
        endpoint.seconds_to_ready = time.monotonic() - started
        yield endpoint
    finally:
        stop(program, STOP_SERVING_S)


def _wait_until_ready(endpoint: Endpoint, started: float) -> None:
    while time.monotonic() - started < START_S:
        with contextlib.suppress(OSError):
            if endpoint.ping().status == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = endpoint.program.wait(0.01)
            raise RuntimeError(f"serve ended with exit code {code} before /ping answered 200:\n{endpoint.program.output()}")
    raise RuntimeError(f"/ping did not answer 200 within {START_S} s:\n{endpoint.program.output()}")


@dataclass(frozen=True)
class Processes:
    """Runs the words from a source tree, without Docker."""

    root: Path = ROOT

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start a word with SAGEMAKER_BASE_DIR for /opt/ml; `serve` takes a free port."""
        port = _free_port() if word == "serve" else 0
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

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code."""
        code = self.popen.wait(timeout_s)
        self.final = self.output()
        self.log.close()
        return code

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.popen.send_signal(number)

    def output(self) -> str:
        """Return what it has printed so far."""
        if self.log.closed:
            return self.final
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")


@dataclass(frozen=True)
class Containers:
    """Runs the words of an image, without a network that leads anywhere."""

    image: str
    docker: str = "docker"
    options: tuple[str, ...] = ()

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Program:
        """Start `docker run IMAGE WORD` over the tree (T-1, H-1); `serve` sees nothing but the model, read-only."""
        mount = f"{base}:/opt/ml" if word == "train" else f"{base / 'model'}:/opt/ml/model:ro"
        name = f"berth-{word}-{uuid.uuid4().hex[:8]}"
        variables = [part for item in environ.items() for part in ("--env", "=".join(item))]
        network = self._internal_network() if word == "serve" else "none"
        command = ["run", "--detach", "--name", name, "--network", network, "--volume", mount, *variables, *self.options]
        self._docker(*command, self.image, word)
        return Container(self.docker, name, f"http://{self._address(name)}:8080" if word == "serve" else "")

    def _internal_network(self) -> str:
        """Return a network on which this machine reaches containers and they reach nothing."""
        if subprocess.run([self.docker, "network", "inspect", "berth-internal"], capture_output=True, check=False).returncode:
            self._docker("network", "create", "--internal", "berth-internal")
        return "berth-internal"

    def _address(self, name: str) -> str:
        return self._docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)

    def _docker(self, *arguments: str) -> str:
        done = subprocess.run([self.docker, *arguments], capture_output=True, text=True, check=False)
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

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code."""
        if not self.ended:
            done = subprocess.run(
                [self.docker, "wait", self.name], capture_output=True, text=True, timeout=timeout_s, check=True
            )
            self.ended.update(output=self.output(), code=int(done.stdout))
            subprocess.run([self.docker, "rm", "--force", self.name], capture_output=True, check=False)
        return int(self.ended["code"])

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended takes none."""
        subprocess.run([self.docker, "kill", "--signal", str(int(number)), self.name], capture_output=True, check=False)

    def output(self) -> str:
        """Return what it has printed so far."""
        if self.ended:
            return str(self.ended["output"])
        done = subprocess.run(
            [self.docker, "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
