"""What is said of a product by one rule of its certification, and what all of it comes to.

A rule that could not be judged is no pass: nobody has seen that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

PASSES, BREAKS, NOT_JUDGED = 0, 1, 2
"""Exit statuses of `publish check`."""


class Status(StrEnum):
    """What is said by a rule."""

    KEPT = "kept"
    BROKEN = "broken"
    UNJUDGED = "not judged"


@dataclass(frozen=True)
class Verdict:
    """What is said by one rule."""

    number: str
    """Of contract.md, such as M-9."""
    title: str
    """What holds where the rule is kept, as a sentence."""
    status: Status
    seen: str = ""
    """What was found, or what is lacking to judge."""
    fix: str = ""
    """What to do where it is broken."""
    part: str = ""
    """Which part of the check said it."""
    excused: bool = False
    """Whether it was asked for that this rule need not be judged."""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return asdict(self)


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """Return 0 where all rules are kept, 1 where one is broken, 2 where one could not be judged, or none was."""
    if any(verdict.status is Status.BROKEN for verdict in verdicts):
        return BREAKS
    lacking = [verdict for verdict in verdicts if verdict.status is Status.UNJUDGED and not verdict.excused]
    return NOT_JUDGED if lacking or not verdicts else PASSES


def lines_of(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield the report for people: a line a rule, then what was found and what to do."""
    for verdict in verdicts:
        yield f"{verdict.number:<6}{verdict.status:<12}{verdict.title}"
    for verdict in verdicts:
        if verdict.status is not Status.KEPT:
            yield f"\n{verdict.number} {verdict.title}: {verdict.status}"
            yield f"  found: {verdict.seen}"
            if verdict.fix:
                yield f"  do: {verdict.fix}"
    counts = {status: sum(verdict.status is status for verdict in verdicts) for status in Status}
    yield "\n" + ", ".join(f"{count} {status}" for status, count in counts.items() if count)
