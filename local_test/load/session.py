"""The model's ONNX session alone, beside which a server's rows a second are told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_test.load.wrk import on_cpu
from local_test.runners import ROOT

SESSION = "session"


@dataclass(frozen=True)
class Session:
    """A process that has the model and a ready matrix, and waits to be told to run."""

    popen: subprocess.Popen[str]
    predictions: list[float]

    def run(self, seconds: float) -> tuple[float, float]:
        """Run for some seconds; return runs a second, and microseconds of the CPU a run."""
        count, took, cpu_s = _ask(self.popen, f"{seconds}\n")
        return count / took, 1e6 * cpu_s / count


@contextlib.contextmanager
def loaded(model: Path, matrix: Path, cpu: int) -> Iterator[Session]:
    """Start it on a CPU, give it, and end it; raises RuntimeError where the model can't be run."""
    command = [sys.executable, "-m", "local_test.load.alone", str(model), str(matrix)]
    with on_cpu(cpu):
        popen = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with popen:
        try:
            yield Session(popen, _ask(popen, ""))
        finally:
            popen.kill()


def _ask(popen: subprocess.Popen[str], line: str) -> Any:
    if popen.stdin is None or popen.stdout is None:
        raise RuntimeError("the session's process has no pipes")
    popen.stdin.write(line)
    popen.stdin.flush()
    answer = popen.stdout.readline()
    if not answer:
        raise RuntimeError(f"the ONNX session alone ended with exit code {popen.wait()}; what it said stands above")
    return json.loads(answer)
