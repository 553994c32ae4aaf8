"""What DescribeEndpoint says of variants: from the configuration, with the images that run and the digests they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from local_test.cloud import models, registry
from local_test.cloud.wire import Refused
from local_test.cloud.world import Record, World, now

KINDS = ("ProductionVariants", "ShadowProductionVariants")
_NOT_SERVERLESS = {"AsyncInferenceConfig", "DataCaptureConfig", "ShadowProductionVariants", "VpcConfig"}
_SAME = ("ManagedInstanceScaling", "RoutingConfig")


def asked(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every variant of a configuration, the shadows too."""
    for kind in KINDS:
        yield from config.get(kind, ())


def check(config: Mapping[str, Any]) -> None:
    """Refuse a variant of neither instances nor serverless, and what serverless can't be combined with (H-33)."""
    for variant in asked(config):
        has_instances = "InstancePools" in variant or {"InstanceType", "InitialInstanceCount"} <= variant.keys()
        if has_instances == ("ServerlessConfig" in variant):
            said = "needs either InstanceType and InitialInstanceCount or ServerlessConfig."
            raise Refused("ValidationException", f"Variant {variant['VariantName']} {said}")
        others = sorted(config.keys() & _NOT_SERVERLESS)
        if "ServerlessConfig" in variant and (others or len(list(asked(config))) > 1):
            said = f"can't be combined with {', '.join(others) or 'other variants'}."
            raise Refused("ValidationException", f"Serverless variant {variant['VariantName']} {said}")


def running(world: World, record: Record, kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an endpoint in service says of its configuration.

    Args:
        world: for models and images.
        record: the endpoint.
        kept: what variants of the same names had before, where they are to keep it.
    """
    config = record.facts["_config"]
    facts: dict[str, Any] = {
        kind: [_summary(world, record, variant, kept.get(variant["VariantName"], {})) for variant in config[kind]]
        for kind in KINDS
        if kind in config
    }
    facts |= {name: config.get(name) for name in ("AsyncInferenceConfig", "ExplainerConfig")}
    facts["DataCaptureConfig"] = _capture(config.get("DataCaptureConfig"))
    return facts


def pending(world: World, record: Record, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what PendingDeploymentSummary says of the variants to come."""
    return {
        kind: [
            {**_summary(world, record, variant, {}), **_kind_of_instance(variant), "CurrentInstanceCount": 0}
            for variant in config[kind]
        ]
        for kind in KINDS
        if kind in config
    }


def desired(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that a DesiredWeightAndCapacity sets."""
    names = {"DesiredWeight": "DesiredWeight", "DesiredInstanceCount": "DesiredInstanceCount"}
    return {member: wanted[name] for name, member in names.items() if name in wanted}


def reached(variant: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a variant that has reached what was desired."""
    return {
        name.replace("Desired", "Current"): variant[name]
        for name in ("DesiredWeight", "DesiredInstanceCount", "DesiredServerlessConfig")
        if name in variant
    }


def _summary(world: World, record: Record, variant: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "VariantName": variant["VariantName"],
        "DeployedImages": _images(world, record.region, variant.get("ModelName", "")),
        "DesiredWeight": kept.get("DesiredWeight", variant.get("InitialVariantWeight", 1.0)),
        **{name: variant[name] for name in _SAME if name in variant},
    }
    if "ServerlessConfig" in variant:
        summary |= {"DesiredServerlessConfig": variant["ServerlessConfig"]}
    else:
        summary |= {"DesiredInstanceCount": kept.get("DesiredInstanceCount", variant.get("InitialInstanceCount", 1))}
    return {**summary, **reached(summary)}


def _images(world: World, region: str, name: str) -> list[dict[str, Any]]:
    model = world.find(region, "Model", name)
    return [
        {"SpecifiedImage": image, "ResolvedImage": registry.resolved(world, image), "ResolutionTime": now()}
        for image in (models.images(world, region, model) if model else ())
    ]


def _kind_of_instance(variant: Mapping[str, Any]) -> dict[str, Any]:
    return {"InstanceType": variant["InstanceType"]} if "InstanceType" in variant else {}


def _capture(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    is_on = config.get("EnableCapture", False)
    return {
        "EnableCapture": is_on,
        "CaptureStatus": "Started" if is_on else "Stopped",
        "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
        "DestinationS3Uri": config["DestinationS3Uri"],
        "KmsKeyId": config.get("KmsKeyId", ""),
    }
