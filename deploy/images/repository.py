"""The account's ECR repository: made once, with tags that never move, a scan of what arrives and an end for what is old."""

from __future__ import annotations

import base64
import json
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.images.distribution import Credentials
from deploy.settings import Image

OURS = "Berth: "
"""How the rules of our lifecycle policy begin: a policy of somebody else's is left as it is."""


def found(cloud: Cloud, name: str) -> dict[str, Any] | None:
    """Return what ECR knows of a repository; None where there is none."""
    told = cloud.find("ecr", "describe_repositories", repositoryNames=[name])
    return dict(told["repositories"][0]) if told else None


def made(cloud: Cloud, name: str, image: Image) -> str:
    """Make the repository where it is not there; return its address, HOST/NAME."""
    key = {"encryptionType": "KMS", "kmsKey": image.image_key} if image.image_key else {"encryptionType": "AES256"}
    there = cloud.make(
        "ecr",
        "create_repository",
        f"Make the ECR repository {name}",
        lambda: found(cloud, name),
        repositoryName=name,
        imageTagMutability="IMMUTABLE",
        imageScanningConfiguration={"scanOnPush": True},
        encryptionConfiguration=key,
    )
    if there:
        _judge(name, there, image)
    _keep(cloud, name, image.keep_images)
    return str(there.get("repositoryUri") or address(cloud, name))


def login(cloud: Cloud) -> Credentials:
    """Return user and password for the account's registry, good for twelve hours; raises DeployError as `Cloud.read`."""
    told = cloud.read("ecr", "get_authorization_token")["authorizationData"][0]
    user, _, secret = base64.b64decode(told["authorizationToken"]).decode().partition(":")
    return user, secret


def address(cloud: Cloud, name: str) -> str:
    """Return the address that a repository will have, HOST/NAME; one that is there tells it by itself."""
    suffix = "amazonaws.com.cn" if cloud.region.startswith("cn-") else "amazonaws.com"
    return f"{cloud.account_id}.dkr.ecr.{cloud.region}.{suffix}/{name}"


def _judge(name: str, there: dict[str, Any], image: Image) -> None:
    """Say in which way a repository that somebody made is not as we would make it; it is theirs to change."""
    if there.get("imageTagMutability") != "IMMUTABLE":
        click.echo(
            f"  Its tags can be moved: aws ecr put-image-tag-mutability --repository-name {name} "
            "--image-tag-mutability IMMUTABLE"
        )
    if not there.get("imageScanningConfiguration", {}).get("scanOnPush"):
        click.echo(
            f"  It does not scan what arrives: aws ecr put-image-scanning-configuration --repository-name {name} "
            "--image-scanning-configuration scanOnPush=true"
        )
    if image.image_key and image.image_key != there.get("encryptionConfiguration", {}).get("kmsKey"):
        click.echo(
            f"  It is not encrypted with {image.image_key}: a repository's key can't be changed. Delete it and push "
            "again, or name another one: --repository NAME"
        )


def _keep(cloud: Cloud, name: str, count: int) -> None:
    """Set the lifecycle policy, where there is none or the one there is ours with another count."""
    there = cloud.find("ecr", "get_lifecycle_policy", repositoryName=name)
    rules = json.loads(there["lifecyclePolicyText"]).get("rules", []) if there else []
    wanted = _policy(count)
    if rules == wanted["rules"]:
        return
    if not all(str(rule.get("description", "")).startswith(OURS) for rule in rules):
        click.echo(f"The lifecycle policy of {name} is somebody else's, and stays as it is.")
        return
    cloud.change(
        "ecr",
        "put_lifecycle_policy",
        f"Keep the newest {count} images in {name}, and drop untagged ones after a day",
        repositoryName=name,
        lifecyclePolicyText=json.dumps(wanted),
    )


def _policy(count: int) -> dict[str, Any]:
    newest = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": count}
    untagged = {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": 1}
    rules = ((1, "drop what has no tag", untagged), (2, f"keep the newest {count}", newest))
    return {
        "rules": [
            {"rulePriority": number, "description": OURS + text, "selection": selection, "action": {"type": "expire"}}
            for number, text, selection in rules
        ]
    }
