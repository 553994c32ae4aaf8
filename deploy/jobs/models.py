"""Models: which one is the newest, and SageMaker's model over one, with the image that serves it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

from deploy.cloud import Cloud, Response
from deploy.errors import NotThere
from deploy.names import is_named, named, prefix
from deploy.network import role_of, vpc_of
from deploy.settings import Network, Package, Pairs

PACKAGE_ARN = re.compile(r"arn:[^:]+:sagemaker:[^:]+:\d{12}:model-package/.+")


def make_model(
    cloud: Cloud, network: Network, image: str, data: str, *, environment: Pairs | None = None, mode: str = "SingleModel"
) -> str:
    """Make SageMaker's model where it is not there yet, and return its name, which follows from all that it is made of.

    Args:
        cloud: the account.
        network: role, subnets, isolation.
        image: with its digest.
        data: s3:// of model.tar.gz (MultiModel: a prefix), or the ARN of a model package, which brings its own image.
        environment: settings of `serve`.
        mode: SingleModel or MultiModel (H-23).
    """
    if PACKAGE_ARN.fullmatch(data):
        container: dict[str, Any] = {"ModelPackageName": data}
    else:
        container = {"Image": image, "ModelDataUrl": data, "Mode": mode}
    request = {
        "PrimaryContainer": container | ({"Environment": dict(environment)} if environment else {}),
        "ExecutionRoleArn": role_of(cloud, network, "hosting"),
        "EnableNetworkIsolation": network.isolation,
        **vpc_of(network),
    }
    name = named(cloud.account.name, "model", request)
    cloud.make(
        "sagemaker",
        "create_model",
        f"Create model {name}",
        lambda: cloud.find("sagemaker", "describe_model", ModelName=name),
        ModelName=name,
        **request,
    )
    return name


def newest_model(cloud: Cloud, package: Package) -> str:
    """Return s3:// of the model to serve: the newest approved version's, else that of the newest training job of the project.

    A model that was rejected is passed over.

    Raises:
        NotThere: neither is there.
    """
    group = package.group or cloud.account.name
    for arn in versions(cloud, group, "Approved"):
        click.echo(f"Model: version {version_of(arn)} of {group}, approved.")
        return data_of(cloud, arn)
    rejected = {data_of(cloud, arn) for arn in versions(cloud, group, "Rejected")}
    for name in training_jobs(cloud, "Completed"):
        job = cloud.read("sagemaker", "describe_training_job", TrainingJobName=name)
        data = str(job["ModelArtifacts"]["S3ModelArtifacts"])
        if data not in rejected:
            click.echo(f"Model: that of training job {name}; no version of {group} is approved.")
            return data
    raise NotThere(
        f"{group} has no approved version, and {cloud.account.name} no completed training job (of a model that was not "
        "rejected). Run `python -m deploy train` first, or name a model: s3://BUCKET/.../model.tar.gz with --model-data "
        "(of `batch`: --batch-data)."
    )


def versions(cloud: Cloud, group: str, approval: str = "") -> Iterator[str]:
    """Yield the ARNs of a package group's versions, the newest first; none where the group is not there."""
    for summary in summaries(cloud, group, **({"ModelApprovalStatus": approval} if approval else {})):
        yield str(summary["ModelPackageArn"])


def summaries(cloud: Cloud, group: str, **asked: str) -> Iterator[Response]:
    """Yield what the listing tells of a package group's versions, the newest first; nothing where the group is not there."""
    try:
        yield from cloud.pages(
            "sagemaker",
            "list_model_packages",
            "ModelPackageSummaryList",
            ModelPackageGroupName=group,
            SortBy="CreationTime",
            SortOrder="Descending",
            **asked,
        )
    except NotThere:
        return


def version_of(arn: str) -> int:
    """Return the number at the end of a versioned package's ARN."""
    return int(arn.rpartition("/")[2])


def data_of(cloud: Cloud, arn: str) -> str:
    """Return s3:// of a package's model."""
    package = cloud.read("sagemaker", "describe_model_package", ModelPackageName=arn)
    return str(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"])


def training_jobs(cloud: Cloud, status: str) -> Iterator[str]:
    """Yield the names of the project's training jobs of a status, the newest first; those of tuning jobs are not among them."""
    for summary in cloud.pages(
        "sagemaker",
        "list_training_jobs",
        "TrainingJobSummaries",
        NameContains=prefix(cloud.account.name),
        StatusEquals=status,
        SortBy="CreationTime",
        SortOrder="Descending",
    ):
        if is_named(cloud.account.name, str(summary["TrainingJobName"])):
            yield str(summary["TrainingJobName"])
