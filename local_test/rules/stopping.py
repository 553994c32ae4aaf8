"""What SIGTERM does to `train`, early, in the middle and late: T-4, T-27."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local_test.emulator import STOP_TRAINING_S, Outcome
from local_test.emulator.jobs import Running
from local_test.rules.jobs import KILLED, files
from local_test.runners import Container, Program
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Unjudged, Violated

MOMENTS = {"early": 0.15, "in the middle": 0.5, "late": 0.85}
"""Parts of the seconds that a whole job takes."""
ENDED_BY_IT = {143, -signal.SIGTERM}
"""Exit codes of a stop: beside a model they are as good as 0, since the job counts as stopped either way."""
LOOK_S = 0.02
ENGINES = re.compile(r"runc|crun|youki|exe$|\d$")
"""Names that process 1 has before it becomes the program."""
TERM_BIT = 1 << (signal.SIGTERM - 1)


@dataclass(frozen=True)
class Stopped:
    """A job that was sent SIGTERM, unless it had ended by then."""

    when: str
    outcome: Outcome
    signal_s: float | None
    """How long after the start the signal was sent; None where the job ended first."""
    left: int
    """How many files it left in /opt/ml/model."""
    process: str = ""
    """The name of its first process, as far as it was seen."""
    handled_s: float | None = None
    """How long after the start process 1 was first seen to take SIGTERM; None where it never was."""


def handles_sigterm(subject: Subject) -> str:
    """Judge whether the first process takes SIGTERM at all: the kernel drops what process 1 has no handler for."""
    early = next(job for job in _stops(subject) if job.when == "early")
    if not early.process:
        raise Unjudged(
            "the job had ended before its first process could be looked at: "
            "give data or hyperparameters that keep train busy for a few seconds"
        )
    if early.handled_s is None:
        raise Violated(f"process 1, {early.process}, has no handler of SIGTERM: the signal is dropped, and SIGKILL follows")
    return f"process 1, {early.process}, has a handler of SIGTERM {early.handled_s:.2f} s after the start"


def job_stops_in_time(subject: Subject) -> str:
    """Judge whether a job that is stopped ends in time and leaves a model, or says why there is none."""
    judged = [job for job in _stops(subject) if job.signal_s is not None]
    if not judged:
        raise Unjudged(
            "the jobs ended before they could be stopped: give data or hyperparameters that keep train busy for a few seconds"
        )
    return "; ".join(_stop_of(job, _patience_s(subject)) for job in judged)


def _stop_of(job: Stopped, patience_s: float) -> str:
    """Return how a stop ended; raises Violated where that was not as it should be."""
    code, took = job.outcome.exit_code, job.outcome.seconds - (job.signal_s or 0)
    told = f"stopped {job.when}, after {job.signal_s:.1f} s, train"
    if code in KILLED and took >= patience_s:
        raise Violated(f"{told} had not ended {patience_s:.0f} s later; SIGKILL comes after {STOP_TRAINING_S} s")
    if code == 0 and not job.left:
        raise Violated(f"{told} ended with exit code 0 and left no file in /opt/ml/model")
    if code and not (job.outcome.failure.strip() or (code in ENDED_BY_IT and job.left)):
        raise Violated(f"{told} ended with exit code {code} and left no /opt/ml/output/failure")
    why = job.outcome.failure.strip().splitlines()
    what = f"a failure file: {why[0][:100]}" if code and why else f"{job.left} files of a model"
    return f"{told} ended {took:.1f} s later with exit code {code} and left {what}"


def _stops(subject: Subject) -> list[Stopped]:
    """Return the jobs that were stopped, run side by side when the first rule asks."""

    def make() -> list[Stopped]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda item: _stop(subject, *item), MOMENTS.items()))

    return subject.once("stops", make)


def _stop(subject: Subject, when: str, part: float) -> Stopped:
    job = subject.job(f"stop-{when.replace(' ', '-')}")
    process, handled, sent = "", None, None
    try:
        with job.running() as running:
            process, handled = _look_for_a_handler(running)
            if handled is not None and not running.ends_within(max(handled, part * subject.trained[1].seconds)):
                sent = running.seconds
                running.stop(_patience_s(subject))
            return Stopped(when, running.outcome(), sent, len(files(job.model)), process, handled)
    except RuntimeError as error:
        raise Violated(str(error)) from error


def _look_for_a_handler(running: Running) -> tuple[str, float | None]:
    """Look at process 1 until it takes SIGTERM or has ended: a signal that came earlier would be dropped, and tell nothing.

    Returns:
        Its name, and how long after the start it was first seen to take the signal; None where it never was.
    """
    process = ""
    while True:
        status = _status(running.program)
        if not status and not running.program.is_running():
            return process, None
        if status and not ENGINES.match(status["Name"]):
            process = status["Name"]
            taken = int(status["SigCgt"], 16) | int(status["SigBlk"], 16)  # blocked: it waits for it, as inits do
            if taken & TERM_BIT:
                return process, running.seconds
        time.sleep(LOOK_S)


def _status(program: Program) -> dict[str, str]:
    """Return what the kernel says of a program's first process, by names; nothing where it can't be read."""
    text = ""
    if program.pid:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{program.pid}/status").read_text()
    elif isinstance(program, Container):  # the engine runs on another machine
        words = [program.docker, "exec", program.name, "cat", "/proc/1/status"]
        text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    found = dict(re.findall(r"^(\w+):\s*(.*)$", text, re.MULTILINE))
    ended = found.get("State", "").startswith(("Z", "X"))
    return found if not ended and {"Name", "SigCgt", "SigBlk"} <= found.keys() else {}


def _patience_s(subject: Subject) -> float:
    """Return how long a stopped job may go on: what the platform gives, but not much more than whole jobs take here."""
    return min(STOP_TRAINING_S, 45 + 2 * subject.trained[1].seconds)


RULES = (
    Rule(
        "T-4",
        "process 1 handles SIGTERM",
        Severity.SAGEMAKER,
        "Install a handler first of all in train; where a shell script starts the program, start it with exec (T-3).",
        handles_sigterm,
        ("trains",),
    ),
    Rule(
        "T-27",
        "a stopped job ends in time and leaves a model or says why not",
        Severity.SAGEMAKER,
        "On SIGTERM write the model as far as it is and end with 0, or write /opt/ml/output/failure and end with another code.",
        job_stops_in_time,
        ("handles_sigterm",),
    ),
)
