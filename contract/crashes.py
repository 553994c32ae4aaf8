"""What a process that may crash in a library does beforehand."""

from __future__ import annotations

import os
import resource
import sys


def crash_quietly() -> None:
    """Leave no core, and drop what a library prints of its crash; Python's own tracebacks are bugs, and still go to the log."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stderr = os.fdopen(os.dup(2), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
