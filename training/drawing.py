"""The report's figures, drawn in a process that imports matplotlib while `train` reads, and draws while `train` explains."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from contract.collector import uncollected
from training.child import Tell, receive, start

if TYPE_CHECKING:
    from markupsafe import Markup

Drawing = tuple[str, tuple[Any, ...]]
"""A function of training/plots.py by name, and its arguments."""


class Drawer:
    """Draws figures, in this process where its own was not started, or was lost."""

    def __init__(self) -> None:
        self._asked: Sequence[Drawing] = ()
        self._requests: Connection | None = None
        self._answers: Connection | None = None

    def start(self) -> None:
        """Have the process load its libraries."""
        requests, self._requests = Pipe(duplex=False)
        _, self._answers = start(_draw_what_comes, (requests,))
        requests.close()

    def ask(self, drawings: Sequence[Drawing]) -> None:
        """Have figures drawn; `figures` returns them, and comes before the next are asked for."""
        self._asked = drawings
        if self._requests:
            try:
                self._requests.send(drawings)
            except OSError:  # it has ended
                self._requests = None

    def figures(self) -> list[Markup]:
        """Return what was asked for, in its order.

        Raises:
            Exception: whatever matplotlib raises; as RuntimeError where the process is its own.
        """
        if self._requests and self._answers:
            told: list[list[Markup]] = []
            _, failure = receive(self._answers, told.append, "")
            if failure:
                raise RuntimeError(failure)
            if told:
                return told[0]
            self._requests = None
        return _draw(self._asked)


def _draw_what_comes(tell: Tell, requests: Connection) -> None:
    """Run in the child, until its parent ends."""
    with uncollected():
        from training import plots  # noqa: F401

    while True:
        tell(_draw(requests.recv()))


def _draw(drawings: Sequence[Drawing]) -> list[Markup]:
    from training import plots

    return [getattr(plots, name)(*arguments) for name, arguments in drawings]
