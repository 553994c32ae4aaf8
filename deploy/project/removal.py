"""What `delete` is to do, and in which order: what uses something goes before what it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from deploy.cloud import Cloud
from deploy.errors import NotThere
from deploy.jobs.bucket import bucket_of
from deploy.project import deletions
from deploy.project.inventory import LISTINGS, Thing, inventory
from deploy.project.state import JOBS, RUNNING, endpoint_state, job_cost
from deploy.settings import Storage

STORAGE = "storage"


@dataclass(frozen=True)
class Wanted:
    """What else is to go, beside what runs and what serves."""

    models: bool = False
    images: bool = False
    jobs: bool = False
    data: bool = False
    logs: bool = False


@dataclass(frozen=True)
class Step:
    """One thing that is done to one resource."""

    what: str
    """For people: endpoint berth."""
    subject: str
    """What it is done to: where one step fails, the later ones of the same subject are not taken."""
    act: Callable[[], object]
    status: str = ""
    costs: str = ""
    after: tuple[str, ...] = ()
    """What else must have gone well before: the subjects that may use this one."""


def plan(cloud: Cloud, storage: Storage, wanted: Wanted) -> tuple[list[Step], list[str]]:
    """Return what is to be done, in order; and what stays, with the reason."""
    things = inventory(cloud)
    ours = [thing for thing in things if not thing.stack]
    steps = [*_stops(cloud, ours, wanted), *_endpoints(cloud, ours), *_behind(cloud, ours)]
    if wanted.models:
        steps += [step for thing in of_kind(ours, "model-package-group") for step in _group(cloud, thing)]
    if wanted.logs:  # before the jobs' records, by which it is found
        steps += _logs(cloud, ours)
    if wanted.jobs:
        steps += _records(cloud, ours)
    if wanted.images:
        steps += [_repository(cloud, thing) for thing in of_kind(ours, "repository")]
    kept = list(_kept(things, wanted))
    if wanted.data:
        bucket, folder = bucket_of(storage, cloud), f"{cloud.account.name}/"
        steps += _data(cloud, bucket, folder, ours)
        steps += _bucket(cloud, bucket, folder, ours)
    return steps, kept


def of_kind(things: list[Thing], kind: str) -> list[Thing]:
    """Return what is of a kind."""
    return [thing for thing in things if thing.kind == kind]


def _arns(things: list[Thing], *kinds: str) -> tuple[str, ...]:
    return tuple(thing.arn for thing in things if thing.kind in kinds)


def _stops(cloud: Cloud, things: list[Thing], wanted: Wanted) -> Iterator[Step]:
    """Tuning first: it would start another training job in the place of one that ends."""
    until_ended = wanted.jobs or wanted.data or wanted.logs
    for kind, stop in (
        ("hyper-parameter-tuning-job", deletions.stop_tuning),
        ("training-job", deletions.stop_training),
        ("transform-job", deletions.stop_transform),
    ):
        for thing in of_kind(things, kind):
            if thing.status == "InProgress" or (thing.status == "Stopping" and until_ended):
                costs = str(job_cost(cloud, thing).get("costs", ""))
                act = partial(stop, cloud, thing, until_ended=until_ended)
                yield Step(f"{JOBS[kind]} job {thing.name}", thing.arn, act, thing.status, costs)


def _endpoints(cloud: Cloud, things: list[Thing]) -> Iterator[Step]:
    """Each endpoint with its scaling, of variants that are gone too; then the scaling that an endpoint left behind."""
    targets = list(
        cloud.pages("application-autoscaling", "describe_scalable_targets", "ScalableTargets", ServiceNamespace="sagemaker")
    )
    for thing in of_kind(things, "endpoint"):
        scaled = [one for one in targets if one["ResourceId"].startswith(f"endpoint/{thing.name}/variant/")]
        targets = [one for one in targets if one not in scaled]
        act = partial(deletions.delete_endpoint, cloud, thing, scaled)
        title = f"endpoint {thing.name}" + (", and its scaling" if scaled else "")
        yield Step(title, thing.arn, act, thing.status, _costs(cloud, thing))
    tagged = {thing.arn for thing in of_kind(things, "scalable-target")}
    for one in targets:
        if one.get("ScalableTargetARN") in tagged:
            yield Step(f"scaling of {one['ResourceId']}", one["ResourceId"], partial(deletions.deregister, cloud, one))


def _costs(cloud: Cloud, endpoint: Thing) -> str:
    try:
        return ", ".join(one["costs"] for one in endpoint_state(cloud, endpoint)["variants"])
    except NotThere:  # by now
        return ""


def _behind(cloud: Cloud, things: list[Thing]) -> Iterator[Step]:
    for kind, title, delete in (
        ("endpoint-config", "configuration", deletions.delete_config),
        ("model", "model", deletions.delete_model),
        ("alarm", "alarm", deletions.delete_alarm),
    ):
        for thing in of_kind(things, kind):
            yield Step(
                f"{title} {thing.name}", thing.arn, partial(delete, cloud, thing), thing.status, after=_arns(things, "endpoint")
            )


def _group(cloud: Cloud, group: Thing) -> Iterator[Step]:
    for one in cloud.pages("sagemaker", "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=group.name):
        arn = one["ModelPackageArn"]
        title = f"version {one.get('ModelPackageVersion', '')} of model package group {group.name}"
        yield Step(title, group.arn, partial(deletions.delete_package, cloud, arn), one.get("ModelApprovalStatus", ""))
    yield Step(f"model package group {group.name}", group.arn, partial(deletions.delete_group, cloud, group))


def _repository(cloud: Cloud, thing: Thing) -> Step:
    act = partial(deletions.delete_repository, cloud, thing)
    return Step(f"ECR repository {thing.name}, with all images", thing.arn, act, costs=STORAGE)


def _logs(cloud: Cloud, things: list[Thing]) -> Iterator[Step]:
    """The log groups of endpoints, of those deleted earlier too; and the jobs' streams, from groups that all jobs share."""
    names = {thing.name for thing in of_kind(things, "log-group")}
    names |= {deletions.log_group(thing.name) for thing in of_kind(things, "endpoint")}
    after = _arns(things, "endpoint")
    for name in sorted(names):
        yield Step(f"log group {name}", name, partial(deletions.delete_log_group, cloud, name), costs=STORAGE, after=after)
    for kind, group in (("training-job", "/aws/sagemaker/TrainingJobs"), ("transform-job", "/aws/sagemaker/TransformJobs")):
        for thing in of_kind(things, kind):
            if thing.status in RUNNING or _has_log(cloud, group, thing):
                act = partial(deletions.delete_streams, cloud, group, f"{thing.name}/")
                yield Step(f"log of {JOBS[kind]} job {thing.name}", thing.arn, act, costs=STORAGE)


def _has_log(cloud: Cloud, group: str, job: Thing) -> bool:
    found = cloud.find("logs", "describe_log_streams", logGroupName=group, logStreamNamePrefix=f"{job.name}/", limit=1)
    return bool(found and found["logStreams"])


def _records(cloud: Cloud, things: list[Thing]) -> Iterator[Step]:
    for kind, delete in (
        ("hyper-parameter-tuning-job", deletions.delete_tuning),
        ("training-job", deletions.delete_training),
    ):
        for thing in of_kind(things, kind):
            yield Step(f"record of {JOBS[kind]} job {thing.name}", thing.arn, partial(delete, cloud, thing), thing.status)


def _data(cloud: Cloud, bucket: str, folder: str, things: list[Thing]) -> Iterator[Step]:
    """All in the project's folder, and what jobs that are stopped still write there."""
    if cloud.find("s3", "head_bucket", Bucket=bucket) is None:
        return
    seen = cloud.read("s3", "list_object_versions", Bucket=bucket, Prefix=folder, MaxKeys=1)
    if seen.get("Versions") or seen.get("DeleteMarkers") or any(thing.status in RUNNING for thing in things):
        act = partial(deletions.empty, cloud, bucket, folder)
        yield Step(f"all of s3://{bucket}/{folder}", bucket, act, costs=STORAGE, after=_arns(things, "endpoint", *JOBS))


def _bucket(cloud: Cloud, bucket: str, folder: str, things: list[Thing]) -> Iterator[Step]:
    """The bucket itself, where it was made for the project and nobody else has put anything into it."""
    if not any(thing.arn.endswith(f":s3:::{bucket}") for thing in things):
        return
    if cloud.find("s3", "head_bucket", Bucket=bucket) is not None:
        seen = cloud.read("s3", "list_objects_v2", Bucket=bucket, Delimiter="/")
        if not seen.get("Contents") and {one["Prefix"] for one in seen.get("CommonPrefixes", [])} <= {folder}:
            yield Step(f"bucket {bucket}", bucket, partial(deletions.delete_bucket, cloud, bucket))


def _kept(things: list[Thing], wanted: Wanted) -> Iterator[str]:
    """Yield what is not deleted, and why."""
    stacks = {thing.stack for thing in things if thing.stack}
    stacks |= {thing.name.partition("/")[0] for thing in of_kind(things, "stack")}
    for stack in sorted(stacks):
        yield f"what stack {stack} has made: aws cloudformation delete-stack --stack-name {stack}"
    for kind, is_wanted, flag in (
        ("model-package-group", wanted.models, "--models"),
        ("training-job", wanted.jobs, "--jobs"),
        ("repository", wanted.images, "--images"),
        ("log-group", wanted.logs, "--logs"),
        ("s3", wanted.data, "--data"),
    ):
        names = [thing.name for thing in of_kind(things, kind) if not thing.stack]
        if names and not is_wanted:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            yield f"{kind.replace('-', ' ')} {names[0]}{more}: costs at most storage, and goes with {flag}"
    if of_kind(things, "transform-job"):
        yield "batch jobs that have ended: AWS keeps their records, which cost nothing"
    known = {*LISTINGS, "s3", "scalable-target", "stack"}
    for thing in things:
        if thing.kind not in known and not thing.stack:
            yield f"{thing.arn}: carries the project's tag, but no verb of Berth's makes such"
