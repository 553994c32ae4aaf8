"""What has to be there before anything is deployed: a function a question, findings for an answer, and nothing is changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deploy.cloud import Cloud, Response
from deploy.errors import NotThere
from deploy.images import repository
from deploy.images.credentials import credentials_for
from deploy.images.distribution import Registry
from deploy.images.engine import engine_of
from deploy.images.registry import ecr_name, place_in
from deploy.jobs.bucket import bucket_of
from deploy.network import role_of
from deploy.settings import Batch, Endpoint, Image, Network, Storage, Training

SAGEMAKER = "sagemaker.amazonaws.com"
FREE_BYTES = 5_000_000_000
"""An image, its layers while they are built, and a model."""
ROLES = "deploy/templates/roles.yaml makes one that may just what is needed (docs/pipeline.md)."


class Status(StrEnum):
    """How it stands."""

    PASS = "pass"  # noqa: S105  # the word, no secret
    WARN = "warn"
    """Something else may go wrong later, or it can't be told."""
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """An answer."""

    status: Status
    seen: str
    fix: str = ""


@dataclass(frozen=True)
class Asked:
    """The account, and what is going to be deployed: the sections in the order in which the verb takes them."""

    cloud: Cloud
    image: Image
    network: Network
    storage: Storage
    training: Training
    endpoint: Endpoint
    batch: Batch


def roles(asked: Asked) -> Iterator[Finding]:
    """Say whether SageMaker may run as the roles of jobs and of endpoints."""
    told: dict[str, list[str]] = {}
    for use in ("training", "hosting"):
        try:
            told.setdefault(role_of(asked.cloud, asked.network, use), []).append(use)
        except NotThere as error:
            yield Finding(Status.FAIL, f"{use}: {error.message}")
    for arn, uses in told.items():
        yield _trusted(asked.cloud, arn, " and ".join(uses))


def bucket(asked: Asked) -> Iterator[Finding]:
    """Say whether data and models can be kept."""
    name = bucket_of(asked.storage, asked.cloud)
    there = asked.cloud.find("s3", "head_bucket", Bucket=name)
    region = (there or {}).get("BucketRegion") or asked.cloud.region
    if there is None:
        yield Finding(Status.PASS, f"{name} is not there yet; train makes it")
    elif region != asked.cloud.region:
        yield Finding(
            Status.FAIL,
            f"{name} is in {region}, and {asked.cloud.region} is worked in: SageMaker reads no other Region's data",
            "Name another with --bucket, or work there: --region " + region,
        )
    else:
        yield Finding(Status.PASS, f"{name} is there")


def images(asked: Asked) -> Iterator[Finding]:
    """Say whether the registry answers, and whether its tags stay where they are."""
    if asked.image.registry:
        place = place_in(asked.cloud.account.name, asked.image, "preflight")
        Registry(place.host, lambda: credentials_for(place.host)).held(place.name, place.tag)
        yield Finding(Status.PASS, f"{place.host} answers; SageMaker itself pulls from the account's ECR (T-8)")
        return
    name = ecr_name(asked.cloud.account.name, asked.image)
    there = repository.found(asked.cloud, name)
    if there is None:
        yield Finding(Status.PASS, f"ECR has no repository {name} yet; push makes it")
    elif there.get("imageTagMutability") != "IMMUTABLE":
        fix = f"aws ecr put-image-tag-mutability --repository-name {name} --image-tag-mutability IMMUTABLE"
        yield Finding(Status.WARN, f"{there['repositoryUri']}: its tags can be moved", fix)
    else:
        yield Finding(Status.PASS, f"{there['repositoryUri']} is there")


def engine(asked: Asked) -> Iterator[Finding]:
    """Say which container engine answers, and whether an image has room in it."""
    try:
        found = engine_of(asked.image.engine)
    except NotThere as error:
        yield Finding(Status.WARN, error.message, "Only push, scan and the local tests need one; --uri names an image without.")
        return
    yield Finding(Status.PASS, f"{'Podman' if found.is_podman else 'Docker'} {found.version}, as {shutil.which(found.program)}")
    yield from _room(found.root)


def disk(asked: Asked) -> Iterator[Finding]:
    """Say whether there is room where this is run."""
    yield from _room(str(Path.cwd()))


def _room(folder: str) -> Iterator[Finding]:
    """Say how much is free in a folder; nothing of one that is not on this machine: the engine may have one of its own."""
    if not os.path.isdir(folder):  # noqa: PTH112  # a folder that may not be looked into is none either
        return
    free_bytes = shutil.disk_usage(folder).free
    told = f"{free_bytes / 1e9:.0f} GB are free in {folder}"
    if free_bytes < FREE_BYTES:
        fix = f"Make room, {FREE_BYTES / 1e9:.0f} GB at least: `docker image prune`, for instance."
        yield Finding(Status.WARN, told, fix)
    else:
        yield Finding(Status.PASS, told)


def _trusted(cloud: Cloud, arn: str, uses: str) -> Finding:
    """Say whether SageMaker may assume a role, by its trust policy."""
    name = arn.rpartition("/")[2]
    try:
        role = cloud.read("iam", "get_role", RoleName=name)["Role"]
    except NotThere:
        return Finding(Status.FAIL, f"{uses}: there is no role {arn}", ROLES)
    if _lets_in(role.get("AssumeRolePolicyDocument", {})):
        return Finding(Status.PASS, f"{uses}: {SAGEMAKER} may assume {name}")
    return Finding(
        Status.FAIL, f"{uses}: {SAGEMAKER} may not assume {name}", f"Let its trust policy name the service. Or: {ROLES}"
    )


def _lets_in(policy: Response) -> bool:
    """Say whether a trust policy lets SageMaker in; what its conditions ask for is not looked at."""
    return any(
        statement.get("Effect") == "Allow"
        and {"sts:AssumeRole", "sts:*", "*"} & set(_all(statement.get("Action")))
        and SAGEMAKER in _all(_services(statement.get("Principal")))
        for statement in _all(policy.get("Statement"))
    )


def _services(principal: Any) -> Any:
    return principal.get("Service") if isinstance(principal, Mapping) else None


def _all(one_or_many: Any) -> list[Any]:
    """Return a list: policies write one thing with or without brackets."""
    return one_or_many if isinstance(one_or_many, list) else [one_or_many] if one_or_many else []
