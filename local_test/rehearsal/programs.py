"""Programs that the rehearsal runs: each in a process group of its own, which is stopped when it is no longer wanted."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

LIMIT_S = 900
PATIENCE_S = 60
"""From SIGTERM to SIGKILL: local mode and conformance remove their containers in that time."""
SHOWN = 40


class StepFailed(Exception):
    """A step did not come to what it should; the message has what was found, what was expected and the end of the output."""


@dataclass(frozen=True)
class Ran:
    """How a program ended, and what it printed."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All that it printed: first what it answers, then what it says beside."""
        return self.stdout + self.stderr

    def expect(self, status: int) -> Ran:
        """Return it where it ended with a status; raise StepFailed with the end of its output otherwise."""
        if self.status == status:
            return self
        lines = self.said.rstrip().splitlines()[-SHOWN:]
        told = "\n".join(f"  | {line}" for line in lines)
        raise StepFailed(f"{shlex.join(self.command)} ended with status {self.status}; {status} was expected:\n{told}")


@dataclass(frozen=True)
class Running:
    """A program that was started."""

    command: tuple[str, ...]
    popen: subprocess.Popen[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def wait(self, timeout_s: float = LIMIT_S) -> Ran:
        """Return how it ended; raise StepFailed where it has not in time."""
        try:
            status = self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            said = _text(self.stdout) + _text(self.stderr)
            raise StepFailed(f"{shlex.join(self.command)} had not ended after {timeout_s:.0f} s:\n{said[-4000:]}") from None
        return Ran(self.command, status, _text(self.stdout), _text(self.stderr))

    def end(self) -> None:
        """Stop it and all that it has started, unless it has ended."""
        if self.popen.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.popen.pid, number)
            until = time.monotonic() + PATIENCE_S
            while self._is_there() and time.monotonic() < until:
                time.sleep(0.05)

    def _is_there(self) -> bool:
        """Say whether it, or what it has started, still runs: what it has started may take longer to end than it."""
        if self.popen.poll() is None:
            return True
        try:
            os.killpg(self.popen.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def started(command: Sequence[str | Path], environ: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Start a program in a folder; when the block ends it has ended, or is stopped."""
    words = tuple(map(str, command))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        popen = subprocess.Popen(
            words, env=dict(environ), cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        running = Running(words, popen, out, err)
        try:
            yield running
        finally:
            running.end()


def _text(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode("utf-8", "replace")  # the offset is the program's too
