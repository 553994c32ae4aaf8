"""What the platform asks of a model before it takes it."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from local_test.cloud import inside
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import Record, World


def check(world: World, asked: Asked) -> None:
    """Refuse a model without a container, or whose data isn't there."""
    request = asked.request
    if "PrimaryContainer" not in request and "Containers" not in request:
        raise Refused("ValidationException", "Either PrimaryContainer or Containers must be given.")
    for container in containers(request):
        if "Image" not in container and "ModelPackageName" not in container:
            raise Refused("ValidationException", "A container needs Image or ModelPackageName.")
        if "ModelPackageName" in container and not _is_package(world, asked.region, container["ModelPackageName"]):
            raise Refused("ValidationException", f'Could not find model package "{container["ModelPackageName"]}".')
        url = container.get("ModelDataUrl", "")
        if url and not url.endswith("/") and not is_there(world, asked.region, url):
            raise Refused("ValidationException", f"Could not find model data at {url}.")


def containers(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a CreateModel request."""
    return [*([request["PrimaryContainer"]] if "PrimaryContainer" in request else []), *request.get("Containers", ())]


def images(world: World, region: str, record: Record) -> list[str]:
    """Return the images of a model, those of its model packages too."""
    found = []
    for container in containers(record.request):
        package = _is_package(world, region, container.get("ModelPackageName", ""))
        inner = package.request.get("InferenceSpecification", {}).get("Containers", ()) if package else [container]
        found += [each["Image"] for each in inner if "Image" in each]
    return found


def is_there(world: World, region: str, url: str) -> bool:
    """Say whether an object exists."""
    bucket, key = inside.place(url)
    try:
        inside.client(world, "s3", region).head_object(Bucket=bucket, Key=key)
    except ClientError:
        return False
    return True


def _is_package(world: World, region: str, called: str) -> Record | None:
    return next((each for each in world.of_kind(region, "ModelPackage") if called and called in {each.arn, each.name}), None)
