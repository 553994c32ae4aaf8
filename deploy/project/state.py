"""What the project's resources do at the moment, as JSON types: what `status` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from deploy.cloud import Cloud
from deploy.endpoints.alarms import states_of
from deploy.prices import Price, instance_price, serverless_price
from deploy.project.inventory import Thing

Facts = dict[str, Any]
NEWEST = 5
"""Jobs of a kind, versions of a group, images of a repository, activities of a variant: so many are shown."""
RUNNING = ("InProgress", "Stopping")
JOBS = {"training-job": "training", "hyper-parameter-tuning-job": "tuning", "transform-job": "batch"}


def endpoint_state(cloud: Cloud, thing: Thing) -> Facts:
    """Return what an endpoint runs, what that costs, how it scales, and what an update of it is doing."""
    seen = cloud.read("sagemaker", "describe_endpoint", EndpointName=thing.name)
    config = cloud.find("sagemaker", "describe_endpoint_config", EndpointConfigName=seen["EndpointConfigName"]) or {}
    asked = {one["VariantName"]: one for key in VARIANTS for one in config.get(key, [])}
    use = "Async" if config.get("AsyncInferenceConfig") else "Hosting"
    rollback = (seen.get("LastDeploymentConfig") or {}).get("AutoRollbackConfiguration", {})
    return {
        "name": thing.name,
        "status": seen["EndpointStatus"],
        "reason": seen.get("FailureReason", ""),
        "config": seen["EndpointConfigName"],
        "is_async": "AsyncInferenceConfig" in config,
        "changed": said(seen.get("LastModifiedTime")),
        "variants": [
            _variant(
                cloud, f"endpoint/{thing.name}/variant/{one['VariantName']}", use, {**asked.get(one["VariantName"], {}), **one}
            )
            | {"shadow": key == VARIANTS[1]}
            for key in VARIANTS
            for one in seen.get(key, [])
        ],
        "update": _update(seen.get("PendingDeploymentSummary")),
        "alarms": states_of(cloud, [alarm["AlarmName"] for alarm in rollback.get("Alarms", [])]),
    }


VARIANTS = ("ProductionVariants", "ShadowProductionVariants")


def _variant(cloud: Cloud, resource: str, use: str, seen: Mapping[str, Any]) -> Facts:
    """Return what is known of a variant; `seen` is what was asked for, and over it what is."""
    serverless = seen.get("CurrentServerlessConfig") or seen.get("ServerlessConfig")
    count = seen.get("CurrentInstanceCount", seen.get("InitialInstanceCount", 0))
    facts = {
        "name": seen["VariantName"],
        "images": [image.get("ResolvedImage") or image["SpecifiedImage"] for image in seen.get("DeployedImages", [])],
        "weight": seen.get("CurrentWeight"),
        "doing": ", ".join(one["Status"] for one in seen.get("VariantStatus", [])),
    }
    if serverless:
        price = serverless_price(cloud, serverless["MemorySizeInMB"])
        memory, most = serverless["MemorySizeInMB"], serverless["MaxConcurrency"]
        return (
            facts | {"memory_mb": memory, "concurrency": most, "costs": f"{price.sum()} a second of answering"} | source(price)
        )
    price = (
        instance_price(cloud, use, seen["InstanceType"]) if "InstanceType" in seen else Price(why="its configuration is gone")
    )
    return (
        facts
        | {"instance_type": seen.get("InstanceType", "?"), "count": count, "wanted": seen.get("DesiredInstanceCount", count)}
        | hourly_cost(price, count)
        | _scaling(cloud, resource)
    )


def _scaling(cloud: Cloud, resource: str) -> Facts:
    asked = {"ServiceNamespace": "sagemaker"}
    targets = list(
        cloud.pages("application-autoscaling", "describe_scalable_targets", "ScalableTargets", **asked, ResourceIds=[resource])
    )
    if not targets:
        return {"scales": None, "activities": []}
    activities = cloud.pages(
        "application-autoscaling", "describe_scaling_activities", "ScalingActivities", **asked, ResourceId=resource
    )
    return {
        "scales": [targets[0]["MinCapacity"], targets[0]["MaxCapacity"]],
        "activities": [
            {"at": said(one["StartTime"]), "status": one["StatusCode"], "what": one["Description"], "why": one.get("Cause", "")}
            for one in islice(activities, NEWEST)
        ],
    }


def _update(pending: Mapping[str, Any] | None) -> Facts | None:
    if not pending:
        return None
    variants = [one for key in VARIANTS for one in pending.get(key, [])]
    return {
        "config": pending["EndpointConfigName"],
        "since": said(pending.get("StartTime")),
        "variants": [
            {
                "name": one["VariantName"],
                "doing": ", ".join(status["Status"] for status in one.get("VariantStatus", [])),
                "count": one.get("CurrentInstanceCount"),
                "wanted": one.get("DesiredInstanceCount"),
            }
            for one in variants
        ],
    }


def job_states(cloud: Cloud, things: Iterable[Thing]) -> list[Facts]:
    """Return the newest jobs of each kind, and all that run, with what these cost."""
    facts = []
    for kind, called in JOBS.items():
        of_kind = sorted((one for one in things if one.kind == kind), key=_moment, reverse=True)
        for position, one in enumerate(of_kind):
            if position < NEWEST or one.status in RUNNING:
                cost = job_cost(cloud, one) if one.status in RUNNING else {}
                facts.append({"kind": called, "name": one.name, "status": one.status, "begun": said(one.created), **cost})
    return facts


def job_cost(cloud: Cloud, job: Thing) -> Facts:
    """Return what a job that runs costs an hour; a tuning job by itself costs nothing, its training jobs do."""
    if job.kind == "training-job":
        seen = cloud.read("sagemaker", "describe_training_job", TrainingJobName=job.name)["ResourceConfig"]
        use = "Training"
    elif job.kind == "transform-job":
        seen = cloud.read("sagemaker", "describe_transform_job", TransformJobName=job.name)["TransformResources"]
        use = "Transform"
    else:
        return {}
    return hourly_cost(instance_price(cloud, use, seen["InstanceType"]), seen["InstanceCount"])


def package_states(cloud: Cloud, group: Thing) -> list[Facts]:
    """Return the newest versions of a model package group."""
    listing = cloud.pages(
        "sagemaker",
        "list_model_packages",
        "ModelPackageSummaryList",
        ModelPackageGroupName=group.name,
        SortBy="CreationTime",
        SortOrder="Descending",
    )
    return [
        {
            "group": group.name,
            "version": one.get("ModelPackageVersion"),
            "approval": one.get("ModelApprovalStatus", ""),
            "status": one["ModelPackageStatus"],
            "made": said(one["CreationTime"]),
        }
        for one in islice(listing, NEWEST)
    ]


def image_states(cloud: Cloud, repository: Thing) -> list[Facts]:
    """Return the newest images of a repository, with how many findings ECR has of which severity."""
    images = cloud.pages("ecr", "describe_images", "imageDetails", repositoryName=repository.name)
    return [
        {
            "repository": repository.name,
            "tags": one.get("imageTags", []),
            "digest": one["imageDigest"],
            "size_mb": round(one.get("imageSizeInBytes", 0) / 1e6),
            "pushed": said(one.get("imagePushedAt")),
            "findings": one.get("imageScanFindingsSummary", {}).get("findingSeverityCounts", {}),
        }
        for one in sorted(images, key=lambda one: str(one.get("imagePushedAt")), reverse=True)[:NEWEST]
    ]


def hourly_cost(price: Price, count: int) -> Facts:
    """Return what so many cost an hour: in words, as a number, and where it comes from."""
    amount = None if price.amount is None else float(price.amount * count)
    return {"costs": f"{price.sum(count)} an hour" if amount is not None else price.sum(), "hourly": amount} | source(price)


def source(price: Price) -> Facts:
    """Return currency and source of a price."""
    return {"currency": price.currency, "price": price.source}


def said(moment: datetime | None) -> str:
    """Return a moment in UTC, to the minute."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z" if moment else ""


def _moment(thing: Thing) -> datetime:
    return thing.created or datetime.min.replace(tzinfo=UTC)
