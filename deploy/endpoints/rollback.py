"""`rollback`: an endpoint back to the configuration that answered before; a second time changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from deploy.cloud import TAG, Cloud
from deploy.endpoints.alarms import guards
from deploy.endpoints.combinations import Asked, refuse
from deploy.endpoints.endpoint import NEXT, PREVIOUS, change, remember
from deploy.endpoints.standing import Standing, needed, reach, settle
from deploy.endpoints.steps import Steps, deployment, steps_of
from deploy.endpoints.variants import kind_of
from deploy.errors import NotThere, Refused
from deploy.names import checked
from deploy.options import takes
from deploy.settings import Account, Endpoint, Image, Network, Update


@click.command()
@takes(Account, Endpoint, Update)
def rollback(account: Account, wanted: Endpoint, update: Update) -> None:
    """Go back to the configuration that the last update replaced, at once and whatever alarms say.

    With --strategy it goes step by step, and alarms may turn it back. A second time changes nothing; --to-config goes anywhere.
    """
    refuse(Asked(Endpoint(), update, Network(), Image()))
    cloud = Cloud(account)
    there = needed(cloud, checked(wanted.endpoint or account.name))
    target = update.to_config or _before(cloud, there)
    if there.coming or target != there.config:
        settled = settle(cloud, there, target)
        if settled is not there:
            there, target = settled, update.to_config or _before(cloud, settled)
    if target == there.config:
        click.echo(f"Endpoint {there.name} has configuration {target} already; nothing is to be rolled back.")
    elif there.coming != target:
        _go(cloud, there, target, update)
    if account.wait and not account.dry_run:
        reach(cloud, there.name, target)
    if after := _after(cloud, there, target):
        click.echo(f"Forth again: python -m deploy rollback --to-config {after}")
    click.echo("Next: python -m deploy invoke")


def _before(cloud: Cloud, there: Standing) -> str:
    """Return the configuration to go back to: the one that answers already, where it has been come back to.

    Raises:
        NotThere: nothing is known of one before.
    """
    tags = _tags(cloud, there.config_arn)
    if tags.get(NEXT):
        return there.config
    if not tags.get(PREVIOUS):
        raise NotThere(
            f"{there.config} is the first configuration of endpoint {there.name}: nothing is known of one before. "
            "Name one with --to-config, or run `python -m deploy endpoint` with the settings it is to have."
        )
    return tags[PREVIOUS]


def _after(cloud: Cloud, there: Standing, target: str) -> str:
    """Return the configuration that the target was come back to from; empty where none is known."""
    return there.config if there.config != target else _tags(cloud, there.config_arn).get(NEXT, "")


def _go(cloud: Cloud, there: Standing, target: str, update: Update) -> None:
    described = _complete(cloud, target)
    variant = described["ProductionVariants"][0]
    there.refuse(kind_of(described), str(variant.get("InstanceType", "")))
    refuse(Asked(_shape(described), update, Network(), Image()))
    count = there.count if there.keeps_count else int(variant.get("InitialInstanceCount", 0))
    if update.strategy:
        steps, alarms = steps_of(update, count), guards(cloud, there.name, update)
    else:
        steps, alarms = Steps("all-at-once", count, 0, 1, 0), []
    click.echo(f"Roll back by {steps}." if update.strategy else "Roll back all at once; no alarm turns it back.")
    if update.to_config:  # it may be a way forth, which a plain `rollback` comes back from
        remember(cloud, there, described)
    change(cloud, there, described, deployment(update, steps, alarms))


def _complete(cloud: Cloud, target: str) -> dict[str, Any]:
    """Return a configuration; raise NotThere where it, or a model of it, has been deleted."""
    described = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=target)
    if described is None:
        raise NotThere(f"Configuration {target} has been deleted. Run `python -m deploy endpoint` with the settings it had.")
    if _tags(cloud, described["EndpointConfigArn"]).get(TAG) != cloud.account.name:
        raise Refused(f"Configuration {target} is not of project {cloud.account.name}: it lacks the tag {TAG}.")
    for variant in (*described["ProductionVariants"], *described.get("ShadowProductionVariants", ())):
        if cloud.find("sagemaker", "describe_model", ModelName=variant["ModelName"]) is None:
            raise NotThere(
                f"Model {variant['ModelName']} of configuration {target} has been deleted. Run `python -m deploy endpoint` "
                "with the settings it had."
            )
    return described


def _tags(cloud: Cloud, arn: str) -> dict[str, str]:
    found = cloud.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn) if arn else ()
    return {str(tag["Key"]): str(tag["Value"]) for tag in found}


def _shape(described: Mapping[str, Any]) -> Endpoint:
    """Return of a configuration what the rules about updates ask for."""
    variant = described["ProductionVariants"][0]
    return Endpoint(
        kind="realtime" if "InstanceType" in variant else "serverless",
        instance_type=str(variant.get("InstanceType", "")),
        shadow_model_data="s3://of/shadow.tar.gz" if described.get("ShadowProductionVariants") else "",
    )
