"""`train` as a fork of a process that has loaded its libraries: the same program and signals, without the imports' seconds."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

from conftest import ROOT

from contract.declaration import Declaration

LOADED = ["pytest", "forks", "lightgbm", "training.alone", "training.search", "training.artifacts", "training.report"]


def busyness() -> float:
    """Return how many times longer things may take here than on a machine that nobody else uses."""
    running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])  # at this moment; the average lags behind
    return max(1.0, max(running, os.getloadavg()[0]) / (os.cpu_count() or 1))


@dataclass(frozen=True)
class Forks:
    """A platform of tests, for `train` alone; it may be stopped from within."""

    stop_at: tuple[str, str] | None = None
    """A module and a function of it: as it is called for the first time, `train` gets a SIGTERM."""
    declaration: Declaration | None = None
    """What to train in place of the model's own."""

    def start(self, word: str, base: Path, environ: Mapping[str, str]) -> Fork:
        """Start `train` with SAGEMAKER_BASE_DIR for /opt/ml."""
        log = base.with_name(f"{base.name}-{time.monotonic_ns()}.log")
        log.touch()
        process = _server().Process(target=_train, args=(self, log, {**environ, "SAGEMAKER_BASE_DIR": str(base)}))
        process.start()
        return Fork(process, log)


@dataclass
class Fork:
    """A started `train`."""

    process: Any
    log: Path
    url: str = field(default="", init=False)

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("train", timeout_s or 0)
        return int(self.process.exitcode)

    def signal(self, number: int) -> None:
        """Send a signal; one that has ended takes none."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text()

    def seconds_since_the_stop(self) -> float:
        """Return how long it went on after the SIGTERM from within, once it has ended."""
        return time.time() - self.log.with_suffix(".stopped").stat().st_mtime


@cache
def _server() -> Any:
    """Return the context whose processes are forked from one that has loaded the libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with _importable():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _importable() -> Iterator[None]:
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests"), *([earlier] if earlier else [])])
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if earlier is not None:
            os.environ["PYTHONPATH"] = earlier


def _train(fork: Forks, log: Path, environ: Mapping[str, str]) -> NoReturn:
    """Be the program, in the new process."""
    os.environ.update(environ)
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    if fork.declaration:
        importlib.import_module("model").DECLARATION = fork.declaration  # type: ignore[attr-defined]
    if fork.stop_at:
        _stop_at(*fork.stop_at, log.with_suffix(".stopped"))
    code = 99
    try:
        code = importlib.import_module("training.train").main([])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _stop_at(module: str, function: str, note: Path) -> None:
    *classes, name = function.split(".")
    owner: Any = importlib.import_module(module)
    for part in classes:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def stopped(*arguments: Any, **options: Any) -> Any:
        setattr(owner, name, original)
        note.touch()
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    setattr(owner, name, stopped)
