"""SIGTERM during training (T-27): remembered at once, acted on between steps and while the fit runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from contract.errors import Stopped


class Stop:
    """Whether the platform has asked to stop. Process 1 ignores SIGTERM unless a handler is installed (T-4)."""

    def __init__(self) -> None:
        self.requested = False
        self._phase = ""

    def install(self) -> None:
        """Answer SIGTERM, and Ctrl-C, by remembering it."""
        signal.signal(signal.SIGTERM, self._remember)
        signal.signal(signal.SIGINT, self._remember)

    def ignore(self) -> None:
        """Let a signal change nothing any more: Python takes handlers away when it ends, and 143 would belie what is done."""
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def put_off(self, seconds: int) -> None:
        """Take a request back for some seconds: something can still be finished before SIGKILL, 120 s after it (T-27)."""
        self.requested = False
        signal.signal(signal.SIGALRM, self._remember)
        signal.alarm(seconds)

    @contextmanager
    def ending(self, phase: str) -> Iterator[None]:
        """Within: a signal ends the job at once, even inside a wait for data. For phases before there is a model to keep.

        Raises:
            Stopped: the signal came, now or earlier; the message names the phase.
        """
        self._phase = phase
        try:
            self.check(phase)
            yield
        finally:
            self._phase = ""

    def check(self, phase: str) -> None:
        """Give up if a stop was asked for before there is a model to keep.

        Raises:
            Stopped: the signal came; the message names the phase.
        """
        if self.requested:
            self._end(phase)

    def _remember(self, *_: object) -> None:
        self.requested = True
        if self._phase:
            self._end(self._phase)

    def _end(self, phase: str) -> None:
        raise Stopped(f"Stopped by a signal while {phase}, before there was a model to keep. Start the job again.")
