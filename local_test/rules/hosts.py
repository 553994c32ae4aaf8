"""Training on several hosts, where the owner says that it can: T-23, T-33, T-34."""

from __future__ import annotations

from dataclasses import replace

from local_test.emulator import Outcome
from local_test.emulator.jobs import TrainingJob
from local_test.emulator.shards import clashes, over_hosts, run_together
from local_test.rules.jobs import files, patience_s, why
from local_test.subject import Subject
from local_test.verdicts import DoesNotApply, Rule, Severity, Violated

HOSTS = 2


def trains_on_several_hosts(subject: Subject) -> str:
    """Judge whether a job of two hosts ends well on both."""
    parts, outcomes = _job(subject, sharded=False)
    return _all_ended_well(parts, outcomes, patience_s(subject), "with all data on both")


def takes_an_empty_shard(subject: Subject) -> str:
    """Judge whether a host may have no file of a channel that is sharded."""
    parts, outcomes = _job(subject, sharded=True)
    return _all_ended_well(parts, outcomes, patience_s(subject), "the second without any file")


def hosts_leave_one_model(subject: Subject) -> str:
    """Judge whether what all hosts leave can become one archive."""
    parts, _ = _job(subject, sharded=False)
    found = clashes([part.model for part in parts])
    if found:
        raise Violated(f"two hosts left files of one name with other contents in /opt/ml/model: {', '.join(found[:5])}")
    counts = ", ".join(f"{len(files(part.model))} files of {part.host}" for part in parts)
    return f"{counts}; none hides another"


def _job(subject: Subject, *, sharded: bool) -> tuple[list[TrainingJob], list[Outcome]]:
    """Return a job's parts and how they ended, run when the first rule asks."""
    if not subject.distributed:
        raise DoesNotApply("nobody says that it trains on several hosts: --distributed")

    def make() -> tuple[list[TrainingJob], list[Outcome]]:
        subject.containers  # noqa: B018  # raises Unjudged
        name = "sharded" if sharded else "replicated"
        options = {subject.channel: {"S3DistributionType": "ShardedByS3Key" if sharded else "FullyReplicated"}}
        parts = over_hosts(subject.job(name), HOSTS)
        if sharded:
            empty = subject.folder / "no-objects"
            empty.mkdir(exist_ok=True)
            parts[-1] = replace(parts[-1], channels={subject.channel: empty})
        parts = [replace(part, options=options) for part in parts]
        try:
            return parts, run_together(parts, patience_s(subject))
        except RuntimeError as error:
            raise Violated(str(error)) from error

    return subject.once(f"hosts {sharded}", make)


def _all_ended_well(parts: list[TrainingJob], outcomes: list[Outcome], limit_s: float, how: str) -> str:
    for part, outcome in zip(parts, outcomes, strict=True):
        if outcome.exit_code:
            raise Violated(f"of {HOSTS} hosts, {how}, {part.host} failed: {why(outcome, limit_s)}")
    if not any(files(part.model) for part in parts):
        raise Violated(f"of {HOSTS} hosts, {how}, none left a file in /opt/ml/model")
    return f"{HOSTS} hosts, {how}, ended well"


RULES = (
    Rule(
        "T-33",
        "a job of two hosts ends well",
        Severity.SAGEMAKER,
        "Take the hosts' names from resourceconfig.json, wait until they are known, and end on all hosts when all is done.",
        trains_on_several_hosts,
        ("trains",),
    ),
    Rule(
        "T-34",
        "what two hosts leave is one model",
        Severity.SAGEMAKER,
        "Let hosts[0] alone write to /opt/ml/model, or put the host's name into names: all hosts' folders become one archive.",
        hosts_leave_one_model,
        ("trains_on_several_hosts",),
    ),
    Rule(
        "T-23",
        "a host without a file of a sharded channel does not fail the job",
        Severity.SAGEMAKER,
        "Take an empty folder for a shard without rows where there are several hosts; fail where all of them have none.",
        takes_an_empty_shard,
        ("trains_on_several_hosts",),
    ),
)
