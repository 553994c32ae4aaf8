"""What stands behind an endpoint, as CreateEndpointConfig takes it; pure: settings in, a request out.

Role, subnets and isolation are the model's (deploy/jobs/models.py): an endpoint configuration takes its own only where its
variants name no model (hashicorp/terraform-provider-aws#48738, #48884).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.settings import Endpoint, Network

VARIANT = "AllTraffic"
"""The same in every configuration: an update step by step and scaling both go by it (DOC:deployment-guardrails-exclusions)."""
SHADOW = "Shadow"
CSV = ("text/csv",)
JSON = ("application/json", "application/jsonlines")
"""H-38: what `serve` answers with; whatever else is captured is in base64."""
Config = dict[str, Any]


def config_for(endpoint: Endpoint, network: Network, model: str, shadow: str = "") -> Config:
    """Return the request for an endpoint configuration, without its name.

    Args:
        endpoint: kind, instances, capture.
        network: the keys.
        model: name of SageMaker's model.
        shadow: name of the model that gets copies; empty for none.
    """
    config: Config = {"ProductionVariants": [_variant(endpoint, VARIANT, model, 1.0)]}
    if shadow:
        # The share that is copied is the shadow's weight by the production variant's (DOC:model-shadow-deployment).
        config["ShadowProductionVariants"] = [_variant(endpoint, SHADOW, shadow, endpoint.shadow_percent / 100)]
    if endpoint.kind == "async":
        config["AsyncInferenceConfig"] = _asynchronous(endpoint, network)
    if endpoint.capture_percent:
        config["DataCaptureConfig"] = _capture(endpoint, network)
    if network.volume_key:
        config["KmsKeyId"] = network.volume_key
    return config


def kind_of(config: Mapping[str, Any]) -> str:
    """Return serverless, async or realtime; a multi-model endpoint is a realtime one, whose model has many."""
    if any("ServerlessConfig" in variant for variant in config["ProductionVariants"]):
        return "serverless"
    return "async" if config.get("AsyncInferenceConfig") else "realtime"


def _variant(endpoint: Endpoint, name: str, model: str, weight: float) -> Config:
    variant: Config = {"VariantName": name, "ModelName": model, "InitialVariantWeight": weight}
    if endpoint.kind == "serverless":
        return {**variant, "ServerlessConfig": {"MemorySizeInMB": endpoint.memory_mb, "MaxConcurrency": endpoint.concurrency}}
    variant |= {
        "InstanceType": endpoint.instance_type,
        "InitialInstanceCount": endpoint.instance_count,
        "ModelDataDownloadTimeoutInSeconds": endpoint.download_s,
        "ContainerStartupHealthCheckTimeoutInSeconds": endpoint.startup_s,
    }
    if endpoint.kind == "realtime":
        # The others have a queue, or go to where the model is loaded.
        variant["RoutingConfig"] = {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}
    return variant


def _asynchronous(endpoint: Endpoint, network: Network) -> Config:
    output: Config = {
        "S3OutputPath": endpoint.async_output,
        "S3FailurePath": endpoint.async_failure or endpoint.async_output.rstrip("/") + "/failures",
    }
    topics = {"SuccessTopic": endpoint.success_topic, "ErrorTopic": endpoint.error_topic}
    if any(topics.values()):
        output["NotificationConfig"] = {name: topic for name, topic in topics.items() if topic}
    if network.output_key:
        output["KmsKeyId"] = network.output_key
    return {"OutputConfig": output, "ClientConfig": {"MaxConcurrentInvocationsPerInstance": endpoint.concurrency}}


def _capture(endpoint: Endpoint, network: Network) -> Config:
    key = endpoint.capture_key or network.output_key
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": endpoint.capture_percent,
        "DestinationS3Uri": endpoint.capture_output,
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"CsvContentTypes": list(CSV), "JsonContentTypes": list(JSON)},
        **({"KmsKeyId": key} if key else {}),
    }
