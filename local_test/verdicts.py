"""What a rule is, and what can be said of an image by one: the vocabulary of `conformance`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from local_test.subject import Subject


class Severity(StrEnum):
    """What comes of breaking a rule."""

    SAGEMAKER = "fails on SageMaker"
    MARKETPLACE = "fails on Marketplace"
    ELSEWHERE = "fails elsewhere"
    WASTEFUL = "wasteful"


class Status(StrEnum):
    """What is said of an image by a rule."""

    PASSED = "passed"
    FAILED = "failed"
    BLOCKED = "blocked"
    """Another rule's failure left nothing to judge."""
    NOT_APPLICABLE = "not applicable"
    """The image does not claim what the rule is about."""
    UNJUDGED = "not judged"
    """It can't be seen from here: no engine, no payload, no training data."""


class Violated(Exception):
    """The rule is broken; says what was found."""


class DoesNotApply(Exception):
    """The image does not claim what the rule is about; says why."""


class Unjudged(Exception):
    """It can't be seen from here; says what is lacking and how to give it."""


class Blocked(Exception):
    """What another rule finds left nothing to judge; says which, by its number."""


@dataclass(frozen=True)
class Rule:
    """One thing that a platform demands, and how to see whether it holds."""

    number: str
    """Of contract.md, such as `H-8`."""
    title: str
    """What holds where the rule is kept, as a sentence."""
    severity: Severity
    fix: str
    """What to do where it is broken."""
    check: Callable[[Subject], str]
    """Returns what was seen; raises Violated, DoesNotApply or Unjudged."""
    needs: tuple[str, ...] = ()
    """Names of rules, earlier in the table, without which this one can't be judged."""
    platform: str = "sagemaker"

    @property
    def name(self) -> str:
        """What it is called beside its number, as several rules may have the same: the check's name."""
        return self.check.__name__


@dataclass(frozen=True)
class Verdict:
    """What is said of an image by one rule."""

    rule: Rule
    status: Status
    seen: str
    """Evidence, why it does not apply, what is lacking, or by which rule it is blocked."""
    seconds: float = 0.0
