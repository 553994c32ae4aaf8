"""What a project has left in the stand-in: by AWS's index of tags, and by each service's own list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local_test.cloud import Cloud

TAG, STACK = "berth:project", "aws:cloudformation:stack-name"
LISTS = (
    ("sagemaker", "list_endpoints", "Endpoints", "EndpointName"),
    ("sagemaker", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
    ("sagemaker", "list_models", "Models", "ModelName"),
    ("sagemaker", "list_training_jobs", "TrainingJobSummaries", "TrainingJobName"),
    ("sagemaker", "list_model_package_groups", "ModelPackageGroupSummaryList", "ModelPackageGroupName"),
    ("ecr", "describe_repositories", "repositories", "repositoryName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("s3", "list_buckets", "Buckets", "Name"),
)
SCALING = (
    ("describe_scalable_targets", "ScalableTargets", "ResourceId"),
    ("describe_scaling_policies", "ScalingPolicies", "PolicyName"),
)
SHARED = ("/aws/sagemaker/TrainingJobs", "/aws/sagemaker/TransformJobs")
"""Log groups of all jobs of an account, which stay; a project's streams in them do not."""
KEPT = ":transform-job/"
"""AWS keeps the records of batch jobs that have ended, and has no call that deletes one."""


def remains(aws: Cloud, project: str) -> list[str]:
    """Return what is there, in words; the account is the project's alone."""
    found = [f"{key} {one[name]}" for service, call, key, name in LISTS for one in _all(aws, service, call, key)]
    for call, key, name in SCALING:
        found += [f"{key} {one[name]}" for one in _all(aws, "application-autoscaling", call, key, ServiceNamespace="sagemaker")]
    for group in _all(aws, "logs", "describe_log_groups", "logGroups"):
        name = group["logGroupName"]
        streams = _all(aws, "logs", "describe_log_streams", "logStreams", logGroupName=name)
        found += [f"log {name}/{one['logStreamName']}" for one in streams] if name in SHARED else [f"log group {name}"]
    tagged = [{"Key": TAG, "Values": [project]}]
    carrying = _all(aws, "resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=tagged)
    return found + [f"tagged: {one['ResourceARN']}" for one in carrying if not _stays(one)]


def _stays(one: Mapping[str, Any]) -> bool:
    """Say whether something carries the tag and is not for `delete`: what a stack has made goes with that."""
    arn = one["ResourceARN"]
    return KEPT in arn or ":cloudformation:" in arn or STACK in {tag["Key"] for tag in one["Tags"]}


def _all(aws: Cloud, service: str, call: str, key: str, **asked: Any) -> list[dict[str, Any]]:
    client = aws.client(service)
    if not client.can_paginate(call):
        return list(getattr(client, call)(**asked)[key])
    return [one for page in client.get_paginator(call).paginate(**asked) for one in page.get(key, ())]
