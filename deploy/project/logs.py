"""`logs`: what an endpoint or a job has written, once or as it comes; every line once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere, Unknown
from deploy.options import takes
from deploy.project.inventory import inventory
from deploy.settings import Account
from deploy.waiting import PATIENCE

KINDS = {"endpoint": "endpoint", "training": "training-job", "batch": "transform-job"}
RECENT = "1h"
OVERLAP_MS = 60_000
"""How late a line may come: CloudWatch takes lines of several streams out of order."""
LONGEST_PAUSE_S = 5.0
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@click.command()
@click.argument("what", type=click.Choice(tuple(KINDS)), default="endpoint")
@click.argument("which", metavar="[NAME]", default="")
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C, or until the job has ended.")
@click.option("--since", default="", metavar="TIME", help=f"How far back, as 30s, 15m, 1h, 2d. [endpoint: {RECENT}; jobs: all]")
@click.option("--filter", "pattern", default="", metavar="TEXT", help="Only lines with this text.")
@takes(Account)
def logs(account: Account, what: str, which: str, follow: bool, since: str, pattern: str) -> None:
    """Print what the endpoint, the newest training job or the newest batch job has written.

    NAME means another one than the project's only endpoint, or the newest job.
    """
    cloud = Cloud(account)
    job = what != "endpoint"
    name = which or _meant(cloud, what)
    tail = Tail(cloud, *_place(what, name), pattern=pattern, since_ms=_since(since or ("" if job else RECENT)))
    try:
        if follow:
            _follow(tail, what, name)
        elif not tail.show():
            click.echo(f"{name} has written nothing of what was asked for. --since 2d looks further back.", err=True)
    except KeyboardInterrupt:
        return
    except NotThere:
        raise NotThere(
            f"{name} has written nothing yet: log group {tail.group} is not there ({cloud.place}). AWS makes it with the first "
            "line; --follow waits for it."
        ) from None


@dataclass
class Tail:
    """The lines of a log group, from some moment on."""

    cloud: Cloud
    group: str
    streams: str
    """What the names of the streams begin with; empty for all."""
    pattern: str = ""
    since_ms: int = 0
    _seen: dict[str, int] = field(default_factory=dict)
    """Lines that may come again, and their time."""
    _names: set[str] = field(default_factory=set)

    def show(self) -> int:
        """Print what is new, and return how many lines that were.

        Raises:
            NotThere: nothing has been written yet.
        """
        if not self._names:
            self._names.update(self._written())
        count = 0
        for event in self._events():
            self._names.add(event["logStreamName"])
            several = len(self._names) > 1
            click.echo((f"{event['logStreamName']}: " if several else "") + event["message"].rstrip("\n"))
            count += 1
        newest = max(self._seen.values(), default=0)
        self.since_ms = max(self.since_ms, newest - OVERLAP_MS)
        self._seen = {event: at_ms for event, at_ms in self._seen.items() if at_ms >= self.since_ms}
        return count

    def _events(self) -> Iterator[Any]:
        request: dict[str, Any] = {"logGroupName": self.group, "startTime": self.since_ms}
        if self.streams:
            request["logStreamNamePrefix"] = self.streams
        if self.pattern:
            request["filterPattern"] = '"{}"'.format(self.pattern.replace('"', r"\""))
        for event in self.cloud.pages("logs", "filter_log_events", "events", **request):
            if event["eventId"] not in self._seen and event["logStreamName"].startswith(self.streams):
                self._seen[event["eventId"]] = event["timestamp"]
                yield event

    def _written(self) -> Iterator[str]:
        """Yield the streams that have lines of the time asked for."""
        request = {"logStreamNamePrefix": self.streams} if self.streams else {}
        for stream in self.cloud.pages("logs", "describe_log_streams", "logStreams", logGroupName=self.group, **request):
            if stream.get("lastEventTimestamp", 0) >= self.since_ms:
                yield stream["logStreamName"]


def _follow(tail: Tail, what: str, name: str) -> None:
    """Print lines as they come; a job's until it has ended and no more come."""
    misses = 0
    while True:
        try:
            ended = _ended(tail.cloud, what, name)
            if not _shown(tail) and ended:
                return
            misses = 0
        except Unknown:
            misses += 1
            if misses == PATIENCE:
                raise
        time.sleep(min(tail.cloud.account.poll_s, LONGEST_PAUSE_S))


def _shown(tail: Tail) -> int:
    try:
        return tail.show()
    except NotThere:
        return 0


def _ended(cloud: Cloud, what: str, name: str) -> bool:
    if what == "training":
        job = cloud.read("sagemaker", "describe_training_job", TrainingJobName=name)
        return job["TrainingJobStatus"] not in ("InProgress", "Stopping")
    if what == "batch":
        job = cloud.read("sagemaker", "describe_transform_job", TransformJobName=name)
        return job["TransformJobStatus"] not in ("InProgress", "Stopping")
    return False


def _meant(cloud: Cloud, what: str) -> str:
    """Return the name of the project's newest job, or only endpoint."""
    found = inventory(cloud, KINDS[what])
    if not found:
        verb = {"endpoint": "endpoint", "training": "train", "batch": "batch"}[what]
        raise NotThere(f"{cloud.account.name} has no {what} in {cloud.place}. Make one: python -m deploy {verb}")
    if what == "endpoint" and len(found) > 1:
        raise BadSettings(
            f"{cloud.account.name} has several endpoints: {', '.join(sorted(thing.name for thing in found))}. Name one."
        )
    return max(found, key=lambda thing: thing.created or datetime.min.replace(tzinfo=UTC)).name


def _place(what: str, name: str) -> tuple[str, str]:
    """Return the log group, and what its streams begin with (T-39, H-37)."""
    if what == "endpoint":
        return f"/aws/sagemaker/Endpoints/{name}", ""
    return {"training": "/aws/sagemaker/TrainingJobs", "batch": "/aws/sagemaker/TransformJobs"}[what], f"{name}/"


def _since(text: str) -> int:
    """Return the moment so long ago, in milliseconds since 1970; 0 where nothing is said."""
    if not text:
        return 0
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise BadSettings(f"--since {text}: a number and a unit were expected, such as 30s, 15m, 1h or 2d.")
    return int((datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})).timestamp() * 1000)
