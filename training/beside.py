"""Work that this process does while it waits for its child's fit: a thread that takes what time the fit leaves over."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Beside(Generic[Found]):
    """A function that is called at most once: in a thread from `start` on, or by `result` where nothing started it."""

    def __init__(self, work: Callable[[], Found], *, idle: bool) -> None:
        """Keep the work; an `idle` thread runs where a CPU has nothing else to do, as between the rounds of a long fit."""
        self._work, self._idle = work, idle
        self._found: list[Found] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def result(self) -> Found:
        """Wait, and return what the work returned or raise what it raised."""
        if self._thread:
            if self._idle and self._thread.is_alive() and self._thread.native_id:
                _schedule(self._thread.native_id, "SCHED_OTHER")  # somebody waits for it now
            self._thread.join()
        else:
            self._run()
        if self._error:
            raise self._error
        return self._found[0]

    def _run(self) -> None:
        if self._thread and self._idle:
            _schedule(0, "SCHED_IDLE")
        try:
            self._found.append(self._work())
        except BaseException as error:
            self._error = error


def _schedule(thread: int, policy: str) -> None:
    """Have Linux schedule a thread of this process by a policy, where it permits that; 0 is the caller's."""
    with suppress(AttributeError, OSError):  # elsewhere there is no such call; going back needs a right that few have
        os.sched_setscheduler(thread, getattr(os, policy), os.sched_param(0))
