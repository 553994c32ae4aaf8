"""Checkpoints, and a job that is started again after its machine was taken away: T-28, T-29."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local_test.emulator import Outcome
from local_test.emulator.checkpoints import UPLOADED, UPLOADING, Uploader
from local_test.emulator.jobs import TrainingJob
from local_test.rules.jobs import ended_well, files, patience_s, why
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Unjudged, Violated

TAKEN_AWAY = 0.7
"""Part of a whole job's seconds after which its machine is gone."""
TEMPORARY = re.compile(r"\.(te?mp|part|partial|incomplete)([._-]\w{1,12})?$|^tmp(\w{8}|[._-].*)$|~$", re.IGNORECASE)
"""What names of unfinished files look like."""
NONE_WRITTEN = "it wrote no checkpoint: give hyperparameters or data with which it writes some, if it does at all"


@dataclass(frozen=True)
class Restarted:
    """A job whose machine was taken away, and the same job started again with what was uploaded."""

    again: TrainingJob
    uploaded: tuple[str, ...]
    """Names that came into the bucket, of both."""
    restored: tuple[str, ...]
    """Names that the second start found."""
    elsewhere: tuple[str, ...]
    """Names below /opt/ml/checkpoints, which is not the job's LocalPath."""
    unreadable: frozenset[str]
    outcome: Outcome
    """How the second ended."""


def checkpoints_where_told(subject: Subject) -> str:
    """Judge whether checkpoints are kept at the path of checkpointconfig.json."""
    job = _restarted(subject)
    if job.elsewhere and not job.uploaded:
        raise Violated(
            f"checkpointconfig.json names another path, and /opt/ml/checkpoints has {', '.join(job.elsewhere[:3])}: "
            "nothing of it is copied to S3"
        )
    if not job.uploaded:
        raise DoesNotApply(NONE_WRITTEN)
    return f"{len(set(job.uploaded))} files came to the LocalPath of checkpointconfig.json: {', '.join(_few(job.uploaded))}"


def ends_well_after_a_restart(subject: Subject) -> str:
    """Judge whether a job whose machine was taken away ends well when it is started again, without marker files."""
    job = _restarted(subject)
    found = (
        f"with {len(job.restored)} restored files" if job.restored else "with nothing restored, as nothing had been uploaded"
    )
    if ended_well(job.again, job.outcome):
        return f"started again {found}, train ended well"
    if not job.restored:
        raise Violated(f"started again {found}, {why(job.outcome, patience_s(subject))}")
    if _without_markers(subject).exit_code:
        raise Violated(f"started again {found}, {why(_without_markers(subject), patience_s(subject))}")
    return f"started again {found} and without marker files, train ended well"


def takes_no_marker_for_a_checkpoint(subject: Subject) -> str:
    """Judge whether the uploader's marker files are left alone."""
    job = _restarted(subject)
    if not job.restored:
        raise DoesNotApply(NONE_WRITTEN)
    if not ended_well(job.again, job.outcome):
        raise Violated(
            f"started again with marker files beside its checkpoints, such as {job.restored[-1]}{UPLOADED}, "
            f"{why(job.outcome, patience_s(subject))}\nWithout them it ends well."
        )
    return f"started again with a marker beside each of {len(job.restored)} files, train ended well"


def unfinished_files_are_not_uploaded(subject: Subject) -> str:
    """Judge whether files that are still written have names that the uploader skips."""
    job = _restarted(subject)
    if job.unreadable:
        raise Unjudged(f"{', '.join(sorted(job.unreadable)[:3])} can't be read by this user; run as root")
    odd = [name for name in dict.fromkeys(job.uploaded) if TEMPORARY.search(name.rsplit("/", 1)[-1])]
    marked = [name for name in job.uploaded if name.endswith((UPLOADING, UPLOADED))]
    if odd or marked:
        raise Violated(f"the uploader copied {', '.join(_few([*odd, *marked]))}, which look unfinished")
    return f"the uploader copied {', '.join(_few(job.uploaded))}"


def _restarted(subject: Subject) -> Restarted:
    """Return a job whose machine was taken away and that was started again, once for all rules."""

    def make() -> Restarted:
        job = subject.job("spot", checkpoints=True, prepare=(lambda base: (base / "checkpoints").mkdir(),))
        _, first = _watched(job, TAKEN_AWAY * subject.trained[1].seconds)
        elsewhere, restored = _names(job.base / "checkpoints"), _names(job.bucket)
        outcome, second = _watched(job, patience_s(subject))
        elsewhere += _names(job.base / "checkpoints")
        unreadable = frozenset(first.unreadable | second.unreadable)
        if not restored and second.uploaded and ended_well(job, outcome):  # it was lost too early: go on from what came later
            restored = _names(job.bucket)
            outcome, _ = _watched(job, patience_s(subject))
        return Restarted(job, (*first.uploaded, *second.uploaded), restored, elsewhere, unreadable, outcome)

    return subject.once("restarted", make)


def _without_markers(subject: Subject) -> Outcome:
    """Return how the job ends that is started again with its checkpoints as they were restored, and without marker files."""

    def make() -> Outcome:
        job = _restarted(subject).again
        return _watched(replace(job, marks=False), patience_s(subject))[0]

    return subject.once("restarted without markers", make)


def _watched(job: TrainingJob, limit_s: float) -> tuple[Outcome, Uploader]:
    """Run a job for some seconds at most; return how it ended and what was uploaded."""
    try:
        with job.running() as running:
            if not running.ends_within(limit_s):
                running.kill()
            outcome = running.outcome()
    except RuntimeError as error:
        raise Violated(str(error)) from error
    return outcome, running.uploader


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(path.relative_to(folder).as_posix() for path in files(folder))


def _few(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))[:5]


RULES = (
    Rule(
        "T-28",
        "a job whose machine was taken away ends well when it is started again",
        Severity.SAGEMAKER,
        "Start from what the checkpoints' folder holds, or from nothing where it is empty; rely on nothing else.",
        ends_well_after_a_restart,
        ("trains",),
    ),
    Rule(
        "T-28",
        "checkpoints are kept where checkpointconfig.json says",
        Severity.SAGEMAKER,
        "Read LocalPath in /opt/ml/input/config/checkpointconfig.json; /opt/ml/checkpoints is what it usually is, not always.",
        checkpoints_where_told,
        ("trains",),
    ),
    Rule(
        "T-29",
        "the uploader's marker files are no checkpoints",
        Severity.SAGEMAKER,
        "Pass over names that end in .sagemaker-uploading and .sagemaker-uploaded where you look for the newest checkpoint.",
        takes_no_marker_for_a_checkpoint,
        ("ends_well_after_a_restart", "checkpoints_where_told"),
    ),
    Rule(
        "T-29",
        "a file that is still written is not uploaded",
        Severity.WASTEFUL,
        "Write to a name that ends in .sagemaker-ignore and rename it when it is whole: the uploader looks at any moment.",
        unfinished_files_are_not_uploaded,
        ("checkpoints_where_told",),
    ),
)
