"""Waiting for what AWS does by itself, with a line a change of its state; Ctrl-C stops the waiting, not the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import click

from deploy.cloud import Cloud
from deploy.errors import Failed, Unknown

PATIENCE = 5
"""Looks in a row that may fail before the waiting ends: work goes on while AWS doesn't answer."""
REPEAT_S = 60


@dataclass(frozen=True)
class State:
    """What is seen at one look."""

    status: str
    """In AWS's word, such as InProgress."""
    detail: str = ""
    """What is done at the moment, in words."""
    done: bool = False
    failure: str = ""
    """Why it ended badly."""


def wait(cloud: Cloud, title: str, look: Callable[[], State]) -> State:
    """Look until it is done; return the last state.

    Args:
        cloud: says how often to look.
        title: what is waited for, such as `Endpoint berth`.
        look: asks AWS once.

    Raises:
        Failed: it ended badly.
        Unknown: AWS does not answer, several times in a row.
    """
    began, said, told_s, misses = time.monotonic(), "", 0.0, 0
    while True:
        try:
            state, misses = look(), 0
        except Unknown:
            misses += 1
            if misses == PATIENCE:
                raise
            time.sleep(cloud.account.poll_s)
            continue
        now_s = time.monotonic() - began
        line = f"{title}: {state.status}" + (f", {state.detail}" if state.detail else "")
        if line != said or now_s - told_s >= REPEAT_S:
            click.echo(f"{line} ({now_s:.0f} s)")
            said, told_s = line, now_s
        if state.failure:
            raise Failed(f"{title} ended as {state.status}: {state.failure}")
        if state.done:
            return state
        time.sleep(cloud.account.poll_s)
