"""ECR: moto keeps the repositories, a real registry the images; digests, sizes and tags are the registry's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from botocore.exceptions import ClientError
from werkzeug import Response

from local_test.cloud import inside, registry
from local_test.cloud.wire import Asked, Refused
from local_test.cloud.world import ACCOUNT, World, now

TOKEN_HOURS = 12
PAGE = 100
SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW", "INFORMATIONAL", "UNDEFINED")


def rewritten(world: World, asked: Asked, response: Response) -> Response:
    """Return moto's answer with this cloud's registry as where repositories are, and a token that is valid."""
    if not world.registry or response.status_code != 200:
        return response
    body = json.loads(response.get_data())
    for each in (*body.get("repositories", ()), *([body["repository"]] if "repository" in body else ())):
        each["repositoryUri"] = f"{world.registry}/{each['repositoryName']}"
    for each in body.get("authorizationData", ()):
        each["proxyEndpoint"] = f"http://{world.registry}"
        each["expiresAt"] = (now() + timedelta(hours=TOKEN_HOURS)).timestamp()
    response.set_data(json.dumps(body))
    return response


def describe(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer DescribeImages."""
    if not world.registry:
        return None
    name = repository(world, asked)["repositoryName"]
    return _page(asked, "imageDetails", [_detail(world, name, tags, found) for tags, found in _chosen(world, asked)])


def list_all(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer ListImages."""
    if not world.registry:
        return None
    repository(world, asked)
    ids = [{"imageDigest": found.digest, "imageTag": tag} for tags, found in _chosen(world, asked) for tag in tags]
    return _page(asked, "imageIds", ids)


def get(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer BatchGetImage."""
    if not world.registry:
        return None
    name, images, failures = repository(world, asked)["repositoryName"], [], []
    for wanted in asked.request["imageIds"]:
        found = registry.manifest(world.registry, name, _reference(wanted))
        if found is None:
            failures.append(_failure(wanted))
            continue
        image = {"imageDigest": found.digest, **({"imageTag": wanted["imageTag"]} if "imageTag" in wanted else {})}
        owner = {"registryId": ACCOUNT, "repositoryName": name}
        images.append({**owner, "imageId": image, "imageManifest": found.text, "imageManifestMediaType": found.kind})
    return {"images": images, "failures": failures}


def put(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer PutImage: a further tag for a manifest; a tag that an immutable repository has is refused."""
    if not world.registry:
        return None
    kept, request = repository(world, asked), asked.request
    name, tag = kept["repositoryName"], request.get("imageTag", "")
    known = registry.manifest(world.registry, name, tag) if tag else None
    if known and kept.get("imageTagMutability", "").startswith("IMMUTABLE"):
        said = f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten."
        raise Refused("ImageTagAlreadyExistsException", said)
    kind = request.get("imageManifestMediaType") or json.loads(request["imageManifest"])["mediaType"]
    given = registry.Manifest("", kind, request["imageManifest"])
    if not registry.put(world.registry, name, tag or request.get("imageDigest", ""), given):
        raise Refused("LayersNotFoundException", f"The registry did not take the manifest of {name}:{tag}.")
    found = registry.manifest(world.registry, name, tag)
    image = {"imageDigest": found.digest if found else "", "imageTag": tag}
    return {"image": {"registryId": ACCOUNT, "repositoryName": name, "imageId": image}}


def delete(world: World, asked: Asked) -> dict[str, Any] | None:
    """Answer BatchDeleteImage; a registry that is not set to allow it keeps the image, and the answer says so."""
    if not world.registry:
        return None
    name, gone, failures = repository(world, asked)["repositoryName"], [], []
    for wanted in asked.request["imageIds"]:
        found = registry.manifest(world.registry, name, _reference(wanted))
        if found and registry.delete(world.registry, name, found.digest):
            gone.append({**wanted, "imageDigest": found.digest})
        else:
            failures.append(_failure(wanted))
    return {"imageIds": gone, "failures": failures}


def delete_repository(world: World, asked: Asked) -> None:
    """Refuse DeleteRepository where images are left, or delete them by force; the repository is moto's to delete."""
    if not world.registry:
        return
    name = repository(world, asked)["repositoryName"]
    found = {registry.manifest(world.registry, name, tag) for tag in registry.tags(world.registry, name)} - {None}
    if found and not asked.request.get("force"):
        said = f"The repository with name '{name}' cannot be deleted because it still contains images"
        raise Refused("RepositoryNotEmptyException", said)
    for each in found:
        registry.delete(world.registry, name, each.digest if each else "")


def scan(world: World, asked: Asked) -> dict[str, Any]:
    """Answer StartImageScan."""
    name, digest = _image(world, asked)
    world.scanned.add((name, digest))
    status = {"status": "IN_PROGRESS", "description": "The scan has begun."}
    return {**_owner(name), "imageId": _id(asked, digest), "imageScanStatus": status}


def findings(world: World, asked: Asked) -> dict[str, Any]:
    """Answer DescribeImageScanFindings: what was given for an image, which is nothing unless told."""
    name, digest = _image(world, asked)
    is_pushed = repository(world, asked).get("imageScanningConfiguration", {}).get("scanOnPush", False)
    if not is_pushed and (name, digest) not in world.scanned:
        raise Refused("ScanNotFoundException", f"Image scan does not exist for the image with '{digest}' in '{name}'.")
    given = world.findings.get((name, digest)) or world.findings.get((name, "*"), [])
    severities = [each["severity"] for each in given]
    counts = {severity: severities.count(severity) for severity in SEVERITIES if severity in severities}
    page = _page(asked, "findings", given)
    found = {"findings": page.pop("findings"), "findingSeverityCounts": counts, "imageScanCompletedAt": now()}
    status = {"status": "COMPLETE", "description": "The scan was completed successfully."}
    return {**_owner(name), "imageId": _id(asked, digest), "imageScanStatus": status, "imageScanFindings": found, **page}


def repository(world: World, asked: Asked) -> dict[str, Any]:
    """Return a repository as moto keeps it.

    Raises:
        Refused: there is none of this name.
    """
    name = asked.request["repositoryName"]
    try:
        found = inside.client(world, "ecr", asked.region).describe_repositories(repositoryNames=[name])
    except ClientError as error:
        raise _as_refused(error) from error
    return dict(found["repositories"][0])


def _image(world: World, asked: Asked) -> tuple[str, str]:
    """Return the repository and the digest of the image that is asked for; with a registry, that one's."""
    name, wanted = asked.request["repositoryName"], asked.request["imageId"]
    try:
        found = inside.client(world, "ecr", asked.region).describe_images(repositoryName=name, imageIds=[wanted])
    except ClientError as error:
        raise _as_refused(error) from error
    return name, str(found["imageDetails"][0]["imageDigest"])


def _chosen(world: World, asked: Asked) -> list[tuple[list[str], registry.Manifest]]:
    """Return the images asked for, or all that have a tag: a registry does not list others."""
    name, wanted = asked.request["repositoryName"], asked.request.get("imageIds")
    if asked.request.get("filter", {}).get("tagStatus") == "UNTAGGED":
        return []
    references = [_reference(each) for each in wanted] if wanted else registry.tags(world.registry, name)
    found: dict[str, registry.Manifest] = {}
    for reference in references:
        one = registry.manifest(world.registry, name, reference)
        if one is None:
            said = f"The image with imageId {reference} does not exist within the repository with name '{name}'."
            raise Refused("ImageNotFoundException", said)
        found[one.digest] = one
    tagged = {tag: registry.manifest(world.registry, name, tag) for tag in registry.tags(world.registry, name)}
    return [([tag for tag, each in tagged.items() if each and each.digest == digest], one) for digest, one in found.items()]


def _detail(world: World, name: str, tags: list[str], found: registry.Manifest) -> dict[str, Any]:
    tagged = {"imageTags": tags} if tags else {}
    facts = {"imageDigest": found.digest, "imageSizeInBytes": found.size_bytes, "imageManifestMediaType": found.kind}
    return {**_owner(name), **tagged, **facts, "imagePushedAt": world.pushed.setdefault((name, found.digest), now())}


def _page(asked: Asked, member: str, items: list[Any]) -> dict[str, Any]:
    first, most = int(asked.request.get("nextToken", 0)), asked.request.get("maxResults", PAGE)
    more = {"nextToken": str(first + most)} if len(items) > first + most else {}
    return {member: items[first : first + most], **more}


def _reference(image: Mapping[str, str]) -> str:
    return image.get("imageDigest") or image.get("imageTag", "latest")


def _id(asked: Asked, digest: str) -> dict[str, str]:
    return {**asked.request["imageId"], "imageDigest": digest}


def _owner(name: str) -> dict[str, str]:
    return {"registryId": ACCOUNT, "repositoryName": name}


def _failure(image: Mapping[str, str]) -> dict[str, Any]:
    return {"imageId": dict(image), "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}


def _as_refused(error: ClientError) -> Refused:
    said = error.response["Error"]
    return Refused(said["Code"], said["Message"])
