"""`preflight`: what would stop a verb later is found now, in a few seconds and without a change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.errors import DeployError
from deploy.options import takes
from deploy.preflight import checks
from deploy.preflight.checks import Asked, Finding, Status
from deploy.preflight.permissions import permissions
from deploy.preflight.quotas import quotas
from deploy.settings import Account, Batch, Endpoint, Image, Network, Storage, Training

Check = Callable[[Asked], Iterable[Finding]]
CHECKS: tuple[tuple[str, Check, Status], ...] = (
    ("roles", checks.roles, Status.WARN),
    ("permissions", permissions, Status.WARN),
    ("bucket", checks.bucket, Status.FAIL),
    ("registry", checks.images, Status.FAIL),
    ("quotas", quotas, Status.WARN),
    ("engine", checks.engine, Status.WARN),
    ("disk", checks.disk, Status.WARN),
)
"""What is asked, and how it counts where it can't be answered: some may not be asked by who may do all that is needed."""
SERVICES = ("cloudformation", "cloudwatch", "ecr", "iam", "s3", "service-quotas", "sts")
WIDTH = 13


@click.command()
@takes(Account, Image, Network, Storage, Training, Endpoint, Batch)
def preflight(account: Account, *planned: Any) -> None:
    """Look whether account, Region, roles, registry, quotas and engine are ready; change nothing."""
    cloud = Cloud(replace(account, dry_run=False))
    count = _show("account", _who(cloud))
    asked = Asked(cloud, *planned)
    for service in SERVICES:
        cloud.client(service)  # boto3 makes clients in one thread alone; the calls may be in many
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        answers = [pool.submit(_ask, check, asked, otherwise) for _, check, otherwise in CHECKS]
        for (title, _, _), answer in zip(CHECKS, answers, strict=True):
            count += _show(title, answer.result())
    if count:
        raise DeployError(f"{count} {'things stop' if count > 1 else 'thing stops'} the verbs, as marked above.")
    click.echo("Next: python -m deploy push")


def _who(cloud: Cloud) -> list[Finding]:
    """Say who is signed in, and where; raises DeployError where nobody is: nothing else can be asked then."""
    told = cloud.read("sts", "get_caller_identity")
    kind, _, name = str(told["Arn"]).rpartition(":")[2].partition("/")
    findings = [_place(cloud, str(told["Account"]))]
    if kind == "root":
        fix = "Sign in as a role that may just what is needed; deploy/templates/roles.yaml makes one."
        return [*findings, Finding(Status.WARN, "the account's root user, whom nothing can be denied", fix)]
    role = f"role {name.partition('/')[0]}, as {name.partition('/')[2]}"
    return [*findings, Finding(Status.PASS, role if kind == "assumed-role" else f"{kind} {name}")]


def _place(cloud: Cloud, account_id: str) -> Finding:
    place = f"{account_id}, Region {cloud.region}"
    if cloud.region in cloud.regions("sagemaker"):
        return Finding(Status.PASS, place)
    return Finding(Status.WARN, f"{place}: this boto3 knows no SageMaker there", "See that the Region is spelled right.")


def _ask(check: Check, asked: Asked, otherwise: Status) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings += check(asked)
    except DeployError as error:
        findings.append(Finding(otherwise, error.message))
    return findings


def _show(title: str, findings: Iterable[Finding]) -> int:
    """Print findings; return how many of them are failures."""
    count = 0
    for finding in findings:
        click.echo(f"{finding.status:<5} {title:<{WIDTH}}{finding.seen}")
        if finding.fix:
            click.echo(f"{'':<6}{'':<{WIDTH}}{finding.fix}")
        count += finding.status is Status.FAIL
    return count
