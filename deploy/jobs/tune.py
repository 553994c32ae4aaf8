"""`tune`: a search for hyperparameters in SageMaker; the best model becomes a version of the model registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from contract.tuning import tuning_job
from deploy.cloud import Cloud, Request, Response
from deploy.errors import BadSettings, Failed
from deploy.images.registry import pushed
from deploy.jobs.attempts import RUNNING, Attempt, attempt, numbered
from deploy.jobs.bucket import ready_bucket
from deploy.jobs.register import next_step, register, rehearse
from deploy.jobs.tail import failure, say
from deploy.jobs.train import finished
from deploy.jobs.training import METRICS, checked, checkpoints, definition, is_private
from deploy.names import is_named, prefix
from deploy.options import takes
from deploy.prices import hourly
from deploy.settings import Account, Image, Jobs, Network, Package, Storage, Training, Tuning
from deploy.waiting import State, wait
from model import DECLARATION

LONGEST = 32
"""Of a tuning job's name: its training jobs' names begin with it."""
STRATEGIES = ("Bayesian", "Random", "Grid")


@click.command()
@takes(Account, Image, Network, Storage, Jobs, Training, Tuning, Package)
@click.option("--stop", is_flag=True, help="Stop the project's newest tuning job instead of starting one.")
def tune(
    account: Account,
    image: Image,
    network: Network,
    storage: Storage,
    jobs: Jobs,
    training: Training,
    tuning: Tuning,
    package: Package,
    *,
    stop: bool,
) -> None:
    """Search for hyperparameters in SageMaker and put the best model into the registry."""
    checked(training, image, network)
    search = _search(training, tuning, image)
    cloud = Cloud(account)
    if stop:
        _stop(cloud)
        return
    uri = pushed(cloud, image)
    bucket = ready_bucket(cloud, storage, network)
    request = _request(cloud, training, network, image=image, uri=uri, bucket=bucket, search=search)
    found = _attempt(cloud, request, jobs)
    _start(cloud, found, request)
    if account.dry_run:
        rehearse(cloud, network, package, None)
        return
    if not account.wait:
        click.echo("Next: python -m deploy tune (the same command) waits for it and registers the best model")
        return
    if found.status("HyperParameterTuningJobStatus") in ("", *RUNNING):
        click.echo("Ctrl-C leaves it running; `python -m deploy tune --stop` stops it.")
    wait(cloud, f"Tuning job {found.name}", _look(cloud, found.name))
    register(cloud, network, package, finished(cloud, _best(cloud, found.name)))
    click.echo(next_step(package))


def _search(training: Training, tuning: Tuning, image: Image) -> Request:
    """Return what a tuning job is asked of the model; what is set by hand is not searched.

    Raises:
        BadSettings: the estimator can't be tuned, or not in this way.
    """
    if tuning.search == "Hyperband":
        raise BadSettings(
            "Hyperband stops jobs by what they report on the way; `train` reports its metrics once, after the fit (T-38). "
            f"Set --search to one of {', '.join(STRATEGIES)}."
        )
    if tuning.search not in STRATEGIES:
        raise BadSettings(f"search is {tuning.search!r}; it takes {', '.join(STRATEGIES)}.")
    if is_private(image):
        raise BadSettings("A tuning job takes an image of ECR alone: its API has no TrainingImageConfig. Push to ECR.")
    if tuning.parallel > tuning.jobs:
        raise BadSettings(f"parallel is {tuning.parallel}, of {tuning.jobs} jobs in all; set --parallel lower.")
    try:
        search = tuning_job(DECLARATION, METRICS, tuning.estimator)
    except ValueError as error:
        raise BadSettings(str(error)) from None
    return _fixed(search, training, tuning)


def _fixed(search: Request, training: Training, tuning: Tuning) -> Request:
    config, static = search["HyperParameterTuningJobConfig"], search["TrainingJobDefinition"]["StaticHyperParameters"]
    given = dict(training.hyperparameter)
    if given.get("estimator", tuning.estimator) != tuning.estimator:
        raise BadSettings(f"estimator is {given['estimator']} among the hyperparameters, and {tuning.estimator} to tune.")
    static |= given
    ranges: dict[str, list[Any]] = config["ParameterRanges"]
    for kind, found in ranges.items():
        ranges[kind] = [one for one in found if one["Name"] not in given]
    if not any(ranges.values()):
        raise BadSettings(f"Nothing of {tuning.estimator} is left to search: every tunable hyperparameter is set by hand.")
    if tuning.search == "Grid" and (ranges["IntegerParameterRanges"] or ranges["ContinuousParameterRanges"]):
        raise BadSettings(
            f"Grid searches categories alone, and {tuning.estimator} has numbers. Set --search Bayesian or Random."
        )
    config["Strategy"] = tuning.search
    config["ResourceLimits"] = {"MaxNumberOfTrainingJobs": tuning.jobs, "MaxParallelTrainingJobs": tuning.parallel}
    if tuning.search == "Grid":  # it tries each combination once, and takes no other number
        del config["ResourceLimits"]["MaxNumberOfTrainingJobs"]
    config["TrainingJobEarlyStoppingType"] = "Off"  # T-38: nothing is reported before the end that one could stop by
    config["RandomSeed"] = int(float(given.get("seed", "0")))
    return search


def _request(
    cloud: Cloud, training: Training, network: Network, *, image: Image, uri: str, bucket: str, search: Request
) -> Request:
    job = definition(cloud, training, network, image=image, uri=uri, bucket=bucket)
    job["StaticHyperParameters"] = search["TrainingJobDefinition"]["StaticHyperParameters"]
    if training.spot:
        job["CheckpointConfig"] = checkpoints(cloud, bucket, "tuning", job)
    return {
        "HyperParameterTuningJobConfig": search["HyperParameterTuningJobConfig"],
        "TrainingJobDefinition": job,
    }


def _attempt(cloud: Cloud, request: Request, jobs: Jobs) -> Attempt:
    def find(name: str) -> Response | None:
        return cloud.find("sagemaker", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=name)

    return attempt(
        numbered(cloud.account.name, "tuning", request, LONGEST), find, "HyperParameterTuningJobStatus", again=jobs.again
    )


def _start(cloud: Cloud, found: Attempt, request: Request) -> None:
    if found.found is not None:
        status = found.found["HyperParameterTuningJobStatus"]
        click.echo(f"Tuning job {found.name} is there: {status}. --again searches once more.")
        return
    limits, resources = request["HyperParameterTuningJobConfig"]["ResourceLimits"], request["TrainingJobDefinition"]
    kind, count = resources["ResourceConfig"]["InstanceType"], resources["ResourceConfig"]["InstanceCount"]
    at_a_time = int(limits["MaxParallelTrainingJobs"]) * int(count)
    cloud.make(
        "sagemaker",
        "create_hyper_parameter_tuning_job",
        f"Start tuning job {found.name}, on up to {at_a_time} {kind} at a time",
        lambda: cloud.find("sagemaker", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=found.name),
        costs=hourly(cloud, "Training", kind, at_a_time),
        HyperParameterTuningJobName=found.name,
        **request,
    )


def _look(cloud: Cloud, name: str) -> Callable[[], State]:
    def look() -> State:
        job = cloud.read("sagemaker", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=name)
        status, counters = str(job["HyperParameterTuningJobStatus"]), job.get("TrainingJobStatusCounters", {})
        if status == "Failed":
            return State(status, failure=failure(str(job.get("FailureReason", "")), []))
        ended = status in ("Completed", "Stopped")
        done = f"{counters.get('Completed', 0)} jobs done, {counters.get('InProgress', 0)} in progress"
        best = job.get("BestTrainingJob", {}).get("FinalHyperParameterTuningJobObjectiveMetric", {})
        reached = f", best {best['MetricName']} {best['Value']:.6g}" if best else ""
        return State(status, done + reached, done=ended)

    return look


def _best(cloud: Cloud, name: str) -> str:
    job = cloud.read("sagemaker", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=name)
    best = job.get("BestTrainingJob", {})
    if not best:
        raise Failed(
            f"Tuning job {name} ended as {job['HyperParameterTuningJobStatus']} without a best job: none of its training jobs "
            "reported the objective. `python -m deploy logs training` shows why; --again searches once more."
        )
    say(f"Best of tuning job {name} is {best['TrainingJobName']}:", dict(best.get("TunedHyperParameters", {})))
    return str(best["TrainingJobName"])


def _stop(cloud: Cloud) -> None:
    running = cloud.pages(
        "sagemaker",
        "list_hyper_parameter_tuning_jobs",
        "HyperParameterTuningJobSummaries",
        NameContains=prefix(cloud.account.name, LONGEST),
        StatusEquals="InProgress",
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    names = (str(one["HyperParameterTuningJobName"]) for one in running)
    name = next((name for name in names if is_named(cloud.account.name, name, LONGEST)), "")
    if not name:
        click.echo(f"No tuning job of {cloud.account.name} is in progress; nothing is to be stopped.")
        return
    cloud.change("sagemaker", "stop_hyper_parameter_tuning_job", f"Stop tuning job {name}", HyperParameterTuningJobName=name)
    click.echo("Its training jobs get SIGTERM; the best so far is kept.\nNext: python -m deploy status")
