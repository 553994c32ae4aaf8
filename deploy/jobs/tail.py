"""The end of a job's log in CloudWatch, and what its reason for failing means."""

from __future__ import annotations

import click

from deploy.cloud import Cloud
from deploy.errors import DeployError

TRAINING, TRANSFORM = "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs"
"""T-39."""
LINES, HOSTS = 15, 5
"""Of each of so many hosts."""
CAUSES = {
    "Capacity": "AWS has no such instance free: wait and run with --again, choose another instance type, or leave --spot out.",
    "exit code: 137": "The container was killed, most likely for want of memory: choose a larger instance type.",
    "Unable to access": "The role may not read it, or it is not there: deploy/templates/roles.yaml lists what the role needs.",
    "AccessDenied": "The role may not do that: deploy/templates/roles.yaml lists what it needs.",
    "No S3 objects found": "Nothing is at that place in S3: check the channel or the input.",
    "ServerError": "AWS failed: run with --again.",
    "InternalServerError": "AWS failed: run with --again.",
}
"""A part of a reason, and what to do about it."""


def end_of_log(cloud: Cloud, group: str, job: str, lines: int = LINES) -> list[str]:
    """Return a job's last lines, of each of its hosts; none where the log can't be read: it never stops what is done."""
    try:
        streams = cloud.read("logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=f"{job}/", limit=HOSTS)[
            "logStreams"
        ]
        return [line for stream in streams for line in _last(cloud, group, stream["logStreamName"], lines)]
    except DeployError:
        return []


def _last(cloud: Cloud, group: str, stream: str, lines: int) -> list[str]:
    events = cloud.read("logs", "get_log_events", logGroupName=group, logStreamName=stream, limit=lines, startFromHead=False)[
        "events"
    ]
    return [str(event["message"]).rstrip() for event in events]


def failure(reason: str, log: list[str]) -> str:
    """Return why a job failed: its own reason, what to do about it, and the end of its log."""
    advice = next((f"\n{cure}" for part, cure in CAUSES.items() if part in reason), "")
    ending = "".join(f"\n  {line}" for line in log)
    return f"{reason or 'no reason was given'}{advice}" + (f"\nIts log ends with:{ending}" if log else "")


def say(title: str, values: dict[str, object]) -> None:
    """Print values by name, under a title."""
    click.echo(title)
    for name, value in values.items():
        click.echo(f"  {name}: {value}")
