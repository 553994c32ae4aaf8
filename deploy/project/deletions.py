"""What ends each kind of resource: one function a kind, safe to be called again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deploy.cloud import Cloud
from deploy.errors import Failed, NotThere, Refused
from deploy.project.inventory import Thing
from deploy.waiting import State, wait

REST = ("InService", "Failed", "OutOfService", "UpdateRollbackFailed")
"""States in which an endpoint can be deleted."""
ENDED = ("Completed", "Failed", "Stopped")
AT_ONCE = 1000
"""Objects that S3 deletes in one request."""


def stop_tuning(cloud: Cloud, thing: Thing, *, until_ended: bool) -> None:
    """Stop a tuning job, and with it the training jobs that it has begun; wait for its end where that is asked."""

    def status() -> str:
        job = cloud.read("sagemaker", "describe_hyper_parameter_tuning_job", HyperParameterTuningJobName=thing.name)
        return str(job["HyperParameterTuningJobStatus"])

    if status() == "InProgress":
        cloud.change(
            "sagemaker",
            "stop_hyper_parameter_tuning_job",
            f"Stop tuning job {thing.name}",
            HyperParameterTuningJobName=thing.name,
        )
    if until_ended:
        _end(cloud, f"Tuning job {thing.name}", status)


def stop_training(cloud: Cloud, thing: Thing, *, until_ended: bool) -> None:
    """Stop a training job, which has two minutes to keep its model (T-33); wait for its end where that is asked."""

    def status() -> str:
        return str(cloud.read("sagemaker", "describe_training_job", TrainingJobName=thing.name)["TrainingJobStatus"])

    if status() == "InProgress":
        cloud.change("sagemaker", "stop_training_job", f"Stop training job {thing.name}", TrainingJobName=thing.name)
    if until_ended:
        _end(cloud, f"Training job {thing.name}", status)


def stop_transform(cloud: Cloud, thing: Thing, *, until_ended: bool) -> None:
    """Stop a batch job; wait for its end where that is asked."""

    def status() -> str:
        return str(cloud.read("sagemaker", "describe_transform_job", TransformJobName=thing.name)["TransformJobStatus"])

    if status() == "InProgress":
        cloud.change("sagemaker", "stop_transform_job", f"Stop batch job {thing.name}", TransformJobName=thing.name)
    if until_ended:
        _end(cloud, f"Batch job {thing.name}", status)


def deregister(cloud: Cloud, target: Any) -> None:
    """End a variant's scaling: its policies go with it, and the alarms that AWS has made for them."""
    try:
        cloud.change(
            "application-autoscaling",
            "deregister_scalable_target",
            f"End the scaling of {target['ResourceId']}",
            ServiceNamespace="sagemaker",
            ResourceId=target["ResourceId"],
            ScalableDimension=target["ScalableDimension"],
        )
    except NotThere:
        return


def delete_endpoint(cloud: Cloud, thing: Thing, scaled: list[Any]) -> None:
    """End an endpoint's scaling, delete it once it is at rest, and wait until it is gone.

    Args:
        cloud: the account.
        thing: the endpoint.
        scaled: its scalable targets: they are found by it, and so go first.

    Raises:
        Failed: it is not gone, or not yet.
    """
    for target in scaled:
        deregister(cloud, target)
    _tag_log(cloud, thing)
    status = _endpoint(cloud, thing.name).status
    if status not in (*REST, "Deleting", "Deleted"):
        _rest(cloud, thing.name, status)
    if status not in ("Deleting", "Deleted"):
        cloud.change("sagemaker", "delete_endpoint", f"Delete endpoint {thing.name}", EndpointName=thing.name)
    if cloud.account.dry_run or status == "Deleted":
        return
    if not cloud.account.wait:
        raise Failed("it is being deleted; what it uses stays until it is gone.")
    wait(cloud, f"Endpoint {thing.name}", lambda: _endpoint(cloud, thing.name))


def log_group(endpoint: str) -> str:
    """Return the name of an endpoint's log group (H-37)."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def delete_config(cloud: Cloud, thing: Thing) -> None:
    """Delete an endpoint's configuration."""
    cloud.change("sagemaker", "delete_endpoint_config", f"Delete configuration {thing.name}", EndpointConfigName=thing.name)


def delete_model(cloud: Cloud, thing: Thing) -> None:
    """Delete SageMaker's model; its files stay in S3."""
    cloud.change("sagemaker", "delete_model", f"Delete model {thing.name}", ModelName=thing.name)


def delete_alarm(cloud: Cloud, thing: Thing) -> None:
    """Delete an alarm."""
    cloud.change("cloudwatch", "delete_alarms", f"Delete alarm {thing.name}", AlarmNames=[thing.name])


def delete_package(cloud: Cloud, arn: str) -> None:
    """Delete one version of a registered model."""
    cloud.change("sagemaker", "delete_model_package", f"Delete {arn.partition(':model-package/')[2]}", ModelPackageName=arn)


def delete_group(cloud: Cloud, thing: Thing) -> None:
    """Delete a model package group, which must be empty."""
    cloud.change(
        "sagemaker",
        "delete_model_package_group",
        f"Delete model package group {thing.name}",
        ModelPackageGroupName=thing.name,
    )


def delete_tuning(cloud: Cloud, thing: Thing) -> None:
    """Delete the record of a tuning job that has ended."""
    cloud.change(
        "sagemaker",
        "delete_hyper_parameter_tuning_job",
        f"Delete the record of {thing.name}",
        HyperParameterTuningJobName=thing.name,
    )


def delete_training(cloud: Cloud, thing: Thing) -> None:
    """Delete the record of a training job that has ended."""
    cloud.change("sagemaker", "delete_training_job", f"Delete the record of {thing.name}", TrainingJobName=thing.name)


def delete_repository(cloud: Cloud, thing: Thing) -> None:
    """Delete an ECR repository with all its images."""
    cloud.change("ecr", "delete_repository", f"Delete ECR repository {thing.name}", repositoryName=thing.name, force=True)


def delete_log_group(cloud: Cloud, name: str) -> None:
    """Delete a log group."""
    cloud.change("logs", "delete_log_group", f"Delete log group {name}", logGroupName=name)


def delete_streams(cloud: Cloud, group: str, prefix: str) -> None:
    """Delete the log streams of a job."""
    streams = cloud.pages("logs", "describe_log_streams", "logStreams", logGroupName=group, logStreamNamePrefix=prefix)
    for name in [stream["logStreamName"] for stream in streams]:
        cloud.change("logs", "delete_log_stream", f"Delete log {name}", logGroupName=group, logStreamName=name)


def empty(cloud: Cloud, bucket: str, folder: str) -> None:
    """Delete all objects of a folder, old versions too.

    Raises:
        Refused: S3 kept some.
    """
    for kind in ("Versions", "DeleteMarkers"):
        found = list(cloud.pages("s3", "list_object_versions", kind, Bucket=bucket, Prefix=folder))
        for first in range(0, len(found), AT_ONCE):
            objects = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found[first : first + AT_ONCE]]
            what = f"Delete {len(objects)} objects of s3://{bucket}/{folder}"
            request = {"Objects": objects, "Quiet": True}
            kept = cloud.change("s3", "delete_objects", what, Bucket=bucket, Delete=request).get("Errors", [])
            if kept:
                raise Refused(f"S3 kept {len(kept)} of them, such as {kept[0]['Key']}: {kept[0]['Code']}.")


def delete_bucket(cloud: Cloud, bucket: str) -> None:
    """Delete a bucket, which must be empty."""
    cloud.change("s3", "delete_bucket", f"Delete bucket {bucket}", Bucket=bucket)


def _tag_log(cloud: Cloud, thing: Thing) -> None:
    """Let an endpoint's log, which AWS has made without tags, be found when the endpoint is gone."""
    name = log_group(thing.name)
    groups = cloud.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=name)
    if any(group["logGroupName"] == name for group in groups):
        arn = cloud.arn("logs", f"log-group:{name}")
        cloud.change("logs", "tag_resource", f"Tag log group {name}, so that `delete --logs` finds it", resourceArn=arn)


def _rest(cloud: Cloud, name: str, status: str) -> None:
    """Wait until an endpoint may be deleted: AWS refuses while something is in progress."""
    if cloud.account.dry_run:
        return
    if not cloud.account.wait:
        raise Failed(f"it is {status}, and AWS deletes it only when that has ended.")

    def look() -> State:
        status = _endpoint(cloud, name).status
        return State(status, done=status in (*REST, "Deleting", "Deleted"))

    wait(cloud, f"Endpoint {name}", look)


def _endpoint(cloud: Cloud, name: str) -> State:
    try:
        status = cloud.read("sagemaker", "describe_endpoint", EndpointName=name)["EndpointStatus"]
    except NotThere:
        return State("Deleted", done=True)
    return State(status)


def _end(cloud: Cloud, title: str, status: Callable[[], str]) -> None:
    """Wait until a job has ended: what it writes on its way out would come after it is deleted."""
    if cloud.account.dry_run:
        return
    if not cloud.account.wait:
        raise Failed("it is being stopped; what it has written and its record stay until it has ended.")

    def look() -> State:
        seen = status()
        return State(seen, done=seen in ENDED)

    wait(cloud, title, look)
