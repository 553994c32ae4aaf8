"""Memory that C libraries have freed, and glibc keeps: half of what a model takes while it loads."""

from __future__ import annotations

import contextlib
import ctypes


def trim() -> None:
    """Give what is free back to the system, in milliseconds; musl and macOS keep less, and have no such function."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
