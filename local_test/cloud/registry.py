"""What a registry knows of images, asked by its HTTP interface: digests, tags, manifests; deletes too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from local_test.cloud.world import World

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
KINDS = (
    DOCKER,
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)
"""Manifests that a registry may hold; it gives another kind than it holds unless all are accepted."""


@dataclass(frozen=True)
class Manifest:
    """One image, as a registry has it."""

    digest: str
    kind: str
    text: str

    @property
    def size_bytes(self) -> int:
        """The layers' and the configuration's sizes, added."""
        content = json.loads(self.text)
        return sum(each["size"] for each in (*content.get("layers", ()), content.get("config", {"size": 0})))


def manifest(registry: str, repository: str, reference: str) -> Manifest | None:
    """Return the manifest of a tag or a digest, or nothing."""
    status, headers, body = _ask(registry, "GET", f"/v2/{repository}/manifests/{reference}")
    if status != 200:
        return None
    return Manifest(headers["docker-content-digest"], headers["content-type"], body.decode())


def tags(registry: str, repository: str) -> list[str]:
    """Return a repository's tags."""
    status, _, body = _ask(registry, "GET", f"/v2/{repository}/tags/list")
    return sorted(json.loads(body).get("tags") or ()) if status == 200 else []


def put(registry: str, repository: str, reference: str, manifest: Manifest) -> bool:
    """Store a manifest under a tag; say whether the registry took it."""
    path = f"/v2/{repository}/manifests/{reference}"
    return _ask(registry, "PUT", path, manifest.text.encode(), {"Content-Type": manifest.kind})[0] == 201


def delete(registry: str, repository: str, digest: str) -> bool:
    """Delete a manifest; say whether the registry did: it must be set to allow it."""
    return _ask(registry, "DELETE", f"/v2/{repository}/manifests/{digest}")[0] == 202


def resolved(world: World, image: str) -> str:
    """Return an image by its digest, if it stands in the registry of this cloud; else as it is named."""
    host, _, rest = image.partition("/")
    repository, _, tag = rest.partition(":")
    if "@" in image or host != world.registry or not world.registry:
        return image
    found = manifest(host, repository, tag or "latest")
    return f"{host}/{repository}@{found.digest}" if found else image


def _ask(
    registry: str, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection: Any = HTTPConnection(registry, timeout=30)
    try:
        connection.request(method, path, body, {"Accept": ", ".join(KINDS), **(headers or {})})
        answered = connection.getresponse()
        return answered.status, {name.lower(): value for name, value in answered.getheaders()}, answered.read()
    finally:
        connection.close()
