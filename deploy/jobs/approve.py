"""`approve`: a version of the model registry is let through to endpoints, or rejected."""

from __future__ import annotations

import click

from deploy.cloud import Cloud
from deploy.errors import NotThere
from deploy.jobs.models import summaries, version_of
from deploy.options import takes
from deploy.settings import Account, Package


@click.command()
@takes(Account, Package)
@click.argument("version", default="newest")
@click.option("--reject", is_flag=True, help="Reject it instead: no endpoint gets it from here.")
@click.option("--because", default="", help="Why, for whoever reads the registry.")
def approve(account: Account, package: Package, *, version: str, reject: bool, because: str) -> None:
    """Approve VERSION of the model registry: a number, or `newest`."""
    cloud = Cloud(account)
    arn = _named(cloud, package.group or account.name, version)
    _describe(cloud, arn)
    status = "Rejected" if reject else "Approved"
    decide(cloud, arn, status, because or f"{status} by `python -m deploy approve`.")
    click.echo("Next: python -m deploy " + ("train" if reject else "endpoint"))


def decide(cloud: Cloud, arn: str, status: str, because: str) -> None:
    """Set a version's approval where it is another.

    Args:
        cloud: the account.
        arn: the version's.
        status: Approved or Rejected.
        because: why, at most 1,024 characters.
    """
    package = cloud.read("sagemaker", "describe_model_package", ModelPackageName=arn)
    if package.get("ModelApprovalStatus") == status:
        click.echo(f"Version {version_of(arn)} is {status} already.")
        return
    cloud.change(
        "sagemaker",
        "update_model_package",
        f"Set version {version_of(arn)} from {package.get('ModelApprovalStatus')} to {status}",
        ModelPackageArn=arn,
        ModelApprovalStatus=status,
        ApprovalDescription=because[:1024],
    )


def _named(cloud: Cloud, group: str, version: str) -> str:
    there = [str(one["ModelPackageArn"]) for one in summaries(cloud, group)]
    if not there:
        raise NotThere(f"{group} has no version yet. `python -m deploy train` registers one.")
    if version == "newest":
        return there[0]
    found = next((arn for arn in there if str(version_of(arn)) == version), "")
    if not found:
        known = ", ".join(str(version_of(arn)) for arn in there[:10])
        raise NotThere(f"{group} has no version {version!r}. There are {known}, the newest first; or say `newest`.")
    return found


def _describe(cloud: Cloud, arn: str) -> None:
    package = cloud.read("sagemaker", "describe_model_package", ModelPackageName=arn)
    container = package["InferenceSpecification"]["Containers"][0]
    click.echo(f"{arn}: {package.get('ModelPackageDescription', '')}")
    click.echo(f"  made {package['CreationTime']:%Y-%m-%d %H:%M}, now {package.get('ModelApprovalStatus', 'undecided')}")
    click.echo(f"  model: {container.get('ModelDataUrl', '')}\n  image: {container.get('Image', '')}")
    for name, value in sorted(package.get("CustomerMetadataProperties", {}).items()):
        click.echo(f"  {name}: {value}")
