"""`endpoint`: an endpoint from the image that is pushed and the newest model; an update of it can be turned back by alarms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.endpoints.alarms import guards
from deploy.endpoints.combinations import Asked, refuse
from deploy.endpoints.standing import Standing, reach, settle, standing
from deploy.endpoints.steps import Steps, deployment, steps_of
from deploy.endpoints.variants import config_for, kind_of
from deploy.errors import NotThere
from deploy.images.registry import pushed
from deploy.jobs.models import PACKAGE_ARN, make_model, newest_model
from deploy.names import checked, named
from deploy.options import takes
from deploy.prices import hourly, serverless
from deploy.settings import Account, Endpoint, Image, Network, Package, Update

PREVIOUS = "berth:previous-config"
"""On a configuration: the one that the last update to it replaced, which `rollback` goes back to."""
NEXT = "berth:next-config"
"""On a configuration: the one that it was last updated to. Where it answers nevertheless, it was come back to."""


@click.command()
@takes(Account, Image, Network, Package, Endpoint, Update)
def endpoint(account: Account, image: Image, network: Network, package: Package, wanted: Endpoint, update: Update) -> None:
    """Make an endpoint, or update it: the image that is pushed, the newest model, and what the settings say.

    An update runs beside what answers, and is turned back when an alarm goes off.
    """
    refuse(Asked(wanted, update, network, image))
    cloud = Cloud(account)
    name = checked(wanted.endpoint or account.name)
    there = standing(cloud, name)
    if there:
        there.refuse(*_shape(wanted))
        deployment(update, _steps(wanted, update, there), ())  # what can't be is refused before anything is made
    data = _data(cloud, wanted, package)
    config = _configuration(cloud, wanted, network, (_uri(cloud, image, data, wanted.shadow_model_data), data))
    config_name = config["EndpointConfigName"]
    if there is None:
        _create(cloud, name, config)
    else:
        there = settle(cloud, there, config_name)
        if there.config == config_name:
            click.echo(f"Endpoint {name} has configuration {config_name} already.")
        elif there.coming != config_name:
            _update(cloud, there, config, (wanted, update))
    if account.wait and not account.dry_run:
        reach(cloud, name, config_name)
    click.echo("Next: python -m deploy " + ("async" if wanted.kind == "async" else "invoke"))


def change(cloud: Cloud, there: Standing, config: Mapping[str, Any], policy: Mapping[str, Any]) -> None:
    """Begin to put another configuration in the place of the one that answers.

    Where the endpoint scales, its number of instances is kept, and nothing else of what it had (API:UpdateEndpointInput).

    Args:
        cloud: the account.
        there: the endpoint.
        config: as AWS describes it.
        policy: DeploymentConfig.
    """
    kept: dict[str, Any] = {}
    if there.keeps_count:
        kept = {
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DesiredWeight"}],
        }
    name = config["EndpointConfigName"]
    costs = costs_of(cloud, config, there.count if there.keeps_count else 0)
    cloud.change(
        "sagemaker",
        "update_endpoint",
        f"Update endpoint {there.name} from {there.config} to {name}",
        costs=f"{costs}; for the old and the new instances each while both run",
        EndpointName=there.name,
        EndpointConfigName=name,
        DeploymentConfig=policy,
        **kept,
    )


def costs_of(cloud: Cloud, config: Mapping[str, Any], count: int = 0) -> str:
    """Return what a configuration costs, in words; the shadow is as large as what it copies.

    Args:
        cloud: whose prices.
        config: as AWS describes it.
        count: instances, where scaling has chosen another number.
    """
    variants = [*config["ProductionVariants"], *config.get("ShadowProductionVariants", ())]
    first = variants[0]
    if "ServerlessConfig" in first:
        return serverless(cloud, first["ServerlessConfig"]["MemorySizeInMB"])
    use = "Async" if kind_of(config) == "async" else "Hosting"
    return hourly(cloud, use, first["InstanceType"], (count or first["InitialInstanceCount"]) * len(variants))


def remember(cloud: Cloud, there: Standing, config: Mapping[str, Any]) -> None:
    """Write on both configurations of an update which follows which, before it begins: so `rollback` knows its way.

    An update that is turned back, by whomever, leaves the old one with a next one: `rollback` then goes no further back.
    """
    new, said = config["EndpointConfigName"], f"follows {there.config}"
    if there.config_arn:
        _note(cloud, there.config_arn, f"Note on {there.config} that {new} {said}", {NEXT: new})
    _note(cloud, config["EndpointConfigArn"], f"Note on {new} that it {said}", {PREVIOUS: there.config, NEXT: ""})


def _note(cloud: Cloud, arn: str, what: str, tags: Mapping[str, str]) -> None:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    cloud.change("sagemaker", "add_tags", what, ResourceArn=arn, Tags=pairs)


def _shape(wanted: Endpoint) -> tuple[str, str]:
    kind = "realtime" if wanted.kind == "multi-model" else wanted.kind
    return kind, "" if kind == "serverless" else wanted.instance_type


def _data(cloud: Cloud, wanted: Endpoint, package: Package) -> str:
    """Return where the model is; what is named must be there, for an endpoint takes minutes to find out.

    Raises:
        NotThere: it is not.
    """
    for data in (wanted.model_data, wanted.shadow_model_data):
        bucket, _, key = data.removeprefix("s3://").partition("/")
        if not data.endswith(".tar.gz"):
            continue
        try:
            cloud.read("s3", "head_object", Bucket=bucket, Key=key)
        except NotThere:
            raise NotThere(f"There is no {data}. `aws s3 ls s3://{bucket}/` lists what is there.") from None
    return wanted.model_data or newest_model(cloud, package)


def _uri(cloud: Cloud, image: Image, *data: str) -> str:
    """Return the image that is pushed, with its digest; empty where model packages bring all that is needed."""
    return pushed(cloud, image) if any(each and not PACKAGE_ARN.fullmatch(each) for each in data) else ""


def _steps(wanted: Endpoint, update: Update, there: Standing) -> Steps:
    if wanted.kind == "serverless":
        return steps_of(update, 0)
    plain = bool(wanted.shadow_model_data) or wanted.instance_type.startswith("ml.inf1.")
    return steps_of(update, there.count if there.keeps_count else wanted.instance_count, plain=plain)


def _configuration(cloud: Cloud, wanted: Endpoint, network: Network, source: tuple[str, str]) -> dict[str, Any]:
    """Return the configuration as AWS describes it; it is made where it is not there, and its models are."""
    mode = "MultiModel" if wanted.kind == "multi-model" else "SingleModel"
    uri, data = source
    model, shadow = (
        make_model(cloud, network, uri, each, environment=wanted.environment, mode=mode) if each else ""
        for each in (data, wanted.shadow_model_data)
    )
    request = config_for(wanted, network, model, shadow)
    name = named(cloud.account.name, "endpoint config", request)
    made = cloud.make(
        "sagemaker",
        "create_endpoint_config",
        f"Create endpoint configuration {name}",
        lambda: cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=name),
        EndpointConfigName=name,
        **request,
    )
    # What is only said to be made is described by its request.
    arn = made.get("EndpointConfigArn") or cloud.arn("sagemaker", f"endpoint-config/{name.lower()}")
    return {**request, "EndpointConfigName": name, "EndpointConfigArn": arn}


def _create(cloud: Cloud, name: str, config: Mapping[str, Any]) -> None:
    cloud.make(
        "sagemaker",
        "create_endpoint",
        f"Create endpoint {name}",
        lambda: cloud.find("sagemaker", "describe_endpoint", EndpointName=name),
        costs=costs_of(cloud, config),
        EndpointName=name,
        EndpointConfigName=config["EndpointConfigName"],
    )


def _update(cloud: Cloud, there: Standing, config: Mapping[str, Any], how: tuple[Endpoint, Update]) -> None:
    wanted, update = how
    steps = _steps(wanted, update, there)
    alarms = guards(cloud, there.name, update)
    click.echo(f"Update by {steps}; " + (f"turned back by {', '.join(alarms)}." if alarms else "no alarm turns it back."))
    remember(cloud, there, config)
    change(cloud, there, config, deployment(update, steps, alarms))
