"""Where an image goes, and whether it is there: what the registry says is held against what the engine here says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import click

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere, Refused, Rejected
from deploy.images import repository
from deploy.images.acceptance import BUILD, kind
from deploy.images.credentials import credentials_for
from deploy.images.distribution import DOCKER_MANIFEST, Held, Registry
from deploy.images.engine import Engine, LocalImage
from deploy.images.registry import Place, checked, ecr_name, place_in
from deploy.settings import Account, Image


@dataclass(frozen=True)
class Target:
    """A tag in a registry, and how the registry is read."""

    place: Place
    registry: Registry
    cloud: Cloud | None
    """The account whose ECR it is; None of another registry, where the person's own login serves."""

    def held(self, local: LocalImage) -> Held | None:
        """Return what the tag names, which is the image here; None where it names nothing yet.

        Raises:
            Rejected: it names another image, or one that SageMaker does not take.
            Refused: the account's ECR can't be read.
        """
        if self.cloud and not repository.found(self.cloud, self.place.name):
            return None
        try:
            held = self.registry.held(self.place.name, self.place.tag)
        except Refused as error:
            if self.cloud:
                raise
            # Docker Hub answers so of a repository that the first push will make.
            click.echo(f"Whether {self.place.reference} is there can't be told: {error.message}")
            return None
        if held:
            self._judge(held, local)
        return held

    def ready(self, engine: Engine, image: Image) -> Target:
        """Return the target once it takes a push: its repository is there, and the engine is logged in."""
        if self.cloud is None:
            return self
        place = _split(repository.made(self.cloud, self.place.name, image), self.place.tag)
        engine.login(place.host, *repository.login(self.cloud))
        return _of_ecr(self.cloud, place)

    def confirmed(self, local: LocalImage) -> Held:
        """Return what the registry holds after a push: this image, as SageMaker takes it.

        Raises:
            NotThere: the registry does not show it.
            Rejected: it is not what was pushed, or of another kind.
        """
        held = self.registry.held(self.place.name, self.place.tag)
        if held is None:
            raise NotThere(f"{self.place.reference} was pushed, but is not in the registry. Run the same command again.")
        self._judge(held, local)
        return held

    def take_back(self) -> None:
        """Remove the tag from the account's ECR."""
        if self.cloud:
            self.cloud.change(
                "ecr",
                "batch_delete_image",
                f"Take {self.place.reference} back",
                repositoryName=self.place.name,
                imageIds=[{"imageTag": self.place.tag}],
            )

    def _judge(self, held: Held, local: LocalImage) -> None:
        """Raise Rejected unless what a registry holds is of Docker's kind (T-7), and the image here."""
        reference = self.place.reference
        if held.media_type != DOCKER_MANIFEST:
            raise Rejected(
                f"{reference} is {kind(held.media_type)} in the registry; SageMaker takes {kind(DOCKER_MANIFEST)} alone "
                f"(T-7). {BUILD} A tag never moves: push it under another one, --image-tag TAG."
            )
        if not self._is(held, local):
            raise Rejected(
                f"{reference} is there already, and is another image ({held.digest}): a tag never moves. Commit what has "
                "changed and `make image`, or give it a tag of its own: --image-tag TAG."
            )

    def _is(self, held: Held, local: LocalImage) -> bool:
        """Say whether a registry holds the image here. Podman writes an image's configuration anew when it pushes."""
        if local.identity in {held.digest, held.manifest.get("config", {}).get("digest")}:
            return True
        told = self.registry.configuration(self.place.name, held)
        layers, labels = told.get("rootfs", {}).get("diff_ids"), told.get("config", {}).get("Labels")
        made = _moment(str(told.get("created")))
        return (layers, labels or {}, made) == (list(local.layers), dict(local.labels), _moment(local.created))


def target_of(account: Account, image: Image, tag: str) -> Target:
    """Return where an image goes; raises BadSettings for a name or a tag that no registry would take."""
    if image.registry:
        place = place_in(account.name, image, tag)
        return Target(place, Registry(place.host, lambda: credentials_for(place.host)), None)
    if image.keep_images < 1:
        raise BadSettings(f"--keep-images {image.keep_images} keeps no image; 1 or more was expected.")
    name = checked(Place("", ecr_name(account.name, image), tag)).name
    cloud = Cloud(account)
    there = repository.found(cloud, name)
    return _of_ecr(cloud, _split(str(there["repositoryUri"]) if there else repository.address(cloud, name), tag))


def _of_ecr(cloud: Cloud, place: Place) -> Target:
    return Target(place, Registry(place.host, lambda: repository.login(cloud)), cloud)


def _split(uri: str, tag: str) -> Place:
    host, _, name = uri.partition("/")
    return checked(Place(host, name, tag))


def _moment(text: str) -> datetime | str:
    """Return when an image was made, however many digits of the second are written."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text
