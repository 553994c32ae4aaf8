"""Each call of a verb fails once, and a second run repairs what that left behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snapshots import Snapshot, snapshot

if TYPE_CHECKING:
    from verbs import Ran

    from local_test.cloud import Cloud

KINDS = ("lost", "dropped", "refused", "throttled", "broken")
CURES = ("the same command again", "deploy/templates/roles.yaml")
"""One of these is in every message about a call that failed: what to do."""


@dataclass(frozen=True)
class Outcome:
    """How a run went: its calls, how it ended, what there is then."""

    calls: list[str]
    ran: Ran
    seen: Snapshot


Chosen = Callable[[int, str], Sequence[str]]


def all_kinds(number: int, call: str) -> Sequence[str]:
    return KINDS


def every_fault(aws: Cloud, run: Callable[[], Ran], prepare: Callable[[], None], kinds: Chosen = all_kinds) -> list[str]:
    """Have each call of a verb fail in turn, and run it again; return the calls.

    Each time the world is made anew and prepared. After the fault, the run has ended well or says what to do, and all that it
    made is tagged; after the second run, all is as it is after a single good one: nothing doubled, nothing lost.

    Args:
        aws: where it runs.
        run: the verb.
        prepare: makes what it needs.
        kinds: the kinds of fault to try, of a call's number and name.
    """
    clean = run_once(aws, run, prepare)
    for number, call in enumerate(clean.calls, 1):
        for kind in kinds(number, call):
            failed = run_once(aws, run, prepare, (number, kind))
            if len(failed.calls) < number:  # a run that polls may end sooner, and the fault would hit the next one
                continue
            again = run()
            story = f"call {number}, {call}, {kind}:\n{failed.ran.output}\n-- and again:\n{again.output}"
            assert failed.ran.exit_code == clean.ran.exit_code or any(cure in failed.ran.output for cure in CURES), story
            assert failed.seen.untagged() == [], story
            assert again.exit_code == clean.ran.exit_code, story
            assert snapshot(aws).unlike(clean.seen) == {}, story
    return clean.calls


def run_once(aws: Cloud, run: Callable[[], Ran], prepare: Callable[[], None], fault: tuple[int, str] | None = None) -> Outcome:
    """Run a verb in a world made anew, with one call of it failing: the number-th, in some way."""
    aws.reset()
    aws.looks(1)
    prepare()
    before = len(aws.calls)
    if fault:
        aws.fail(*fault)
    ran = run()
    calls = [f"{call.service}:{call.operation}" for call in aws.calls[before:]]
    return Outcome(calls, ran, snapshot(aws))
