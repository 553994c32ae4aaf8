"""What the image is, before anything is started: its platform, its manifest's kind and its size (T-7, H-33)."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.errors import DeployError
from deploy.images.acceptance import BUILD, PLATFORM, kind
from deploy.images.credentials import credentials_for
from deploy.images.distribution import DOCKER_MANIFEST, Registry
from deploy.images.engine import Engine
from deploy.images.registry import HOST
from deploy.market.verdicts import Status, Verdict

LARGEST_BYTES = 10_000_000_000
"""H-33."""
SMALLER = "Build in stages and copy what runs; one variant of a framework is enough."


def judge(engine: Engine, name: str) -> Iterator[Verdict]:
    """Yield what is said of an image; where its name begins with a registry's host, of what that holds too.

    Raises:
        NotThere: the engine does not have it.
    """
    image = engine.image(name)
    size = f"{image.size_bytes / 1e9:.2f} GB"
    yield _verdict("T-7", "the image is for linux/amd64", image.platform, holds=image.platform == PLATFORM, fix=BUILD)
    yield _manifest(image.manifest_type or DOCKER_MANIFEST, "the engine here pushes", name)
    yield from _held(name)
    yield _verdict("H-33", "the image has at most 10 GB", size, holds=image.size_bytes <= LARGEST_BYTES, fix=SMALLER)


def _held(name: str) -> Iterator[Verdict]:
    """Yield what a registry says of the manifest; nothing where the name has no registry, or that has no such image."""
    host, _, rest = name.partition("/")
    if not rest or not HOST.fullmatch(host):
        return
    repository, _, reference = rest.partition("@") if "@" in rest else rest.partition(":")
    title = "the registry's manifest is Docker's, of one platform"
    try:
        held = Registry(host, lambda: credentials_for(host)).held(repository, reference or "latest")
    except DeployError as error:
        yield Verdict("T-7", title, Status.UNJUDGED, error.message, part="image")
    else:
        if held:
            yield _manifest(held.media_type, f"{host} holds", name)


def _manifest(media_type: str, who: str, name: str) -> Verdict:
    seen = f"{who} {name} as {kind(media_type)}"
    return _verdict("T-7", "the manifest is Docker's, of one platform", seen, holds=media_type == DOCKER_MANIFEST, fix=BUILD)


def _verdict(number: str, title: str, seen: str, *, holds: bool, fix: str) -> Verdict:
    return Verdict(number, title, Status.KEPT if holds else Status.BROKEN, seen, fix, "image")
