"""All that the stand-in remembers: what was made, what is to happen, what was called."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

ACCOUNT = "123456789012"
"""moto's."""
CAPACITY = "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
OUTCOMES = ("completed", "failed", "capacity", "stopped", "stuck")


@dataclass(frozen=True)
class Call:
    """One call that was made."""

    service: str
    operation: str
    request: dict[str, Any]
    status: int
    """Of HTTP; 0 where the connection was closed without an answer."""
    fault: str = ""
    """What was planned for it."""


@dataclass
class Fault:
    """What is to happen to calls to come."""

    kind: str
    wait: int
    """How many calls pass before."""
    times: int = 1
    operation: str = ""
    """Where given, only calls of this operation count."""


@dataclass(frozen=True)
class Script:
    """How something that takes time is to end."""

    outcome: str = "completed"
    """completed, failed, capacity (none was left), stopped; an endpoint's update also: stuck (can't even go back)."""
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Of a training job; of a tuning job, the objective's values are in `objectives`."""
    objectives: tuple[float, ...] = ()
    artifact: bytes | None = None
    """model.tar.gz of a training job; the output of each object of a transform job."""
    logs: tuple[str, ...] = ()

    @property
    def is_failed(self) -> bool:
        """Whether it ends ill."""
        return self.outcome in {"failed", "capacity"}

    def why(self, usual: str) -> str:
        """Return the FailureReason: what was given, else that of capacity, else what usually fails."""
        return self.reason or (CAPACITY if self.outcome == "capacity" else usual)


@dataclass
class Record:
    """Something that was made."""

    kind: str
    """The resource's name in the API: TrainingJob."""
    name: str
    arn: str
    region: str
    request: dict[str, Any]
    tags: dict[str, str]
    created: datetime
    facts: dict[str, Any] = field(default_factory=dict)
    """What Describe says beyond the request; names that begin with _ are the stand-in's own notes."""
    plan: list[Callable[[], None]] = field(default_factory=list)
    """What happens to it next, each after some looks."""
    looks: int = 0
    """How often it was described since the last step."""

    def __getitem__(self, member: str) -> Any:
        """Return a member that Describe would give: a fact, else what was asked for."""
        return self.facts[member] if member in self.facts else self.request[member]

    @property
    def status(self) -> str:
        """The status, empty where it has none."""
        return str(self.facts.get(f"{self.kind}Status", ""))

    def turn(self, status: str) -> None:
        """Change the status."""
        self.facts |= {f"{self.kind}Status": status, "LastModifiedTime": now()}


@dataclass
class World:
    """The state of one cloud."""

    registry: str = ""
    """HOST:PORT of the registry that stands behind ECR; empty for moto's own answers."""
    url: str = ""
    looks: int = 2
    """How many Describe calls a state in progress is seen before it moves on."""
    records: dict[tuple[str, str, str], Record] = field(default_factory=dict)
    scripts: dict[tuple[str, str], Script] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    """Endpoint, or model of a transform job, to the URL of what answers for it."""
    prices: list[dict[str, Any]] = field(default_factory=list)
    findings: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    scanned: set[tuple[str, str]] = field(default_factory=set)
    pushed: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Repository and digest to when it was first seen: a registry does not tell when it came."""
    denied: set[str] = field(default_factory=set)
    """Actions that the policy simulator says no to: iam:PassRole."""
    quotas: list[dict[str, Any]] = field(default_factory=list)
    activities: list[dict[str, Any]] = field(default_factory=list)
    target_tags: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict)
    """Of what application-autoscaling scales."""
    faults: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    """Answers of ours that the model forbids."""
    clients: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)
    """Of the stand-in's own calls, by service and Region."""
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def forget(self) -> None:
        """Empty everything but where it stands."""
        fresh = World(self.registry, self.url)
        with self.lock:
            for name in vars(fresh).keys() - {"lock", "clients"}:
                setattr(self, name, getattr(fresh, name))

    def find(self, region: str, kind: str, name: str) -> Record | None:
        """Return what has a name, or nothing."""
        return self.records.get((region, kind, name))

    def of_kind(self, region: str, kind: str) -> list[Record]:
        """Return all of a kind in a Region, in the order they were made."""
        return [record for (where, what, _), record in self.records.items() if (where, what) == (region, kind)]

    def keep(self, record: Record) -> None:
        """Remember what was made."""
        self.records[record.region, record.kind, record.name] = record

    def drop(self, record: Record) -> None:
        """Forget what was deleted."""
        self.records.pop((record.region, record.kind, record.name), None)

    def script(self, kind: str, name: str) -> Script:
        """Return how something is to end: what is said of its name, once; else what is said of all of its kind."""
        return self.scripts.pop((kind, name), None) or self.scripts.get((kind, "*")) or Script()


def now() -> datetime:
    """Return the time, as AWS gives it."""
    return datetime.now(UTC)
