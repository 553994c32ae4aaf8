"""wrk, the generator: one request over and over, on a number of connections, from a CPU of its own."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.cgroup import cpus

SCRIPT = Path(__file__).with_name("post.lua")
NO_SUCCESS = "answers that were no success"
"""What the script calls them."""
TIMEOUT_S = 60
PATIENCE_S = 60
"""For wrk's own start and end, beside the seconds that it drives."""


@dataclass(frozen=True)
class Run:
    """What came back while the generator drove a server."""

    answers: int
    """Those of success."""
    failures: int
    """Other answers, and requests that got none."""
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    busy: float
    """Share of its CPU that the generator itself took; near 1 it is the generator that was measured."""


def drive(url: str, body: Path, media_type: str, *, connections: int, seconds: int, cpu: int) -> Run:
    """POST a file's content to an address for whole seconds, each connection one request at a time.

    Raises:
        RuntimeError: wrk is not installed or failed, or what came back were failures alone.
    """
    command = [find_wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT_S}s", "--latency"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with on_cpu(cpu):
        done = subprocess.run(
            [*command, "-s", SCRIPT, url, "--", body, media_type],
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_S,
            check=False,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return _run(done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def find_wrk() -> str:
    """Return where wrk is; raises RuntimeError where it is not installed."""
    found = shutil.which("wrk")
    if not found:
        raise RuntimeError("wrk, which sends the requests, is not installed. Debian and Ubuntu: apt-get install wrk")
    return found


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Have what is started inside run on one CPU alone: a process inherits it from the one that starts it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cpus() -> tuple[int, int]:
    """Return a CPU for the servers and another for the generator, on another core where there is one.

    Raises:
        RuntimeError: this machine can't keep the two apart.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise RuntimeError("load keeps servers and generator on CPUs of their own, which takes Linux.")
    granted = sorted(os.sched_getaffinity(0))
    if min(len(granted), cpus()) < 2:
        raise RuntimeError(
            "one CPU may be used here; two are needed, or servers and generator take time from each other. "
            "Grant this process another: a larger machine, `docker run --cpus 2`, `taskset -c 0,1`."
        )
    server = granted[-1]
    apart = [cpu for cpu in granted[:-1] if cpu not in _siblings(server)]
    return server, (apart or granted)[0]


def _siblings(cpu: int) -> set[int]:
    """Return the CPUs that are threads of the same core, itself among them."""
    try:
        told = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return {cpu}
    ends = [[int(end) for end in part.split("-")] for part in told.split(",")]
    return {number for first, *last in ends for number in range(first, (last or [first])[0] + 1)}


def _run(done: subprocess.CompletedProcess[str], cpu_s: float) -> Run:
    said = done.stderr.strip().rpartition("\n")[2]
    if done.returncode or not said.startswith("{"):
        raise RuntimeError(f"wrk ended with exit code {done.returncode}: {(done.stderr or done.stdout).strip()}")
    told = json.loads(said)
    errors = told["errors"]
    answers, failures = told["requests"] - errors[NO_SUCCESS], sum(errors.values())
    if failures and not answers:
        counted = ", ".join(f"{count:,} {what}" for what, count in errors.items() if count)
        raise RuntimeError(f"not one answer of success in {told['seconds']:.1f} s: {counted}")
    return Run(answers, failures, told["seconds"], told["p50_ms"], told["p99_ms"], told["max_ms"], cpu_s / told["seconds"])
