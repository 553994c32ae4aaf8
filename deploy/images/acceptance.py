"""What an image has to be before it is pushed, as far as it says so itself: one platform, one kind of manifest, and labels.

The labels are those of the OCI image specification; `make image` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from deploy.errors import Rejected
from deploy.images.distribution import DOCKER_MANIFEST, MANIFESTS
from deploy.images.engine import LocalImage

LABEL = "org.opencontainers.image."
LABELS = ("title", "version", "revision", "source", "licenses")
PLATFORM = "linux/amd64"
SERVERLESS_BYTES = 10_000_000_000
"""H-33."""
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
"""What a registry takes."""
BUILD = (
    "Build it with `make image`; or with `docker build --platform linux/amd64 --provenance=false --sbom=false --output "
    "type=docker`, or `podman build --platform linux/amd64 --format docker`."
)


def accept(image: LocalImage, *, dirty: bool) -> None:
    """Raise Rejected where an image can't be pushed, with all reasons; say what is no reason yet.

    Args:
        image: as the engine here has it.
        dirty: whether it may be made of sources that are in no commit.
    """
    faults = [*_faults(image), *([] if dirty else _unknown_sources(image))]
    if faults:
        raise Rejected("\n  ".join([f"{image.name} is not pushed:", *faults]))
    if image.size_bytes > SERVERLESS_BYTES:
        size = f"{image.size_bytes / 1e9:.1f} GB"
        click.echo(f"{image.name} has {size}: serverless endpoints take 10 GB (H-33), and every new instance pulls it all.")
    if label(image, "source") == "unknown":
        click.echo(f"{image.name} does not say where its sources are: label {LABEL}source is unknown.")


def tag_of(image: LocalImage) -> str:
    """Return the tag of an image: its version and its commit's first twelve digits.

    Sources that are in no commit make different images of the same commit: these get eight digits of their own too.
    """
    version, revision = label(image, "version") or "0", label(image, "revision") or "unknown"
    tag = f"{version}-{revision.removesuffix('-dirty')[:12]}"
    if is_dirty(revision):
        tag += f"{'-dirty' * revision.endswith('-dirty')}.{image.identity.removeprefix('sha256:')[:8]}"
    return re.sub(r"[^A-Za-z0-9_.-]", "-", tag).lstrip(".-")[:128]


def label(image: LocalImage, name: str) -> str:
    """Return one of the labels; empty where it is missing."""
    return image.labels.get(LABEL + name, "")


def is_dirty(revision: str) -> bool:
    """Say whether a revision does not tell what an image was made of."""
    return revision in {"", "unknown"} or revision.endswith("-dirty")


def kind(media_type: str) -> str:
    """Return a manifest's media type in words."""
    return f"{MANIFESTS.get(media_type, 'no manifest of an image')} ({media_type or 'without a media type'})"


def _faults(image: LocalImage) -> Iterator[str]:
    if image.platform != PLATFORM:
        yield f"It is for {image.platform}; SageMaker runs {PLATFORM} alone (T-7). {BUILD}"
    if image.manifest_type not in {"", DOCKER_MANIFEST}:
        yield (
            f"The engine keeps it as {kind(image.manifest_type)} and pushes it so; SageMaker takes "
            f"{kind(DOCKER_MANIFEST)} alone (T-7). {BUILD}"
        )
    missing = [name for name in LABELS if not label(image, name)]
    if missing:
        yield f"It lacks the labels {', '.join(LABEL + name for name in missing)}, which tell what it is. {BUILD}"


def _unknown_sources(image: LocalImage) -> Iterator[str]:
    revision = label(image, "revision")
    if revision and is_dirty(revision):
        yield (
            f"Its revision is {revision}: what it was made of is in no commit, and nobody could make it again. Commit, "
            "`make image` and push; or push it all the same with --allow-dirty."
        )
