"""`train`: a training job in SageMaker, from the data to a version in the model registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from deploy.cloud import Cloud, Request, Response
from deploy.images.registry import pushed
from deploy.jobs.attempts import RUNNING, Attempt, attempt, numbered
from deploy.jobs.bucket import ready_bucket
from deploy.jobs.models import training_jobs
from deploy.jobs.register import next_step, register, rehearse
from deploy.jobs.tail import TRAINING, end_of_log, failure, say
from deploy.jobs.training import checked, checkpoints, definition
from deploy.options import takes
from deploy.prices import hourly
from deploy.settings import Account, Image, Jobs, Network, Package, Storage, Training
from deploy.waiting import State, wait


@click.command()
@takes(Account, Image, Network, Storage, Jobs, Training, Package)
@click.option("--stop", is_flag=True, help="Stop the project's newest training job instead of starting one.")
def train(
    account: Account,
    image: Image,
    network: Network,
    storage: Storage,
    jobs: Jobs,
    training: Training,
    package: Package,
    *,
    stop: bool,
) -> None:
    """Train in SageMaker and put the model into the registry.

    The same settings, data and image are the same job: a second run waits for it, or finds it done. --again trains once more.
    """
    checked(training, image, network)
    cloud = Cloud(account)
    if stop:
        _stop(cloud)
        return
    uri = pushed(cloud, image)
    bucket = ready_bucket(cloud, storage, network)
    request = _request(cloud, training, network, image=image, uri=uri, bucket=bucket)
    found = _attempt(cloud, request, jobs)
    _start(cloud, found, request)
    if account.dry_run:
        rehearse(cloud, network, package, found.found)
        return
    if not account.wait:
        click.echo("Next: python -m deploy train (the same command) waits for it and registers its model")
        return
    if found.status("TrainingJobStatus") in ("", *RUNNING):
        click.echo("Ctrl-C leaves it running; `python -m deploy train --stop` stops it.")
    job = finished(cloud, found.name)
    register(cloud, network, package, job)
    click.echo(next_step(package))


def finished(cloud: Cloud, name: str) -> Response:
    """Wait until a training job has ended; say what it reached and return what AWS tells of it.

    Raises:
        Failed: it failed, or was stopped; with its own reason and the end of its log.
    """
    wait(cloud, f"Training job {name}", _look(cloud, name))
    job = cloud.read("sagemaker", "describe_training_job", TrainingJobName=name)
    say(
        f"Training job {name} reached:",
        {item["MetricName"]: f"{item['Value']:.6g}" for item in job.get("FinalMetricDataList", [])},
    )
    seconds, billed = job.get("TrainingTimeInSeconds"), job.get("BillableTimeInSeconds")
    if seconds and billed:
        click.echo(f"It took {seconds} s, of which {billed} s are billed for each instance.")
    click.echo(f"Model: {job['ModelArtifacts']['S3ModelArtifacts']}")
    return job


def _request(cloud: Cloud, training: Training, network: Network, *, image: Image, uri: str, bucket: str) -> Request:
    """Return CreateTrainingJob's request but for the name, which follows from it."""
    request = definition(cloud, training, network, image=image, uri=uri, bucket=bucket)
    if training.hyperparameter:
        request["HyperParameters"] = dict(training.hyperparameter)
    if training.spot:
        request["CheckpointConfig"] = checkpoints(cloud, bucket, "training", request)
    return request


def _attempt(cloud: Cloud, request: Request, jobs: Jobs) -> Attempt:
    def find(name: str) -> Response | None:
        return cloud.find("sagemaker", "describe_training_job", TrainingJobName=name)

    return attempt(numbered(cloud.account.name, "training", request), find, "TrainingJobStatus", again=jobs.again)


def _start(cloud: Cloud, found: Attempt, request: Request) -> None:
    if found.found is not None:
        click.echo(f"Training job {found.name} is there: {found.found['TrainingJobStatus']}. --again trains once more.")
        return
    resources: dict[str, Any] = request["ResourceConfig"]
    kind, count = resources["InstanceType"], resources["InstanceCount"]
    spot = ", spot at most" if request["EnableManagedSpotTraining"] else ""
    cloud.make(
        "sagemaker",
        "create_training_job",
        f"Start training job {found.name} on {count} {kind}",
        lambda: cloud.find("sagemaker", "describe_training_job", TrainingJobName=found.name),
        costs=hourly(cloud, "Training", kind, count) + spot,
        TrainingJobName=found.name,
        **request,
    )


def _look(cloud: Cloud, name: str) -> Callable[[], State]:
    def look() -> State:
        job = cloud.read("sagemaker", "describe_training_job", TrainingJobName=name)
        status, secondary = str(job["TrainingJobStatus"]), str(job.get("SecondaryStatus", ""))
        if status == "Failed":
            reason = str(job.get("FailureReason", ""))
            return State(status, failure=failure(reason, end_of_log(cloud, TRAINING, name)))
        if status == "Stopped":
            return State(status, failure=_stopped(job))
        if status == "Completed":
            return State(status, done=True)
        last = end_of_log(cloud, TRAINING, name, lines=1)
        return State(status, ": ".join([secondary, *last[:1]]))

    return look


def _stopped(job: Response) -> str:
    """Return why a stopped job did not end well. What it had by then was kept (T-27), but it is not registered."""
    why = str(job.get("SecondaryStatus", "Stopped"))
    place = job.get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
    kept = f" What it had saved is at {place}." if place else ""
    cures = {
        "MaxRuntimeExceeded": "Set --max-run-s higher, and run again.",
        "MaxWaitTimeExceeded": "Set --max-wait-s higher, or leave --spot out, and run again.",
    }
    return f"{why}.{kept} {cures.get(why, 'Run with --again to train once more.')}"


def _stop(cloud: Cloud) -> None:
    name = next(training_jobs(cloud, "InProgress"), "")
    if not name:
        click.echo(f"No training job of {cloud.account.name} is in progress; nothing is to be stopped.")
        return
    cloud.change("sagemaker", "stop_training_job", f"Stop training job {name}", TrainingJobName=name)
    click.echo("It gets SIGTERM and 120 s to save its model (T-27).\nNext: python -m deploy status")
