"""What is offered: the image with its tag as ECR has it, its version, and the sample data that the validation uses."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere
from deploy.images.registry import last_pushed, pushed
from deploy.jobs.bucket import copy, ready_bucket
from deploy.jobs.channels import SAMPLE
from deploy.jobs.samples import sample_body, sample_rows
from deploy.market.product import INSTANCES, Offer, version_name
from deploy.market.settings import Listing
from deploy.names import checked
from deploy.network import role_of
from deploy.settings import Image, Network, Storage

RECORDS = 100
"""Rows of the sample that the validation asks answers for, at most."""
VERSION = re.compile(r"\d+\.\d+\.\d+(?:-(?:rc|beta|alpha)\.?\d+)?")


def offer_of(cloud: Cloud, image: Image, network: Network, *, storage: Storage, listing: Listing) -> Offer:
    """Return what the settings, the registry and model/sample offer; sample data that is not in S3 yet is copied there.

    Raises:
        BadSettings: it can't be named, or its version can't be told.
        NotThere: the image is not in the account's ECR, or has no tag there.
    """
    reference, digest = tagged(cloud, pushed(cloud, image))
    product = checked(listing.product or cloud.account.name)
    release = listing.release or _release(reference, digest)
    checked(version_name(product, release))  # before anything is copied
    role = role_of(cloud, network, "validation")
    folder = f"s3://{ready_bucket(cloud, storage, network)}/{_folder(cloud)}"
    return Offer(
        product,
        release,
        reference,
        digest,
        role,
        data=_data(cloud, network, listing, folder),
        records=_records(cloud, network, folder),
        outputs=f"{folder}/validation",
        training_types=listing.training_types or INSTANCES,
        realtime_types=listing.realtime_types or INSTANCES,
        transform_types=listing.transform_types or INSTANCES,
        validation_type=listing.validation_type,
        metering=listing.metering,
    )


def tagged(cloud: Cloud, uri: str) -> tuple[str, str]:
    """Return an image as REPOSITORY:TAG and its digest; M-8 wants both, for what has no tag is not scanned.

    Raises:
        NotThere: this account's ECR has no such image, or has it without a tag.
    """
    repository, _, digest = uri.partition("@")
    host, _, name = repository.partition("/")
    expected = f"{cloud.account_id}.dkr.ecr.{cloud.region}."
    if not host.startswith(expected):
        raise NotThere(
            f"{uri} is not in this account's ECR of {cloud.region}, which AWS Marketplace takes images of alone (M-8). Run "
            "`python -m deploy push` without --registry."
        )
    found = cloud.find("ecr", "describe_images", repositoryName=name, imageIds=[{"imageDigest": digest}])
    if not found:
        raise NotThere(f"ECR has no {uri} ({cloud.place}). Run `python -m deploy push` first.")
    kept = last_pushed().get("tag", "")
    # Tags may be added at any time, and one version must not be asked for with two of them.
    tags = sorted(found["imageDetails"][0].get("imageTags", []), key=lambda tag: (tag != kept, not VERSION.match(tag), tag))
    if not tags:
        raise NotThere(
            f"{uri} has no tag, and an image without one is not scanned (M-8). `python -m deploy push` gives it one."
        )
    return f"{repository}:{tags[0]}", digest


def _release(reference: str, digest: str) -> str:
    """Return the image's version: as push has kept it, or as it has written it into the tag."""
    kept = last_pushed()
    told = str(kept.get("version", "")) if kept.get("digest") == digest else reference.rpartition(":")[2]
    found = VERSION.match(told)
    if found is None:
        raise BadSettings(f"The version of {reference} can't be told. Say what buyers are to see: --release 1.0.0.")
    return found[0]


def _folder(cloud: Cloud) -> str:
    """Beside the project's own folder: a buyer sees the data of a version for as long as it is sold, `delete` or not."""
    return f"{cloud.account.name}-market"


def _data(cloud: Cloud, network: Network, listing: Listing, folder: str) -> str:
    place = listing.sample or str(SAMPLE)
    if place.startswith("s3://"):
        return place
    if not Path(place).exists():
        raise BadSettings(f"The sample {place} is not here; s3://BUCKET/PREFIX, a file or a folder was expected: --sample.")
    return copy(cloud, network, Path(place), f"{folder}/training")


def _records(cloud: Cloud, network: Network, folder: str) -> str:
    """Rows as buyers send them: without a header, which yields no answer (H-30), and without the target."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "records.csv"
        path.write_bytes(sample_body("text/csv", sample_rows(count=RECORDS)))
        return copy(cloud, network, path, f"{folder}/records")
