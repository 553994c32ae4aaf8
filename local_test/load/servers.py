"""The servers that are compared, each a process on a port of its own, all on one CPU that the generator keeps off."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from local_test.load.wrk import on_cpu
from local_test.procfs import cpu_seconds, family, resident_mb
from local_test.runners import ROOT, free_port

ECHO, BERTH, FASTAPI, FLASK = "echo", "berth", "fastapi", "flask"
TITLES = {
    ECHO: "bare echo",
    BERTH: "**Berth**",
    FASTAPI: "FastAPI, orjson, onnxruntime",
    FLASK: "Flask, pandas, scikit-learn",
}
"""Name to what the table calls it."""
OTHERS = (FASTAPI, FLASK)
"""Those that need an environment of their own."""
OTHERS_PYTHON = ROOT / ".venv-load" / "bin" / "python"
THREADS = 4
START_S, STOP_S, SETTLE_S, CALL_S = 60, 10, 60, 60
LOG_CHARACTERS = 3_000
OURS = ("SAGEMAKER_", "AIP_", "AZUREML_", "BERTH_", "PORT")
"""Variables that would make `serve` another than it is by default."""
ECHO_PROGRAM = """
import os, sys
sys.path[0] = sys.argv[1]
from serving.server import Server, Settings

ANSWER = open(sys.argv[2], "rb").read()
HEAD = {"type": "http.response.start", "status": 200, "headers": [
    (b"content-length", str(len(ANSWER)).encode()), (b"content-type", sys.argv[3].encode())]}
BODY = {"type": "http.response.body", "body": ANSWER}

class Echo:
    class metrics:
        take_slot = staticmethod(lambda taken: 0)
        free_slot = staticmethod(lambda slot: None)
    async def __call__(self, scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send(HEAD)
        await send(BODY)

Server(Echo(), Settings.from_environ(os.environ)).run()
"""
"""The floor: the server that `serve` starts, with its settings and workers, around an application that does nothing."""


@dataclass(frozen=True)
class Given:
    """What servers are started with."""

    base: Path
    """An /opt/ml with a model."""
    cpu: int
    """The one that all run on."""
    answer: Path
    """A file with the answer that the echo gives, whatever it is asked."""
    python: Path = OTHERS_PYTHON
    """Of the environment that has what others serve with."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """What is added to the environment."""
    program: str = ""
    """Python that starts Berth, in place of `serve`."""

    @property
    def model(self) -> Path:
        """The model directory."""
        return self.base / "model"


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    popen: subprocess.Popen[bytes]
    log: IO[bytes]
    port: int

    @property
    def url(self) -> str:
        """Where predictions are asked for."""
        return f"http://127.0.0.1:{self.port}/invocations"

    def ask(self, body: bytes, media_type: str) -> bytes:
        """Return the answer to one request; raises RuntimeError where it is none of success."""
        request = urllib.request.Request(self.url, body, {"Content-Type": media_type})
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as response:
                return bytes(response.read())
        except OSError as error:
            said = error.read().decode("utf-8", "replace") if isinstance(error, urllib.error.HTTPError) else ""
            raise self.failure(f"{error} {said[:500]}".strip()) from error

    def cpu_s(self) -> float:
        """Return the CPU time that all its processes have had."""
        return cpu_seconds(family(self.popen.pid))

    def memory_mb(self) -> float:
        """Return what all its processes hold, shared pages counted once."""
        return resident_mb(self.popen.pid)

    def settle(self) -> None:
        """Wait until it has nothing to do: it may still work for connections that are closed.

        Raises:
            RuntimeError: it has ended, or does not come to rest.
        """
        ends, before = time.monotonic() + SETTLE_S, -1.0
        while time.monotonic() < ends:
            if self.popen.poll() is not None:
                raise self.failure(f"ended with exit code {self.popen.returncode}")
            now = self.cpu_s()
            if now == before:
                return
            before = now
            time.sleep(0.05)
        raise self.failure(f"still computes {SETTLE_S} s after the last request")

    def said(self) -> str:
        """Return what it has printed so far."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode("utf-8", "replace").strip()

    def failure(self, what: str) -> RuntimeError:
        """Return the error that tells what it did, with the end of its log."""
        return RuntimeError(f"{TITLES[self.name].strip('*')}: {what}\n{self.said()[-LOG_CHARACTERS:]}")


@contextlib.contextmanager
def started(name: str, given: Given, media_type: str) -> Iterator[Server]:
    """Start a server afresh on the CPU of all, wait until `/ping` is 200, give it, and stop it.

    Raises:
        RuntimeError: it did not start, or its environment is not there.
    """
    if name in OTHERS and not given.python.exists():
        raise RuntimeError(
            f"{given.python.parent.parent} is not there, which {TITLES[name]} runs in. `make load` makes it; by hand: "
            f"{sys.executable} .ci/venv {OTHERS_PYTHON.parent.parent.name} load"
        )
    with tempfile.TemporaryFile() as log:
        port = free_port()
        command, environ = _command(name, given, port, media_type), _environ(given, port)
        with on_cpu(given.cpu):
            popen = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        server = Server(name, popen, log, port)
        try:
            _wait_for_200(server)
            yield server
        finally:
            _stop(server)


def _command(name: str, given: Given, port: int, media_type: str) -> list[str]:
    python, here = str(given.python), __name__.rpartition(".")[0]
    uvicorn = f"--port {port} --loop uvloop --http httptools --no-access-log --log-level warning"
    commands = {
        ECHO: [sys.executable, "-c", ECHO_PROGRAM, str(ROOT), str(given.answer), media_type],
        BERTH: [sys.executable, *(["-c", given.program] if given.program else [str(ROOT / "container" / "serve")])],
        FASTAPI: [python, "-m", "uvicorn", f"{here}.tuned:app", *uvicorn.split()],
        FLASK: [python, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", f"--threads={THREADS}", f"{here}.plain:app"],
    }
    return commands[name]


def _environ(given: Given, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    own = {"SAGEMAKER_BASE_DIR": str(given.base), "SAGEMAKER_BIND_TO_PORT": str(port)}
    return {**inherited, **own, "MODEL": str(given.model), "ORT_DISABLE_TELEMETRY": "1", **given.environ}


def _wait_for_200(server: Server) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        if server.popen.poll() is not None:
            raise server.failure(f"ended with exit code {server.popen.returncode} before it answered")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{server.port}/ping", timeout=2):
            return
        time.sleep(0.02)
    raise server.failure(f"/ping did not answer 200 within {START_S} s")


def _stop(server: Server) -> None:
    members = family(server.popen.pid)
    server.popen.terminate()
    try:
        server.popen.wait(STOP_S)
    except subprocess.TimeoutExpired:
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.popen.wait()
