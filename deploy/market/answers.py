"""What a real server answers to the sample's rows: the image, or the source tree, trains and serves; no answer is typed.

The training job runs without a network, as a buyer's does (M-7); the server is asked by a port of this machine alone.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contract.job import TRAINING
from contract.paths import Paths
from deploy.errors import Failed
from deploy.images.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = "sample"
"""What an error's request_id says: the same each time."""
START_S, ANSWER_S, STOP_S = 480, 60, 30
"""H-7, H-11, H-6."""
LAST_LINES = 15
PORT = 8080


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""


class Runner(Protocol):
    """A way to run the image's words over an /opt/ml."""

    def command(self, word: str, base: Path, port: int, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return the command that runs a word until it ends, and its environment."""


@dataclass(frozen=True)
class Tree:
    """Runs the words as processes of this source tree."""

    root: Path = ROOT

    def command(self, word: str, base: Path, port: int, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment; the Python that runs this has to have the image's libraries."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SAGEMAKER_", "BERTH_"))}
        place = {"SAGEMAKER_BASE_DIR": str(base), "SAGEMAKER_BIND_TO_PORT": str(port)}
        return [sys.executable, str(self.root / "container" / word)], {**inherited, **place, **environ}


@dataclass(frozen=True)
class Container:
    """Runs the words in containers of an image."""

    engine: Engine
    image: str

    def command(self, word: str, base: Path, port: int, environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
        """Return the command and its environment; files belong to who runs this, and a stop reaches the word."""
        network = ["--publish", f"127.0.0.1:{port}:{PORT}"] if word == "serve" else ["--network", "none"]
        variables = [word for name, value in environ.items() for word in ("--env", f"{name}={value}")]
        owner = [] if self.engine.is_podman else ["--user", f"{os.getuid()}:{os.getgid()}"]
        name = f"berth-kit-{uuid.uuid4().hex[:12]}"
        words = [self.engine.program, "run", "--rm", "--name", name, *network, *owner, "--volume", f"{base}:/opt/ml"]
        return [*words, *variables, self.image, word], dict(os.environ)


@contextmanager
def trained(runner: Runner, data: Path, hyperparameters: Mapping[str, str]) -> Iterator[Path]:
    """Train on a folder of files; yield the /opt/ml, which is gone afterwards.

    Raises:
        Failed: the training job did.
    """
    base = Path(tempfile.mkdtemp(prefix="berth-kit-")).resolve()
    try:
        _lay_out(Paths(base), data, hyperparameters)
        command, environ = runner.command("train", base, 0, {})
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Failed(f"`train` ended with exit code {done.returncode}: {_last(done.stdout + done.stderr)}")
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


class Server:
    """A running `serve`."""

    def __init__(self, port: int) -> None:
        """Speak to a port of this machine."""
        self._port = port

    def ask(self, body: bytes, content_type: str, accept: str = "") -> Answer:
        """Return the answer of /invocations."""
        identity = {"X-Amzn-SageMaker-Inference-Id": IDENTITY}
        headers = {"Content-Type": content_type, **identity, **({"Accept": accept} if accept else {})}
        return self._call("POST", "/invocations", body, headers)

    def is_ready(self) -> bool:
        """Say whether /ping is 200."""
        try:
            return self._call("GET", "/ping").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _call(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.read(), {name.lower(): value for name, value in response.getheaders()})
        finally:
            connection.close()


@contextmanager
def serving(runner: Runner, base: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Serve the model of an /opt/ml until the block is left.

    Raises:
        Failed: the server ended, or was not ready in time (H-7).
    """
    port = _free_port()
    command, variables = runner.command("serve", base, port, environ)
    with tempfile.TemporaryFile("w+") as log, _running(command, variables, log.fileno()) as running:
        server, patience = Server(port), time.monotonic() + START_S
        while not server.is_ready():
            if running.poll() is not None or time.monotonic() > patience:
                log.seek(0)
                raise Failed(f"`serve` is not ready: {_last(log.read())}")
            time.sleep(0.1)
        yield server


def in_batches(server: Server, records: Sequence[bytes], content_type: str, size: int) -> bytes:
    """Return what a transform job with SplitType and AssembleWith Line writes for the lines of one object (H-29).

    Raises:
        Failed: a mini-batch was not answered with 200: the object then has no output (H-28).
    """
    parts = []
    for start in range(0, len(records), size):
        answer = server.ask(b"\n".join(records[start : start + size]), content_type, content_type)
        if answer.status != 200:
            raise Failed(f"The batch's records from {start + 1} on are answered with {answer.status}: {answer.body.decode()}")
        parts.append(answer.body.removesuffix(b"\n") + b"\n")
    return b"".join(parts)


def _lay_out(paths: Paths, data: Path, hyperparameters: Mapping[str, str]) -> None:
    """Make the /opt/ml of a job on one host (contract 1.2)."""
    for folder in (paths.config, paths.data, paths.model, paths.base / "output" / "data"):
        folder.mkdir(parents=True)
    shutil.copytree(data, paths.data / TRAINING[0])
    channel = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated"}
    documents = {
        "hyperparameters": dict(hyperparameters),
        "inputdataconfig": {TRAINING[0]: channel},
        "resourceconfig": {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"},
    }
    for name, document in documents.items():
        (paths.config / f"{name}.json").write_text(json.dumps(document))


@contextmanager
def _running(command: Sequence[str], environ: Mapping[str, str], log: int) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _last(text: str) -> str:
    return "\n  ".join(text.strip().splitlines()[-LAST_LINES:]) or "it said nothing"
