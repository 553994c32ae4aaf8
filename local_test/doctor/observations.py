"""What was seen of a container while it ran: the facts from which causes are told, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from local_test.entry import Entry
from local_test.procfs import Address, Memory


@dataclass(frozen=True)
class Answer:
    """What came of one request; nothing came where `status` is 0."""

    seconds: float
    status: int = 0
    said: str = ""
    """How the body begins; without an answer, why there is none."""
    location: str = ""
    """Where a redirect leads."""
    server: str = ""
    """The header Server."""
    after_s: float = 0.0
    """When it was sent, counted from the start."""

    @property
    def is_late(self) -> bool:
        """Say whether somebody took the connection and the time ran out."""
        return self.status == 0 and self.said == "timed out"

    def __str__(self) -> str:
        return f"{self.status or self.said} after {self.seconds:.2f} s"


@dataclass(frozen=True)
class Observations:
    """One start of `train` or `serve`, as the platform does it, and what was seen."""

    word: str

    # The image

    entrypoint: tuple[str, ...] = ()
    architecture: str = ""
    user: str = ""
    entry: Entry | None = None
    """The file that it begins with; None where it could not be looked at."""
    refused: str = ""
    """Why the engine could not start it, in the engine's words."""

    # What was given

    patience_s: float = 60
    port: int = 8080
    """Where it is expected to listen."""
    model_files: tuple[str, ...] = ()
    """What the container finds in /opt/ml/model, without links."""
    model_links: tuple[str, ...] = ()
    """Links in the model's archive."""
    model_unreadable: str = ""
    """Why the archive could not be unpacked."""
    channel: str = "training"
    has_payload: bool = False

    # How it went

    output: str = ""
    ended: bool = False
    """Whether it ended before anybody asked it to."""
    exit_code: int | None = None
    seconds: float = 0.0
    """How long it ran before it was asked to end."""
    ready_s: float | None = None
    """When /ping first answered 200."""
    listeners: frozenset[Address] | None = None
    """Where it listened; None where that can't be seen."""
    connecting: frozenset[Address] = frozenset()
    """What it tried to reach."""
    without_route: int = 0
    """Packets that had no way to go."""
    processes: tuple[str, ...] = ()
    """Command lines at the last look."""
    dead: tuple[str, ...] = ()
    """Command lines of processes that ended while it ran, after the first second."""
    memory: Memory | None = None
    oom_killed: bool = False
    written: tuple[str, ...] = ()
    """Files that it made, changed or removed in the image."""

    # What it answered

    settled: bool = True
    """Whether it had nothing to do before the first ping."""
    early_pings: tuple[Answer, ...] = ()
    """Until the first 200, and those sent at once after it."""
    busy_ping: Answer | None = None
    """While a request to /invocations was under way."""
    invoked: Answer | None = None
    """The owner's payload, or an empty one."""
    large: Answer | None = None
    """A request of 2 MB."""

    # How it ended

    heeds_stop: bool | None = None
    """Whether its first process has a handler for SIGTERM."""
    stop_s: float | None = None
    """How long it took to end after SIGTERM; None where it had to be killed, or was not asked."""
    stop_patience_s: float = 0.0
    """How long it was waited for after SIGTERM; 0 where it was not asked."""
    failure: str = ""
    """The failure file's text (T-26)."""
    artifacts: tuple[str, ...] = ()
    """What `train` left in /opt/ml/model."""

    @cached_property
    def is_ready(self) -> bool:
        """Say whether the endpoint came up."""
        return self.ready_s is not None

    @cached_property
    def failed(self) -> bool:
        """Say whether the platform would call it failed: only then are errors in the log causes of something."""
        if self.refused:
            return True
        if self.word == "train":
            return self.exit_code not in {0, None} and self.ended
        invoked_badly = self.invoked is not None and self.has_payload and self.invoked.status not in range(200, 300)
        return not self.is_ready or self.ended or invoked_badly

    @cached_property
    def told(self) -> str:
        """All that it said of itself: the log, what the engine said, the failure file, answers that are errors."""
        answers = [answer.said for answer in (self.invoked, *self.early_pings[-1:]) if answer and answer.status >= 500]
        return "\n".join(part for part in (self.refused, self.output, self.failure, *answers) if part)

    @cached_property
    def is_alive(self) -> bool:
        """Say whether it was still running when it was asked to end."""
        return not self.refused and not self.ended
