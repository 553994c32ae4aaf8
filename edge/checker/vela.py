"""The second judge: Arm's Vela, the compiler for Ethos-U NPUs, which is on PyPI and so runs wherever Python does.

It is no judge of the Edge TPU, but of the same thing that this wants most: 8-bit integers from end to end.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ACCELERATOR = "ethos-u55-256"
TIMEOUT_S = 300


@dataclass(frozen=True)
class Opinion:
    """What Vela makes of a model."""

    npu: int = 0
    cpu: int = 0
    reasons: tuple[str, ...] = ()
    """Why it leaves operators to the CPU, each once."""
    failure: str = ""
    """Why it has no opinion, where it has none."""

    @property
    def line(self) -> str:
        """One sentence."""
        if self.failure:
            return f"Arm's Vela can't judge it: {self.failure}."
        share = f"{self.npu} of {self.npu + self.cpu} of its operators on an {ACCELERATOR}"
        return f"Arm's Vela, the second judge: {share}" + (f"; on the CPU, {'; '.join(self.reasons)}." if self.reasons else ".")


def ask_vela(model: Path) -> Opinion | None:
    """Return Vela's opinion of a model, or None where it isn't installed (`ethos-u-vela`, in the section `export`)."""
    if find_spec("ethosu") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "ethosu.vela",
            str(model.resolve()),
            "--output-dir",
            folder,
            "--accelerator-config",
            ACCELERATOR,
        ]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
        except subprocess.TimeoutExpired:
            return Opinion(failure=f"it took more than {TIMEOUT_S} s")
    return read_opinion(done.stdout + done.stderr, done.returncode)


def read_opinion(said: str, code: int) -> Opinion:
    """Return the opinion in what Vela printed."""
    counts = {kind: int(count) for kind, count in re.findall(r"^(CPU|NPU) operators = (\d+)", said, re.MULTILINE)}
    if code or set(counts) != {"CPU", "NPU"}:
        errors = re.findall(r"^(?:Error|\w*Error): .*", said, re.MULTILINE) or said.strip().splitlines() or ["it said nothing"]
        return Opinion(failure=errors[-1].strip().rstrip("."))
    found = re.findall(r"^Warning \(supported operators\) operator: (\S+?),.*\n(?:.*\n)*?Reason: (.*)", said, re.MULTILINE)
    reasons = dict.fromkeys(f"{operator}: {reason.strip()}" for operator, reason in found)
    return Opinion(counts["NPU"], counts["CPU"], tuple(reasons))
