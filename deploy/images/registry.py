"""Which image is meant, and where it is in a registry: by its digest, which names the same bytes for ever."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere, Rejected
from deploy.images import repository
from deploy.images.acceptance import TAG, kind, tag_of
from deploy.images.credentials import credentials_for
from deploy.images.distribution import DOCKER_MANIFEST, Registry
from deploy.images.engine import engine_of
from deploy.settings import Image

RECORD = Path("build/pushed.json")
"""What was pushed last, below the folder that the command is run in."""
LONGEST = 255
"""T-8."""
NAME = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*")
HOST = re.compile(r"localhost(:\d+)?|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?|[A-Za-z0-9-]+:\d+|\[[0-9a-f:]+\](:\d+)?")
PUSH = "Run `python -m deploy push` first."
AS_IT_IS = "Push it anew: `make image`, then `python -m deploy push`."


@dataclass(frozen=True)
class Place:
    """A name in a registry."""

    host: str
    name: str
    """Without host and tag."""
    tag: str

    @property
    def repository(self) -> str:
        """Host and name."""
        return f"{self.host}/{self.name}"

    @property
    def reference(self) -> str:
        """Host, name and tag, as an engine takes it."""
        return f"{self.repository}:{self.tag}"


@dataclass(frozen=True)
class Record:
    """What was pushed, and what it was made of."""

    uri: str
    digest: str
    tag: str
    version: str
    revision: str
    time: str

    def write(self) -> None:
        """Keep it for the verbs that come after."""
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps(asdict(self), indent=1) + "\n")


def pushed(cloud: Cloud, image: Image) -> str:
    """Return the image that was pushed, as REPOSITORY@sha256:DIGEST.

    Args:
        cloud: the account whose ECR is looked into, where no other registry is set.
        image: names it; else it is the one that the engine here has; where it has none, the one that was pushed last.

    Raises:
        NotThere: it is not in the registry.
        Rejected: it is there as something that SageMaker does not take.
    """
    if image.uri:
        if not re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", image.uri):
            raise BadSettings(f"--uri {image.uri} names no digest; REPOSITORY@sha256:DIGEST was expected, as push prints it.")
        return image.uri
    tag = image.image_tag or _tag_here(image)
    return (
        _in_registry(place_in(cloud.account.name, image, tag))
        if image.registry
        else _in_ecr(cloud, ecr_name(cloud.account.name, image), tag)
    )


def place_in(project: str, image: Image, tag: str) -> Place:
    """Return where an image goes in a registry that is no ECR of the account's; raises BadSettings where there is no such."""
    host, _, prefix = image.registry.strip("/").partition("/")
    if not HOST.fullmatch(host):
        raise BadSettings(f"--registry {image.registry} begins with no host; docker.io/{image.registry} may be meant.")
    name = "/".join(part for part in (prefix, image.repository or project.lower()) if part)
    if host == "docker.io" and "/" not in name:
        raise BadSettings("--registry docker.io says not whose: docker.io/SOMEONE, as you are called there.")
    return checked(Place(host, name, tag))


def ecr_name(project: str, image: Image) -> str:
    """Return the name of the ECR repository; raises BadSettings where ECR would not take it."""
    return checked(Place("", image.repository or project.lower(), "tag")).name


def last_pushed() -> dict[str, Any]:
    """Return what was pushed last; {} where nothing was."""
    try:
        found = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def checked(place: Place) -> Place:
    """Return a place as it is; raises BadSettings where no registry would take its name or its tag."""
    if not NAME.fullmatch(place.name):
        raise BadSettings(
            f"{place.name!r} is no repository's name: lower-case letters and digits, with single . _ - or / between. "
            "Name one: --repository NAME."
        )
    if place.tag == "latest" or not TAG.fullmatch(place.tag):
        raise BadSettings(
            f"{place.tag!r} is no tag to push: letters, digits, . _ and -, at most 128; `latest` would name another image "
            "each time. Without --image-tag it is made of the image's version and commit."
        )
    if len(place.reference) > LONGEST:
        raise BadSettings(f"{place.reference} is longer than the {LONGEST} characters that SageMaker takes (T-8).")
    return place


def _tag_here(image: Image) -> str:
    try:
        return tag_of(engine_of(image.engine).image(image.image))
    except NotThere as error:
        last = last_pushed().get("tag")
        if last:
            return str(last)
        raise NotThere(
            f"Which image is meant can't be told: {error.message} Nor was one pushed from here: there is no {RECORD}. "
            "Name it: --uri REPOSITORY@sha256:DIGEST, or --image-tag TAG."
        ) from None


def _in_ecr(cloud: Cloud, name: str, tag: str) -> str:
    there = repository.found(cloud, name)
    found = there and cloud.find("ecr", "describe_images", repositoryName=name, imageIds=[{"imageTag": tag}])
    if not there or not found:
        raise NotThere(f"ECR has no {name}:{tag} ({cloud.place}). {PUSH}")
    seen = found["imageDetails"][0]
    media_type = seen.get("imageManifestMediaType", DOCKER_MANIFEST)
    return _taken(f"{there['repositoryUri']}@{seen['imageDigest']}", media_type)


def _in_registry(place: Place) -> str:
    held = Registry(place.host, lambda: credentials_for(place.host)).held(place.name, place.tag)
    if held is None:
        raise NotThere(f"There is no {place.reference}. {PUSH}")
    return _taken(f"{place.repository}@{held.digest}", held.media_type)


def _taken(uri: str, media_type: str) -> str:
    """Return an image's address; raises Rejected where SageMaker does not take its manifest (T-7)."""
    if media_type != DOCKER_MANIFEST:
        raise Rejected(f"{uri} is {kind(media_type)}; SageMaker takes {kind(DOCKER_MANIFEST)} alone (T-7). {AS_IT_IS}")
    return uri
