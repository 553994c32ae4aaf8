"""`fresh`: come back to what was pinned and pushed; a vulnerability that became known since is told to people, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from deploy.cloud import TAG, Cloud
from deploy.errors import BadSettings, DeployError, Failed, Rejected, Unscanned
from deploy.options import takes
from deploy.programs import ROOT
from deploy.settings import Account, Fresh, Gate
from deploy.supply.ecr import region_of, scan_of, stored
from deploy.supply.findings import GATES, Finding, united
from deploy.supply.news import Memory, news_of
from deploy.supply.relock import as_markdown, changes, held_back, relocked, versions
from deploy.supply.scan import allowance_of


@click.command()
@takes(Account, Gate, Fresh)
@click.option("--relock/--no-relock", default=True, show_default=True, help="Choose the lock's versions anew.")
@click.option("--rescan/--no-rescan", default=True, show_default=True, help="Scan the images that endpoints run.")
def fresh(account: Account, gate: Gate, settings: Fresh, *, relock: bool, rescan: bool) -> None:
    """Propose a newer requirements.lock, and announce what has become known of the images that endpoints run.

    Run it on a schedule. Each new finding at or above --fail-on that no entry of --allow lets pass is sent to --topic, once for
    an endpoint. Exit status: 0 all is done, 1 there is news and no topic, 2 something could not be scanned.
    """
    if gate.fail_on not in GATES:
        raise BadSettings(f"--fail-on is {gate.fail_on!r}; one of {', '.join(GATES)} was expected.")
    trouble: list[DeployError] = []
    for work in [announce] * rescan + [propose] * relock:
        try:
            work(account, gate, settings)
        except DeployError as error:  # the other half is done all the same
            trouble.append(error)
            click.echo(f"NOT DONE: {error.message}")
    if trouble:
        raise trouble[0]


def announce(account: Account, gate: Gate, settings: Fresh) -> None:
    """Scan what endpoints run, and tell the topic what is not known yet.

    Raises:
        Rejected: there is news, and no topic to tell.
        Unscanned: an image could not be scanned; all others were.
    """
    cloud = Cloud(account)
    running = images_of_endpoints(cloud)
    endpoints = {name for names in running.values() for name in names}
    click.echo(f"{len(endpoints)} endpoints of {account.name} run {len(running)} images ({cloud.place})")
    home = f"s3://sagemaker-{cloud.region}-{cloud.account_id}/{account.name}/told.json"
    memory, allowance = Memory.read(cloud, settings.memory or home), allowance_of(gate.allow)
    found, unscanned = rescanned(cloud, running)
    news = news_of(
        found, running, memory.told, lambda finding: finding.reaches(gate.fail_on) and not allowance.entry_of(finding)
    )
    click.echo(f"{len(news)} new findings from {gate.fail_on} on")
    for one in news:
        click.echo(f"  {one.subject}: {', '.join(one.endpoints)}")
        if settings.topic:
            request = {"TopicArn": settings.topic, "Subject": one.subject, "Message": one.text(cloud.place)}
            cloud.change("sns", "publish", f"Announce {one.key}", **request)
            memory.add(one)
    memory.keep(endpoints)
    if unscanned:
        raise Unscanned(f"{len(unscanned)} of {len(running)} images could not be scanned. {'; '.join(unscanned)}")
    if news and not settings.topic:
        raise Rejected("There are new findings, and nobody was told: name a topic, --topic ARN.")


def propose(_account: Account, _gate: Gate, settings: Fresh) -> None:
    """Write the lock as it would be chosen now, and what that changes as the body of a pull request."""
    project, old = (ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text()
    new = relocked(ROOT)
    within, beyond = changes(versions(old), versions(new)), []
    try:
        beyond = held_back(project, versions(new), versions(relocked(ROOT, relaxed=True)))
    except Failed as error:  # what is newest need not fit together; the proposal stands without it
        click.echo(error.message)
    for name, text in ((settings.new_lock, new), (settings.body, as_markdown(within, beyond))):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    click.echo(
        f"requirements.lock: {len(within)} changes, in {settings.new_lock}; {len(beyond)} pins are behind ({settings.body})"
    )
    if within:
        click.echo(f"Next: mv {settings.new_lock} requirements.lock && make test image")


def images_of_endpoints(cloud: Cloud) -> dict[str, list[str]]:
    """Return the images that the project's endpoints run, each with the names of its endpoints; those without any under ``."""
    found: dict[str, list[str]] = {}
    tagged = cloud.pages(
        "resourcegroupstaggingapi",
        "get_resources",
        "ResourceTagMappingList",
        TagFilters=[{"Key": TAG, "Values": [cloud.account.name]}],
        ResourceTypeFilters=["sagemaker:endpoint"],
    )
    for name in sorted(one["ResourceARN"].rpartition("/")[2] for one in tagged):
        if endpoint := cloud.find("sagemaker", "describe_endpoint", EndpointName=name):
            for image in sorted(set(_images_of(cloud, endpoint))) or [""]:
                found.setdefault(image, []).append(name)
    return found


def _images_of(cloud: Cloud, endpoint: Mapping[str, Any]) -> Iterator[str]:
    """Yield the images behind an endpoint: what SageMaker says that it pulled, else what its models name."""
    variants = [*endpoint.get("ProductionVariants", ()), *endpoint.get("ShadowProductionVariants", ())]
    pulled = [
        image["ResolvedImage"]
        for variant in variants
        for image in variant.get("DeployedImages", ())
        if "ResolvedImage" in image
    ]
    if pulled:
        yield from pulled
        return
    config = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=endpoint["EndpointConfigName"]) or {}
    for variant in [*config.get("ProductionVariants", ()), *config.get("ShadowProductionVariants", ())]:
        model = cloud.find("sagemaker", "describe_model", ModelName=variant["ModelName"]) or {}
        containers = [*model.get("Containers", ()), *([model["PrimaryContainer"]] if "PrimaryContainer" in model else [])]
        yield from (container["Image"] for container in containers if "Image" in container)


def rescanned(cloud: Cloud, images: Mapping[str, list[str]]) -> tuple[dict[str, list[Finding]], list[str]]:
    """Return what ECR finds in each image today, and why it can't say for the others."""
    found: dict[str, list[Finding]] = {}
    unscanned = []
    for image in images:
        if region_of(image) != cloud.region:
            what = f"{image} is" if image else f"What {', '.join(images[image])} runs is"
            unscanned.append(f"{what} not in ECR of {cloud.region}")
            continue
        try:
            scan = scan_of(cloud, stored(cloud, image), again=True)
        except DeployError as error:
            unscanned.append(f"{image}: {error.message}")
            continue
        found[image] = united(scan.findings)
        if scan.error:
            unscanned.append(f"{image}: {scan.error}")
    return found, unscanned
