"""What becomes of a job whose data is bad, an empty channel and one of garbage: T-25, T-26."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local_test.emulator import Outcome
from local_test.rules.jobs import files, patience_s, run, was_cut, why
from local_test.subject import Subject
from local_test.verdicts import Rule, Severity, Violated

TOLD_CHARACTERS = 1_024
"""So much of a failure file becomes the job's FailureReason (T-26)."""
GARBAGE_BYTES, GARBAGE_FILES = 4_096, 5
TRACEBACK = "Traceback (most recent call last)"
EMPTY, GARBAGE = "an empty channel", "a channel of garbage"


@dataclass(frozen=True)
class Failed:
    """How a job over bad data ended."""

    data: str
    outcome: Outcome
    failure: bytes
    """The failure file's content; empty without one."""
    left: int
    """How many files it left in /opt/ml/model."""

    @property
    def told(self) -> str:
        """What people see of the failure file."""
        return self.failure.decode("utf-8", "replace").strip()[:TOLD_CHARACTERS].strip()


def bad_data_fails(subject: Subject) -> str:
    """Judge whether a job over bad data ends with another exit code than 0."""
    seen = []
    for job in _jobs(subject):
        if was_cut(job.outcome, patience_s(subject)):
            raise Violated(f"over {job.data}, {why(job.outcome, patience_s(subject))}")
        meant = job.data == GARBAGE and job.left and not job.failure  # a model of bytes can be meant, one of nothing can't
        if job.outcome.exit_code == 0 and not meant:
            beside = ", and wrote a failure file" if job.failure else ""
            raise Violated(f"over {job.data}, train ended with exit code 0{beside}: the job would count as completed")
        seen.append(f"exit code {job.outcome.exit_code} over {job.data}")
    return ", ".join(seen)


def failure_file_is_written(subject: Subject) -> str:
    """Judge whether a failed job says why in /opt/ml/output/failure."""
    for job in _failed(subject):
        if not job.failure.strip():
            raise Violated(
                f"over {job.data}, train ended with exit code {job.outcome.exit_code} and wrote no /opt/ml/output/failure"
            )
        try:
            job.failure.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Violated(f"over {job.data}, /opt/ml/output/failure is not UTF-8: {error}") from error
    return "\n".join(f"over {job.data}: {job.told.splitlines()[0][:200]}" for job in _failed(subject))


def cause_comes_first(subject: Subject) -> str:
    """Judge whether what people see of the failure file begins with the cause."""
    for job in _failed(subject):
        first = job.told.splitlines()[0]
        if first.startswith(TRACEBACK) or not any(letter.isalpha() for letter in first):
            raise Violated(f"over {job.data}, /opt/ml/output/failure begins with {first[:200]!r}")
    return "\n".join(f"over {job.data}: {job.told.splitlines()[0][:200]}" for job in _failed(subject))


def _failed(subject: Subject) -> list[Failed]:
    return [job for job in _jobs(subject) if job.outcome.exit_code]


def _jobs(subject: Subject) -> list[Failed]:
    """Return the jobs over bad data, run side by side when the first rule asks."""

    def make() -> list[Failed]:
        data = {EMPTY: _empty(subject), GARBAGE: _garbage(subject)}
        with ThreadPoolExecutor(len(data)) as pool:
            return list(pool.map(lambda item: _run(subject, *item), data.items()))

    return subject.once("bad data", make)


def _run(subject: Subject, data: str, source: Path) -> Failed:
    job = subject.job(data.replace(" ", "-"), channels={subject.channel: source})
    outcome = run(job, patience_s(subject))
    path = job.base / "output" / "failure"
    return Failed(data, outcome, path.read_bytes() if path.is_file() else b"", len(files(job.model)))


def _empty(subject: Subject) -> Path:
    folder = subject.folder / "empty"
    folder.mkdir(exist_ok=True)
    return folder


def _garbage(subject: Subject) -> Path:
    """Return a folder of files with the names of the owner's, some of them, and bytes that mean nothing."""
    folder, chance = subject.folder / "garbage", random.Random(0)  # noqa: S311
    source = subject.train_data or folder
    folder.mkdir(exist_ok=True)
    for path in [path for path in files(source) if path.stat().st_size][:GARBAGE_FILES]:
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(chance.randbytes(GARBAGE_BYTES))
    return folder


RULES = (
    Rule(
        "T-25",
        "a job over bad data fails",
        Severity.SAGEMAKER,
        "Check the data before the fit and end with exit code 1: exit code 0 says that the job is completed.",
        bad_data_fails,
        ("trains",),
    ),
    Rule(
        "T-26",
        "a failed job says why in /opt/ml/output/failure",
        Severity.SAGEMAKER,
        "Catch what ends the program in one outer place, write its message to /opt/ml/output/failure in UTF-8, end with 1.",
        failure_file_is_written,
        ("bad_data_fails",),
    ),
    Rule(
        "T-26",
        "the failure file begins with the cause",
        Severity.WASTEFUL,
        "Write one line that says what is wrong with what; print the traceback to the log. People see 1,024 characters.",
        cause_comes_first,
        ("failure_file_is_written",),
    ),
)
