"""`batch`: a batch transform job over files in S3, a prediction a record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from deploy.cloud import DRY, Cloud, Request, Response
from deploy.errors import DeployError
from deploy.images.registry import pushed
from deploy.jobs.attempts import RUNNING, Attempt, attempt, numbered
from deploy.jobs.bucket import copy, objects, ready_bucket, split_uri
from deploy.jobs.models import make_model, newest_model
from deploy.jobs.tail import TRANSFORM, end_of_log, failure
from deploy.jobs.transform import checked, transform
from deploy.names import is_named, prefix
from deploy.options import takes
from deploy.prices import hourly
from deploy.settings import Account, Batch, Image, Jobs, Network, Package, Storage
from deploy.waiting import State, wait

SHOWN = 20
HINT = "One record that can't be answered fails its whole file (H-28): --bad-rows placeholder answers the others."


@click.command()
@takes(Account, Image, Network, Storage, Jobs, Package, Batch)
@click.option("--stop", is_flag=True, help="Stop the project's newest transform job instead of starting one.")
def batch(
    account: Account,
    image: Image,
    network: Network,
    storage: Storage,
    jobs: Jobs,
    package: Package,
    batch: Batch,
    *,
    stop: bool,
) -> None:
    """Answer files of records in S3: a prediction a line, one .out file for each file of the input."""
    checked(batch, network, image, stop=stop)
    cloud = Cloud(account)
    if stop:
        _stop(cloud)
        return
    uri = pushed(cloud, image)
    data = batch.batch_data or newest_model(cloud, package)
    bucket = ready_bucket(cloud, storage, network)
    records = _input(cloud, network, batch, f"s3://{bucket}/{account.name}/batch/input")
    model = make_model(cloud, network, uri, data)
    request = transform(batch, network, records)
    found = _attempt(cloud, {"ModelName": model, **request}, jobs)
    output = batch.batch_output or f"s3://{bucket}/{account.name}/batch/{found.name}"
    request["TransformOutput"]["S3OutputPath"] = output
    _start(cloud, found, {"ModelName": model, **request})
    if account.dry_run:
        click.echo(DRY)
        return
    if not account.wait:
        click.echo("Next: python -m deploy batch (the same command) waits for it and lists the answers")
        return
    if found.status("TransformJobStatus") in ("", *RUNNING):
        click.echo("Ctrl-C leaves it running; `python -m deploy batch --stop` stops it.")
    wait(cloud, f"Transform job {found.name}", _look(cloud, found.name))
    _list(cloud, found.name)


def _input(cloud: Cloud, network: Network, batch: Batch, place: str) -> str:
    given = batch.batch_input
    return given if given.startswith("s3://") else copy(cloud, network, Path(given), place)


def _attempt(cloud: Cloud, request: Request, jobs: Jobs) -> Attempt:
    def find(name: str) -> Response | None:
        return cloud.find("sagemaker", "describe_transform_job", TransformJobName=name)

    return attempt(numbered(cloud.account.name, "transform", request), find, "TransformJobStatus", again=jobs.again)


def _start(cloud: Cloud, found: Attempt, request: Request) -> None:
    if found.found is not None:
        click.echo(f"Transform job {found.name} is there: {found.found['TransformJobStatus']}. --again does it once more.")
        return
    kind, count = request["TransformResources"]["InstanceType"], request["TransformResources"]["InstanceCount"]
    cloud.make(
        "sagemaker",
        "create_transform_job",
        f"Start transform job {found.name} on {count} {kind}",
        lambda: cloud.find("sagemaker", "describe_transform_job", TransformJobName=found.name),
        costs=hourly(cloud, "Transform", kind, count),
        TransformJobName=found.name,
        **request,
    )


def _look(cloud: Cloud, name: str) -> Callable[[], State]:
    def look() -> State:
        job = cloud.read("sagemaker", "describe_transform_job", TransformJobName=name)
        status = str(job["TransformJobStatus"])
        if status == "Failed":
            reason = f"{job.get('FailureReason', '')}\n{_unanswered(cloud, job)}{HINT}"
            return State(status, failure=failure(reason, end_of_log(cloud, TRANSFORM, name)))
        if status == "Stopped":
            return State(status, failure="it was stopped. Run with --again to do it once more.")
        return State(status, done=status == "Completed")

    return look


def _unanswered(cloud: Cloud, job: Response) -> str:
    """Return which files of the input have no answers, a line; nothing where that can't be told."""
    bucket, prefix = split_uri(job["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"])
    folder = prefix[: prefix.rfind("/") + 1]
    place, output = split_uri(f"{job['TransformOutput']['S3OutputPath'].rstrip('/')}/")
    try:
        answered = {key.removeprefix(output).removesuffix(".out") for key, _ in objects(cloud, place, output)}
        lacking = [key for key, _ in objects(cloud, bucket, prefix) if key.removeprefix(folder) not in answered]
    except DeployError:
        return ""
    more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
    return f"Without answers: {', '.join(lacking[:SHOWN])}{more}.\n" if lacking else ""


def _list(cloud: Cloud, name: str) -> None:
    """Say which files were answered, and which were not."""
    job = cloud.read("sagemaker", "describe_transform_job", TransformJobName=name)
    bucket, prefix = split_uri(job["TransformOutput"]["S3OutputPath"])
    answered = list(objects(cloud, bucket, prefix))
    click.echo(f"{len(answered)} file(s) of answers at s3://{bucket}/{prefix}:")
    for key, size in answered[:SHOWN]:
        click.echo(f"  s3://{bucket}/{key} ({size:,} bytes)")
    if len(answered) > SHOWN:
        click.echo(f"  and {len(answered) - SHOWN} more")
    click.echo(f"Next: aws s3 cp --recursive s3://{bucket}/{prefix} answers")


def _stop(cloud: Cloud) -> None:
    running = cloud.pages(
        "sagemaker",
        "list_transform_jobs",
        "TransformJobSummaries",
        NameContains=prefix(cloud.account.name),
        StatusEquals="InProgress",
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    names = (str(one["TransformJobName"]) for one in running)
    name = next((name for name in names if is_named(cloud.account.name, name)), "")
    if not name:
        click.echo(f"No transform job of {cloud.account.name} is in progress; nothing is to be stopped.")
        return
    cloud.change("sagemaker", "stop_transform_job", f"Stop transform job {name}", TransformJobName=name)
    click.echo("Next: python -m deploy status")
