"""A child process for work that must end on time, or may crash: it tells its parent what it finds, and never outlives it.

A signal can't be answered inside a long call into C; a parent that only waits can.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection
from typing import Any

from training.stop import Stop

POLL_S = 0.05
STOPS = {signal.SIGTERM}
PR_SET_PDEATHSIG = 1
"""Linux's prctl(2): die with the parent. The pipe doesn't tell of its death: a forked child holds both ends."""

Tell = Callable[[Any], None]


class Crashed(Exception):
    """The child ended without saying why; says by what."""


def run(
    work: Callable[..., None],
    arguments: tuple[Any, ...],
    hear: Tell,
    stop: Stop,
    seconds: float = math.inf,
    grace_s: float = 0.0,
    meanwhile: Callable[[], None] | None = None,
) -> str:
    """Run `work(tell, *arguments)` in a child, and return why it failed; empty when it ended, or was ended, as it should.

    Args:
        work: a module's function; what it gives to `tell` comes to `hear`, in order.
        arguments: its arguments; where processes are forked they are shared without a copy.
        hear: called in this process, between looks at the clock.
        stop: whether the platform asked to stop; the child then gets a SIGTERM, and SIGKILL after the grace.
        seconds: until the child is killed.
        grace_s: how long the child may take to end after a stop.
        meanwhile: called here once the child works; it returns at once.
    """
    if stop.requested:
        return ""
    child, receiver = start(work, arguments)
    if meanwhile:
        meanwhile()
    deadline = time.monotonic() + seconds
    failure, ended, stopped = "", False, False
    while not ended and time.monotonic() < deadline:
        if stop.requested and not stopped:
            stopped, deadline = True, min(deadline, time.monotonic() + grace_s)
            os.kill(child.pid, signal.SIGTERM)
        if receiver.poll(POLL_S):
            ended, failure = receive(receiver, hear, failure)
    killed = not ended
    if killed:
        child.kill()
        while receiver.poll() and not ended:  # what it told before it was killed counts
            ended, failure = receive(receiver, hear, failure)
    child.join()
    if killed or stopped or child.exitcode == 0:
        return failure
    if child.exitcode == -signal.SIGKILL:
        return "its process was killed by signal 9, most likely for want of memory. Use a larger instance or fewer rows."
    return failure or f"its process ended with exit code {child.exitcode}."


def stream(work: Callable[..., None], arguments: tuple[Any, ...]) -> Generator[Any, None, None]:
    """Yield what `work(tell, *arguments)` tells from a child, which ends with the generator, whoever ends that.

    Raises:
        Crashed: the child did.
        RuntimeError: work raised; the log has the traceback.
    """
    child, receiver = start(work, arguments)
    told: list[Any] = []
    failure, ended = "", False
    try:
        while not ended:
            ended, failure = receive(receiver, told.append, failure)
            while told:
                yield told.pop()
        child.join()
    finally:
        child.kill()
        child.join()
        receiver.close()
    if failure:
        raise RuntimeError(failure)
    if child.exitcode:
        by = f"exit code {child.exitcode}" if child.exitcode > 0 else f"signal {-child.exitcode}"
        raise Crashed(f"the process that read it was ended by {by}")


def start(work: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[Any, Connection]:
    """Return a child that runs `work(tell, *arguments)`, and where it tells: `receive` reads there."""
    # fork shares the rows without a copy; elsewhere (macOS) forking after numerical libraries loaded is not safe.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    gc.freeze()  # the collector marks what it looks at: it would copy every page of the libraries, here and in the child
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_work, args=(work, arguments, sender), daemon=True)
    # A stop that comes while the child starts would reach the handler that it inherits, and be lost: it waits instead.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    child.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    sender.close()
    return child, receiver


def receive(receiver: Connection, hear: Tell, failure: str) -> tuple[bool, str]:
    """Pass one message on; return whether the child has ended, and why it failed."""
    try:
        kind, content = receiver.recv()
    except (EOFError, OSError):
        return True, failure
    if kind == "failure":
        return False, content
    hear(content)
    return False, failure


def die_with_parent() -> None:
    """Have this process killed when the one that made it ends, where Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _work(work: Callable[..., None], arguments: tuple[Any, ...], sender: Connection) -> None:
    """Run in the child."""
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    try:
        work(lambda content: sender.send(("told", content)), *arguments)
    except Exception as error:
        traceback.print_exc()
        sender.send(("failure", f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
