"""Which job a command means: the one that the same settings started before, or one more where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.cloud import Request, Response
from deploy.names import LONGEST, named

RUNNING = ("InProgress", "Stopping")


@dataclass(frozen=True)
class Attempt:
    """A job by its name, and what AWS tells of it where it is there."""

    name: str
    found: Response | None

    def status(self, key: str) -> str:
        """Return its status; empty where it is not there."""
        return str((self.found or {}).get(key, ""))


def numbered(project: str, kind: str, request: Request, longest: int = LONGEST) -> Callable[[int], str]:
    """Return what names the attempts of a request: the first by the request alone."""
    return lambda number: named(project, kind, request, *([number] if number > 1 else []), longest=longest)


def attempt(name_of: Callable[[int], str], find: Callable[[str], Response | None], status: str, *, again: bool) -> Attempt:
    """Return the last job of these settings, or the next one to start.

    A name follows from the settings and the number of the attempt, so an interrupted command finds what it had started. A new
    one is asked for with `again`, but not while the last one goes on.

    Args:
        name_of: the name of an attempt; the first is 1.
        find: what AWS tells of a job, None where it is not there.
        status: the key of its status.
        again: whether one that has ended is done once more.
    """
    last = Attempt(name_of(1), find(name_of(1)))
    number = 1
    while last.found is not None:
        number += 1
        following = Attempt(name_of(number), find(name_of(number)))
        if following.found is None:
            return following if again and last.found[status] not in RUNNING else last
        last = following
    return last
