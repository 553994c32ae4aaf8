"""How a server ends, and what it does when its workers do: H-6, H-10."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from local_test import procfs
from local_test.emulator import STOP_SERVING_S, Endpoint
from local_test.runners import Container, Program
from local_test.starts import ask_ping
from local_test.subject import Payload, Subject
from local_test.verdicts import Blocked, DoesNotApply, Rule, Severity, Unjudged, Violated

IGNORES_S = 5
"""How long a first process is waited for that has no handler for SIGTERM: the kernel drops the signal (T-4)."""
RECOVERY_S, ANSWER_S = 15, 5
"""How long a server may take to be as before once its workers were killed, and how long one answer may take then."""


@dataclass(frozen=True)
class Stop:
    """How a server ended after a SIGTERM."""

    seconds: float
    exit_code: int | None
    """None where it did not end."""
    handled: bool | None
    """Whether its first process has a handler; None where that can't be seen."""
    answer: str
    """What the request under way got; empty where no payload was given."""


def stops_in_time(subject: Subject) -> str:
    """Judge whether SIGTERM ends the server before the platform kills it."""
    stop = _stopped(subject)
    if stop.exit_code is None:
        why = ": its first process has no handler for it, and the kernel drops it then" if stop.handled is False else ""
        raise Violated(f"{stop.seconds:.0f} s after a SIGTERM it still ran{why}")
    return f"it ended {stop.seconds:.1f} s after a SIGTERM with exit code {stop.exit_code}"


def ignores_sigterm(subject: Subject) -> bool:
    """Say whether the server is one that does not end on SIGTERM, where that can be told."""
    try:
        stops_in_time(subject)
    except Violated:
        return True
    except (Blocked, Unjudged):
        return False
    return False


def finishes_requests(subject: Subject) -> str:
    """Judge whether a request that is under way when SIGTERM comes is answered."""
    if subject.payload is None:
        raise Unjudged("no payload was given: --payload FILE --content-type TYPE")
    answer = _stopped(subject).answer
    if not answer.startswith("HTTP/1.1 200") and not answer.startswith("HTTP/1.0 200"):
        raise Violated(f"a request whose body was half sent when SIGTERM came got {answer or 'no answer'}")
    return "a request whose body was half sent when SIGTERM came was answered 200"


def workers_are_replaced(subject: Subject) -> str:
    """Judge whether /ping tells the truth once all workers were killed."""
    with subject.watched() as start:
        endpoint = start.ready()
        victims = _workers(endpoint.program)
        for pid in victims:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        return f"{len(victims)} processes were killed: {_judge_recovery(endpoint, subject.payload)}"


def _workers(program: Program) -> list[int]:
    if not program.pid:
        raise Unjudged("its processes can't be seen from here: the engine runs on another machine, or in a virtual one")
    found = procfs.family(program.pid)[1:]
    if not found:
        raise DoesNotApply("it is one process: its death is the container's")
    return found


def _judge_recovery(endpoint: Endpoint, payload: Payload | None) -> str:
    """Wait until the server is as before, says that it is not, or has ended; raises Violated where it says it is and is not."""
    began, met = time.monotonic(), ""
    while time.monotonic() - began < RECOVERY_S:
        if not endpoint.program.is_running():
            return f"the container ended with exit code {endpoint.program.wait()}"
        ping = ask_ping(endpoint.program.url)
        met = _invoke(endpoint, payload) if ping.status == 200 and payload else ""
        if ping.status == 200 and not met:
            return f"/ping{' and a request were' if payload else ' was'} answered 200 after {time.monotonic() - began:.1f} s"
        time.sleep(0.2)
    if met:
        raise Violated(f"/ping answers 200 {RECOVERY_S} s after its workers were killed, and a request {met}")
    return f"/ping answers no 200 any more: {ping.told}"


def _invoke(endpoint: Endpoint, payload: Payload) -> str:
    """Return what a request met; nothing where it was answered 200."""
    try:
        reply = endpoint.invoke(payload.body, payload.content_type, timeout_s=ANSWER_S)
    except OSError as error:
        return f"has no answer: {type(error).__name__}: {error}"
    return "" if reply.status == 200 else f"is answered {reply.status}: {reply.text[:200]}"


def _stopped(subject: Subject) -> Stop:
    def make() -> Stop:
        with subject.watched() as start:
            return _stop(start.ready().program, subject.payload)

    return subject.once("stopped", make)


def _stop(program: Program, payload: Payload | None) -> Stop:
    """Send half a request, SIGTERM, and the other half."""
    handled = procfs.heeds(program.pid, signal.SIGTERM) if program.pid and isinstance(program, Container) else None
    with contextlib.ExitStack() as held:
        connection = held.enter_context(_half_sent(program.url, payload)) if payload else None
        began = time.monotonic()
        program.signal(signal.SIGTERM)
        answer = _finish(connection, payload) if connection and payload else ""
    patience_s = IGNORES_S if handled is False else STOP_SERVING_S
    try:
        exit_code: int | None = program.wait(max(1.0, patience_s - (time.monotonic() - began)))
    except subprocess.TimeoutExpired:
        exit_code = None
    return Stop(time.monotonic() - began, exit_code, handled, answer)


def _half_sent(url: str, payload: Payload) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname or "", address.port or 80), ANSWER_S)
    head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {payload.content_type}\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(payload.body)}\r\n\r\n".encode() + payload.body[: len(payload.body) // 2])
    time.sleep(0.3)  # until the server has taken it up
    return connection


def _finish(connection: socket.socket, payload: Payload) -> str:
    """Send the rest of a request; return the answer's first line, or what was met."""
    time.sleep(0.3)  # until the signal has been seen
    try:
        connection.sendall(payload.body[len(payload.body) // 2 :])
        return connection.recv(4096).decode("latin-1").partition("\r\n")[0]
    except OSError as error:
        return f"{type(error).__name__}: {error}"


RULES = (
    Rule(
        "H-6",
        "serve ends within 30 s of a SIGTERM",
        Severity.SAGEMAKER,
        "Handle SIGTERM in the container's first process: exec it from a shell; gunicorn: --graceful-timeout 25 at most.",
        stops_in_time,
        ("becomes_ready",),
    ),
    Rule(
        "H-6",
        "a request under way is answered before serve ends",
        Severity.SAGEMAKER,
        "Stop accepting, finish what has begun, then end.",
        finishes_requests,
        ("answers_when_ready", "stops_in_time"),
    ),
    Rule(
        "H-10",
        "/ping tells when the workers died",
        Severity.SAGEMAKER,
        "Start dead workers anew, or end; /ping must not answer 200 for a server that can't predict.",
        workers_are_replaced,
        ("becomes_ready", "ping_is_not_redirected"),
    ),
)
