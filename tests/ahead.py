"""Work that begins with the session and goes on beside the tests, one piece at a time: builds, environments, containers."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 1_200
SCRATCH = tempfile.TemporaryDirectory(prefix="berth-tests-", ignore_cleanup_errors=True)  # containers leave files of root's
POOL = ThreadPoolExecutor(1)  # one piece at a time: a core is left to the tests
PIECES: dict[str, Callable[..., Any]] = {}
BEGUN: dict[str, Future[Any]] = {}
KEPT = ExitStack()


def ahead(work: Callable[..., Any]) -> Any:
    """Make a session fixture of a function: it is begun once tests are collected that want its result.

    Its arguments are the results of other such functions. What it raises, a skip or a failure too, is raised where it
    is waited for.
    """
    name = work.__name__
    PIECES[name] = work

    @pytest.fixture(scope="session", name=name)
    def result() -> Any:
        begin(name)
        return BEGUN[name].result()

    return result


def begin(name: str) -> None:
    """Begin what a fixture's name stands for, unless that is no piece or has begun; before it what it needs."""
    if name in PIECES and name not in BEGUN:
        needs = list(signature(PIECES[name]).parameters)
        for need in needs:
            begin(need)
        BEGUN[name] = POOL.submit(_do, name, needs)


def _do(name: str, needs: Sequence[str]) -> Any:
    return PIECES[name](*(BEGUN[need].result() for need in needs))


def scratch() -> Path:
    """Return a new folder, gone after the session."""
    return Path(tempfile.mkdtemp(dir=SCRATCH.name))


def kept(context: AbstractContextManager[Any]) -> Any:
    """Enter a context that a piece's result needs, and have it last as long as the session."""
    return KEPT.enter_context(context)


def settle() -> None:
    """Wait for all that has begun, or will."""
    wait(BEGUN.values())


def end() -> None:
    """Drop what has not begun, and wait for what has: it leaves nothing behind but by ending as it should."""
    POOL.shutdown(cancel_futures=True)
    KEPT.close()
    SCRATCH.cleanup()


def beside(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command out of the tests' way, and return how it ended and what it printed."""
    return subprocess.run(
        ["nice", *command],
        cwd=folder,
        env={**os.environ},  # a copy: a test that sets a variable meanwhile moves what a new process would read
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
