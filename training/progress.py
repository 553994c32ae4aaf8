"""How far a long piece of work is: a bar where a person looks on, else a line now and then that a log can hold."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

EVERY_S = 10.0
"""Between two lines: CloudWatch keeps each, and a job may take days."""


class Progress:
    """Says how many of `total` are done, at what rate, and how long the rest will take at that rate."""

    def __init__(self, what: str, unit: str, total: int, done: int = 0) -> None:
        self.what, self.unit, self.total = what, unit, total
        self._first, self._started = done, time.monotonic()
        self._said = self._started
        about: dict[str, Any] = {"desc": what, "unit": f" {unit}", "total": total, "initial": done, "file": sys.stdout}
        self._bar = tqdm(**about) if sys.stdout.isatty() else None

    def update(self, done: int) -> None:
        """Tell how many are done by now."""
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            print(self._line(done), flush=True)

    def end(self, done: int) -> None:
        """Say the last word: how many were done, and in what time."""
        if self._bar is not None:
            self._bar.close()
        seconds = time.monotonic() - self._started
        print(f"{self.what}: {done:,} of {self.total:,} {self.unit} in {seconds:.1f} s", flush=True)

    def _line(self, done: int) -> str:
        rate = (done - self._first) / (time.monotonic() - self._started)
        left = f"{(self.total - done) / rate:,.0f} s left" if rate > 0 else "no telling how long"
        return f"{self.what}: {done:,} of {self.total:,} {self.unit}, {rate:.3g} a second, {left}"
