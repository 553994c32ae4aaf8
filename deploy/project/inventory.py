"""What a project has in its account and Region: found by its tag, whatever it is called.

AWS's index of tags is late: what was made a minute ago is missing in it, and what was deleted still stands there. So what
exists is listed, and the index says which of it is the project's; what it does not know is asked for its tags.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.cloud import TAG, Cloud
from deploy.names import prefix

STACK = "aws:cloudformation:stack-name"
"""Carried by what a CloudFormation stack has made: it goes with its stack, and never without."""
VERSION = "model-package"
"""Shown and deleted with its group, whose tags it has."""
LATE = timedelta(hours=1)
"""How long the index may be behind, generously."""
PAGE = 100
"""What SageMaker lists at once, at most; without a word it is ten."""
SHORTEST = 32
"""A tuning job's name; the others are cut later."""


@dataclass(frozen=True)
class Thing:
    """One of the project's resources."""

    kind: str
    """As its ARN says: endpoint, training-job, repository."""
    name: str
    arn: str
    status: str = ""
    """In AWS's word; empty where it has none."""
    created: datetime | None = None
    stack: str = ""
    """Of CloudFormation, where one has made it."""


@dataclass(frozen=True)
class Listing:
    """How AWS lists one kind."""

    ask: Callable[[Cloud, str], Iterable[Mapping[str, Any]]]
    """Lists those with a text in their names; where it is `exact`, the one that is called so."""
    name: str
    """Where an item has its name, its ARN and its status."""
    arn: str
    status: str
    tags: Callable[[Cloud, str], Mapping[str, str]]
    """Returns the tags of an ARN."""
    exact: bool = False


def inventory(cloud: Cloud, *kinds: str) -> list[Thing]:
    """Return what carries the project's tag and exists.

    Args:
        cloud: the account, and the project.
        kinds: of `LISTINGS`, and only these; without any, all in their order, and then what they don't know.
    """
    indexed = dict(_indexed(cloud))
    found = [thing for kind in kinds or LISTINGS for thing in _listed(cloud, kind, _start(cloud, kind), indexed)]
    for arn, tags in sorted(indexed.items()):
        kind, name = _parts(arn)
        if arn in {thing.arn for thing in found} or (kinds and kind not in kinds):
            continue
        if kind in LISTINGS:  # called otherwise than the project, or deleted a while ago
            found += [thing for thing in _listed(cloud, kind, name, indexed) if thing.arn == arn]
        elif kind != VERSION:
            found.append(Thing(kind, name, arn, stack=tags.get(STACK, "")))
    return found


def _start(cloud: Cloud, kind: str) -> str:
    """Return how the names begin that the project gives."""
    return cloud.account.name if LISTINGS[kind].exact else prefix(cloud.account.name, SHORTEST)


def _indexed(cloud: Cloud) -> Iterator[tuple[str, dict[str, str]]]:
    filters = [{"Key": TAG, "Values": [cloud.account.name]}]
    for mapping in cloud.pages("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters):
        yield _bare(mapping["ResourceARN"]), _pairs(mapping["Tags"])


def _listed(cloud: Cloud, kind: str, text: str, indexed: Mapping[str, Mapping[str, str]]) -> Iterator[Thing]:
    """Yield what is the project's of a kind, with a text in its name."""
    listing = LISTINGS[kind]
    for one in listing.ask(cloud, text):
        arn = _bare(one[listing.arn])
        tags = indexed.get(arn) or listing.tags(cloud, arn)
        if tags.get(TAG) == cloud.account.name:
            yield Thing(kind, one[listing.name], arn, one.get(listing.status, ""), one.get("CreationTime"), tags.get(STACK, ""))


def _endpoints(cloud: Cloud, text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the endpoints of a name, and all new ones: an endpoint that is overlooked goes on costing."""
    named_so = list(cloud.pages("sagemaker", "list_endpoints", "Endpoints", NameContains=text, MaxResults=PAGE))
    new = cloud.pages("sagemaker", "list_endpoints", "Endpoints", CreationTimeAfter=datetime.now(UTC) - LATE, MaxResults=PAGE)
    yield from {one["EndpointArn"]: one for one in [*named_so, *new]}.values()


def _group(cloud: Cloud, name: str) -> list[Mapping[str, Any]]:
    group = cloud.find("sagemaker", "describe_model_package_group", ModelPackageGroupName=name)
    return [] if group is None else [group]


def _repository(cloud: Cloud, name: str) -> list[Mapping[str, Any]]:
    answer = cloud.find("ecr", "describe_repositories", repositoryNames=[name.lower()])
    return [] if answer is None else list(answer["repositories"])


def _log_groups(cloud: Cloud, text: str) -> Iterable[Mapping[str, Any]]:
    """H-37: an endpoint's, of which `delete` leaves the log."""
    start = text if text.startswith("/") else f"/aws/sagemaker/Endpoints/{text}"
    return cloud.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=start)


def _sagemaker_tags(cloud: Cloud, arn: str) -> dict[str, str]:
    return _pairs(cloud.pages("sagemaker", "list_tags", "Tags", ResourceArn=arn))


def _alarm_tags(cloud: Cloud, arn: str) -> dict[str, str]:
    return _pairs(cloud.read("cloudwatch", "list_tags_for_resource", ResourceARN=arn)["Tags"])


def _repository_tags(cloud: Cloud, arn: str) -> dict[str, str]:
    return _pairs(cloud.read("ecr", "list_tags_for_resource", resourceArn=arn)["tags"])


def _log_tags(cloud: Cloud, arn: str) -> Mapping[str, str]:
    tags: Mapping[str, str] = cloud.read("logs", "list_tags_for_resource", resourceArn=arn)["tags"]
    return tags


def _sagemaker(stem: str, ask: Callable[[Cloud, str], Iterable[Mapping[str, Any]]], *, exact: bool = False) -> Listing:
    return Listing(ask, f"{stem}Name", f"{stem}Arn", f"{stem}Status", _sagemaker_tags, exact)


LISTINGS: dict[str, Listing] = {
    "endpoint": _sagemaker("Endpoint", _endpoints),
    "endpoint-config": _sagemaker(
        "EndpointConfig",
        lambda cloud, text: cloud.pages(
            "sagemaker", "list_endpoint_configs", "EndpointConfigs", NameContains=text, MaxResults=PAGE
        ),
    ),
    "model": _sagemaker(
        "Model", lambda cloud, text: cloud.pages("sagemaker", "list_models", "Models", NameContains=text, MaxResults=PAGE)
    ),
    "training-job": _sagemaker(
        "TrainingJob",
        lambda cloud, text: cloud.pages(
            "sagemaker", "list_training_jobs", "TrainingJobSummaries", NameContains=text, MaxResults=PAGE
        ),
    ),
    "hyper-parameter-tuning-job": _sagemaker(
        "HyperParameterTuningJob",
        lambda cloud, text: cloud.pages(
            "sagemaker",
            "list_hyper_parameter_tuning_jobs",
            "HyperParameterTuningJobSummaries",
            NameContains=text,
            MaxResults=PAGE,
        ),
    ),
    "transform-job": _sagemaker(
        "TransformJob",
        lambda cloud, text: cloud.pages(
            "sagemaker", "list_transform_jobs", "TransformJobSummaries", NameContains=text, MaxResults=PAGE
        ),
    ),
    "model-package-group": _sagemaker("ModelPackageGroup", _group, exact=True),
    "alarm": Listing(
        lambda cloud, text: cloud.pages("cloudwatch", "describe_alarms", "MetricAlarms", AlarmNamePrefix=text),
        "AlarmName",
        "AlarmArn",
        "StateValue",
        _alarm_tags,
    ),
    "repository": Listing(_repository, "repositoryName", "repositoryArn", "", _repository_tags, exact=True),
    "log-group": Listing(_log_groups, "logGroupName", "arn", "", _log_tags),
}
"""Every kind that the verbs make, in the order in which `status` shows them."""


def _parts(arn: str) -> tuple[str, str]:
    """Return kind and name; of what has no kind (arn:aws:s3:::BUCKET), its service."""
    rest = arn.split(":", 5)[5]
    found = re.fullmatch(r"([a-z-]+)[/:](.+)", rest)
    return (found[1], found[2]) if found else (arn.split(":")[2], rest)


def _bare(arn: str) -> str:
    """Return a log group's ARN as the index has it."""
    return arn.removesuffix(":*")


def _pairs(tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}
