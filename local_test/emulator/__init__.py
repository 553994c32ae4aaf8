"""The platform's part, played here: an /opt/ml laid out for a job, `train` and `serve` run as processes or as containers.

What the platform does and a plain start does not: no network, the model mounted read-only (H-4), 2 s for a ping (H-8),
60 s for an invocation (H-11), SIGTERM and then SIGKILL (T-27: 120 s, H-6: 30 s).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local_test.runners import Platform, Program

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
    printed_at: tuple[float, ...] = ()
    """When each line came, in seconds since the start; only of a container that was watched."""
    ran_s: float = 0.0
    """How long it ran by the clock that `printed_at` is of; only of a container that was watched."""
    changed: tuple[str, ...] = ()
    """Paths of the image's own that it made, changed or removed; only of a container that was watched."""


def lay_out(
    base: Path,
    channels: Mapping[str, Path],
    hyperparameters: Mapping[str, str] | None = None,
    options: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Make the /opt/ml of a training job below `base`: the three config files of every platform, the channels' copies.

    `options` adds to what inputdataconfig.json says of a channel; one in Pipe mode has no copy: see `streams`.
    """
    config = base / "input" / "config"
    for folder in (config, base / "model", base / "output" / "data"):  # T-12
        folder.mkdir(parents=True, exist_ok=True)
    (base / "input" / "data").mkdir(exist_ok=True)
    described = {
        name: {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", **(options or {}).get(name, {})}
        for name in channels
    }
    for name, source in channels.items():
        if described[name]["TrainingInputMode"] != "Pipe":
            shutil.copytree(source, base / "input" / "data" / name, dirs_exist_ok=True)
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
    except BaseException:  # Ctrl-C, or a stop of ours: nothing is left running
        stop(program, STOP_TRAINING_S)
        raise
    return Outcome(exit_code, program.output(), failure_of(base), time.monotonic() - started)


def failure_of(base: Path) -> str:
    """Return what the failure file of a job holds, empty without one."""
    path = base / "output" / "failure"
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


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

    def invoke(
        self,
        body: bytes | Iterable[bytes],
        content_type: str = "text/csv",
        accept: str = "",
        path: str = "/invocations",
        *,
        more: Mapping[str, str] | None = None,
        timeout_s: float = INVOKE_S,
    ) -> Reply:
        """Send a payload, in chunks where it is no bytes; headers as SageMaker leaves them (H-13), and `more` of them."""
        headers = {"Content-Type": content_type, **({"Accept": accept} if accept else {}), **(more or {})}
        return self._call("POST", path, body, headers, timeout_s)

    def get(self, path: str) -> Reply:
        """Get a page."""
        return self._call("GET", path, None, {}, INVOKE_S)

    def delete(self, path: str) -> Reply:
        """Have something removed."""
        return self._call("DELETE", path, None, {}, INVOKE_S)

    def _call(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: Mapping[str, str], timeout_s: float
    ) -> Reply:
        request = urllib.request.Request(self.program.url + path, body, dict(headers), method=method)
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return Reply(response.status, response.read(), dict(response.headers), time.monotonic() - started)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.read(), dict(error.headers), time.monotonic() - started)
        except ConnectionError:
            raise
        except http.client.HTTPException as error:  # no OSError, though the server did it
            raise ConnectionError(f"what was answered is no HTTP: {type(error).__name__} {error}") from error


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
        wait_until_ready(endpoint)
        endpoint.seconds_to_ready = time.monotonic() - started
        yield endpoint
    finally:
        stop(program, STOP_SERVING_S)


def wait_until_ready(endpoint: Endpoint) -> None:
    """Wait for the first 200 of `/ping`.

    Raises:
        RuntimeError: it ended, or was not ready in time; the message has what it printed.
    """
    started = time.monotonic()
    while time.monotonic() - started < START_S:
        with contextlib.suppress(OSError):
            if endpoint.ping().status == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = endpoint.program.wait(0.01)
            raise RuntimeError(f"serve ended with exit code {code} before /ping answered 200:\n{endpoint.program.output()}")
    raise RuntimeError(f"/ping did not answer 200 within {START_S} s:\n{endpoint.program.output()}")
