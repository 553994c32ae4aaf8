"""Starts that are not `serve` on 8080: without a word, with one that nobody knows, on another port. C-4, T-1, H-2."""

from __future__ import annotations

import contextlib
import subprocess
import time

from local_test.emulator import stop
from local_test.runners import Launch
from local_test.starts import Start, listens_at
from local_test.subject import STOP_S, Subject
from local_test.verdicts import Blocked, Rule, Severity, Unjudged, Violated

PORT, SAFE_PORTS = 8901, "21000-21999"
UNKNOWN = "neither-train-nor-serve"
LEAST_TRAINING_S = 15
"""Beside three times what the first training took: how long a start without a word may take to train."""
UNKNOWN_S = 10
"""How long a container may take to refuse a word."""


def bare_start_serves(subject: Subject) -> str:
    """Judge whether a start without a word serves: other platforms pass none (V-2)."""
    with subject.watched(words=()) as start:
        return f"ready after {start.ready().seconds_to_ready:.2f} s without a word"


def bare_start_trains(subject: Subject) -> str:
    """Judge whether a start without a word trains where a training job is laid out, as the SDK 3 starts it (L-12)."""
    base = subject.lay_out("bare")
    _, outcome = subject.trained
    if outcome.exit_code:
        raise Blocked("T-1")  # nor does it train with the word
    patience_s = LEAST_TRAINING_S + 3 * outcome.seconds
    try:
        exit_code, said = _run(subject, (), (f"{base}:/opt/ml",), patience_s)
    except RuntimeError as error:
        raise Violated(str(error)) from error
    if exit_code is None:
        raise Violated(f"it has a training job's /opt/ml, and serves, or runs on after {patience_s:.0f} s: {said}")
    if exit_code or not any((base / "model").iterdir()):
        raise Violated(f"it ended with exit code {exit_code} and left {len(list((base / 'model').iterdir()))} files: {said}")
    return "a start without a word trained and left a model"


def unknown_word_is_refused(subject: Subject) -> str:
    """Judge whether a word that is neither `train` nor `serve` ends the container with a message."""
    try:
        exit_code, said = _run(subject, (UNKNOWN,), (), UNKNOWN_S)
    except RuntimeError as error:  # nothing of that name on PATH
        return f"the engine refused it: {str(error).splitlines()[0][:200]}"
    if exit_code is None:
        raise Violated(f"`{UNKNOWN}` started something that serves, or runs on after {UNKNOWN_S} s: {said}")
    if exit_code == 0:
        raise Violated(f"`{UNKNOWN}` ended with exit code 0: a misspelt word passes for a job well done")
    return f"`{UNKNOWN}` ended with exit code {exit_code}: {said}"


def port_can_be_chosen(subject: Subject) -> str:
    """Judge whether an image that says so listens on SAGEMAKER_BIND_TO_PORT."""
    start = _on_another_port(subject)
    if start.ready_s is None:
        where = "" if start.listens is None else f"; it listens on {', '.join(map(str, sorted(start.listens))) or 'nowhere'}"
        raise Violated(f"with SAGEMAKER_BIND_TO_PORT={PORT} nothing became ready on port {PORT}{where}\n{start.told}")
    return f"with SAGEMAKER_BIND_TO_PORT={PORT} it was ready on port {PORT} after {start.ready_s:.2f} s"


def other_ports_are_safe(subject: Subject) -> str:
    """Judge whether further ports are among those that are free for this container: several share a network in a pipeline."""
    listens = _on_another_port(subject).listens
    if listens is None:
        raise Unjudged("where it listens can't be seen from here")
    first, last = map(int, SAFE_PORTS.split("-"))
    wrong = [address for address in sorted(listens) if address.port != PORT and not first <= address.port <= last]
    if wrong:
        told = f"SAGEMAKER_SAFE_PORT_RANGE={SAFE_PORTS}"
        raise Violated(f"with {told} it also listens on {', '.join(map(str, wrong))}")
    return f"it listens on {', '.join(map(str, sorted(listens)))}"


def _on_another_port(subject: Subject) -> Start:
    subject.claims("accept-bind-to-port")
    _ = subject.containers  # as processes, every start is on a port of its own

    def make() -> Start:
        environ = {"SAGEMAKER_BIND_TO_PORT": str(PORT), "SAGEMAKER_SAFE_PORT_RANGE": SAFE_PORTS}
        with subject.watched(environ, port=PORT) as start:
            return start

    return subject.once("another port", make)


def _run(subject: Subject, words: tuple[str, ...], mounts: tuple[str, ...], patience_s: float) -> tuple[int | None, str]:
    """Run a container to its end; return its exit code, None where it listens or runs on, and the end of what it said."""
    program = subject.containers.launch(Launch(words, subject.environ, mounts, 0))
    ends, exit_code = time.monotonic() + patience_s, None
    try:
        while exit_code is None and time.monotonic() < ends and not listens_at(program):
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = program.wait(1)
    finally:
        stop(program, STOP_S)
    return exit_code, "\n".join(program.output().strip().splitlines()[-5:]) or "it printed nothing"


RULES = (
    Rule(
        "C-4",
        "a start without a word serves",
        Severity.ELSEWHERE,
        'Say CMD ["serve"]: Vertex AI, Cloud Run and KServe pass no word.',
        bare_start_serves,
        ("becomes_ready",),
    ),
    Rule(
        "C-4",
        "a start without a word trains where a job is laid out",
        Severity.ELSEWHERE,
        "Let CMD look for /opt/ml/input/config and train where it is there: the SDK's ModelTrainer passes no word.",
        bare_start_trains,
        ("trains",),
    ),
    Rule(
        "T-1",
        "an unknown word is refused",
        Severity.WASTEFUL,
        "End with a code other than 0 and name the words there are.",
        unknown_word_is_refused,
        ("entrypoint_takes_the_word",),
    ),
    Rule(
        "H-2",
        "serve listens on SAGEMAKER_BIND_TO_PORT",
        Severity.SAGEMAKER,
        "Read the port from SAGEMAKER_BIND_TO_PORT, or take the label accept-bind-to-port away.",
        port_can_be_chosen,
        ("becomes_ready",),
    ),
    Rule(
        "H-2",
        "further ports are in SAGEMAKER_SAFE_PORT_RANGE",
        Severity.SAGEMAKER,
        "Take further ports from SAGEMAKER_SAFE_PORT_RANGE, or use Unix sockets.",
        other_ports_are_safe,
        ("port_can_be_chosen",),
    ),
)
