"""The CPUs and the memory this container may use: cgroup v2 or v1, else the machine's own."""

from __future__ import annotations

import math
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cpus(root: Path = ROOT) -> int:
    """Return how many CPUs may be used at once, at least 1: the quota rounded up, or the CPUs of the affinity mask."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota_v2(root) or _quota_v1(root)
    return max(1, min(available, math.ceil(quota))) if quota else available


def memory_bytes(root: Path = ROOT) -> int:
    """Return the memory limit in bytes, at most what the machine has."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(root / "memory.max") or _read(root / "memory" / "memory.limit_in_bytes")
    return min(physical, int(limit)) if limit and limit.isdigit() else physical


def _quota_v2(root: Path) -> float | None:
    quota, _, period = (_read(root / "cpu.max") or "max").partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def _quota_v1(root: Path) -> float | None:
    quota = int(_read(root / "cpu" / "cpu.cfs_quota_us") or -1)
    return quota / int(_read(root / "cpu" / "cpu.cfs_period_us") or 100_000) if quota > 0 else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
