"""All that there is in the cloud of the tests, so that two of its states can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from deploy.cloud import TAG

if TYPE_CHECKING:
    from local_test.cloud import Cloud

Key = tuple[str, str]
LISTS = {
    "Model": ("list_models", "Models"),
    "EndpointConfig": ("list_endpoint_configs", "EndpointConfigs"),
    "Endpoint": ("list_endpoints", "Endpoints"),
    "TrainingJob": ("list_training_jobs", "TrainingJobSummaries"),
    "TransformJob": ("list_transform_jobs", "TransformJobSummaries"),
    "HyperParameterTuningJob": ("list_hyper_parameter_tuning_jobs", "HyperParameterTuningJobSummaries"),
    "ModelPackageGroup": ("list_model_package_groups", "ModelPackageGroupSummaryList"),
}
ANSWERS = "answers"
"""Where asynchronous requests are answered, each under a name that AWS chooses; a request that may be lost is made again."""
DESCRIBED = ("Model", "EndpointConfig", "Endpoint")


@dataclass(frozen=True)
class Snapshot:
    """What there is, by kind and name, without what differs from run to run; and the tags of what can have some."""

    things: Mapping[Key, Any]
    tags: Mapping[Key, Mapping[str, str]]

    def unlike(self, other: Snapshot) -> dict[Key, tuple[Any, Any]]:
        """Return what is not the same: here, and there; `nothing` where it is not at all."""
        keys = sorted({*self.things, *other.things})
        pairs = {key: (self.things.get(key, "nothing"), other.things.get(key, "nothing")) for key in keys}
        return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}

    def untagged(self) -> list[Key]:
        """Return what lacks the project's tag; a new bucket has it last, and is empty before."""
        filled = {name.partition("/")[0] for kind, name in self.things if kind == "object"}
        return [key for key, tags in self.tags.items() if TAG not in tags and (key[0] != "bucket" or key[1] in filled)]


def snapshot(aws: Cloud) -> Snapshot:
    """Look at everything, by calls that are neither counted nor harmed by faults."""
    seen = [*_sagemaker(aws), *_packages(aws), *_s3(aws), *_ecr(aws), *_alarms(aws), *_scaling(aws), *_logs(aws)]
    return Snapshot({key: facts for key, facts, _ in seen}, {key: tags for key, _, tags in seen if tags is not None})


Seen = Iterator[tuple[Key, Any, dict[str, str] | None]]


def _sagemaker(aws: Cloud) -> Seen:
    service = client(aws, "sagemaker")
    for stem, (operation, key) in LISTS.items():
        for one in getattr(service, operation)(MaxResults=100)[key]:
            name = one[f"{stem}Name"]
            if stem in DESCRIBED:
                try:
                    one = getattr(service, f"describe_{_snake(stem)}")(**{f"{stem}Name": name})
                except service.exceptions.ClientError:  # it was being deleted
                    continue
            yield (stem, name), _plain(one), _pairs(service.list_tags(ResourceArn=one[f"{stem}Arn"])["Tags"])


def _packages(aws: Cloud) -> Seen:
    service = client(aws, "sagemaker")
    for group in service.list_model_package_groups(MaxResults=100)["ModelPackageGroupSummaryList"]:
        for one in service.list_model_packages(ModelPackageGroupName=group["ModelPackageGroupName"])["ModelPackageSummaryList"]:
            yield ("ModelPackage", one["ModelPackageArn"]), _plain(one), None
    yield from _sold(service)


def _sold(service: Any) -> Seen:
    """What is sold has its product's tag, and not the project's."""
    for one in service.list_model_packages(ModelPackageType="Unversioned")["ModelPackageSummaryList"]:
        yield ("ModelPackage", one["ModelPackageName"]), _plain(one), None
    for one in service.list_algorithms()["AlgorithmSummaryList"]:
        yield ("Algorithm", one["AlgorithmName"]), _plain(one), None


def _s3(aws: Cloud) -> Seen:
    service = client(aws, "s3")
    for bucket in service.list_buckets()["Buckets"]:
        name = bucket["Name"]
        try:
            tags = _pairs(service.get_bucket_tagging(Bucket=name)["TagSet"])
        except service.exceptions.ClientError:
            tags = {}
        yield ("bucket", name), None, tags
        for one in service.list_objects_v2(Bucket=name).get("Contents", []):
            if f"/{ANSWERS}/" not in one["Key"]:
                yield ("object", f"{name}/{one['Key']}"), one["Size"], None


def _ecr(aws: Cloud) -> Seen:
    service = client(aws, "ecr")
    for one in service.describe_repositories()["repositories"]:
        try:
            policy = service.get_lifecycle_policy(repositoryName=one["repositoryName"])["lifecyclePolicyText"]
        except service.exceptions.ClientError:
            policy = ""
        tags = _pairs(service.list_tags_for_resource(resourceArn=one["repositoryArn"])["tags"])
        yield ("repository", one["repositoryName"]), (one["imageTagMutability"], policy), tags


def _alarms(aws: Cloud) -> Seen:
    service = client(aws, "cloudwatch")
    for one in service.describe_alarms()["MetricAlarms"]:
        facts = (one["MetricName"], one["Threshold"], one["ComparisonOperator"])
        if one["AlarmName"].startswith("TargetTracking"):  # AWS's own, with a random name
            yield ("alarm", f"of scaling: {one['MetricName']} {one['ComparisonOperator']}"), facts, None
        else:
            tags = _pairs(service.list_tags_for_resource(ResourceARN=one["AlarmArn"])["Tags"])
            yield ("alarm", one["AlarmName"]), facts, tags


def _scaling(aws: Cloud) -> Seen:
    service = client(aws, "application-autoscaling")
    for one in service.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]:
        tags = service.list_tags_for_resource(ResourceARN=one["ScalableTargetARN"])["Tags"]
        yield ("target", one["ResourceId"]), (one["MinCapacity"], one["MaxCapacity"]), tags
    for one in service.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]:
        yield ("policy", f"{one['ResourceId']} {one['PolicyName']}"), one["PolicyType"], None


def _logs(aws: Cloud) -> Seen:
    service = client(aws, "logs")
    for one in service.describe_log_groups()["logGroups"]:
        tags = service.list_tags_for_resource(resourceArn=one["arn"].removesuffix(":*"))["tags"]
        yield ("log-group", one["logGroupName"]), tags, None  # AWS makes them, without tags
        for stream in service.describe_log_streams(logGroupName=one["logGroupName"])["logStreams"]:
            yield ("log", f"{one['logGroupName']} {stream['logStreamName'].partition('/')[0]}"), None, None


@cache
def client(aws: Cloud, service: str) -> Any:
    """Return a client whose calls are neither counted nor harmed."""
    from botocore.config import Config

    from local_test.cloud.wire import INSIDE

    return aws.client(service, config=Config(user_agent_extra=INSIDE, s3={"addressing_style": "path"}))


def _plain(facts: Any) -> Any:
    """Return facts without times, and without what AWS writes about its answer."""
    if isinstance(facts, Mapping):
        left_out = ("Time", "ResponseMetadata", "SecondaryStatus")
        return {key: _plain(value) for key, value in facts.items() if not key.endswith(left_out)}
    return [_plain(one) for one in facts] if isinstance(facts, list) else facts


def _pairs(tags: list[Mapping[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def _snake(stem: str) -> str:
    return {"Model": "model", "EndpointConfig": "endpoint_config", "Endpoint": "endpoint"}[stem]
