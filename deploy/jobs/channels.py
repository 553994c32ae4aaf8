"""A training job's channels: what is in S3 already stays there, what is here is copied first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import model
from contract.job import TRAINING
from deploy.cloud import Cloud
from deploy.errors import BadSettings
from deploy.jobs.bucket import copy, split_uri
from deploy.settings import Network, Training

SAMPLE = Path(model.__file__).parent / "sample"
MOST = 20
"""T-19."""


def checked_channels(training: Training) -> None:
    """Refuse channels that no job takes.

    Raises:
        BadSettings: a name, a place or their number is wrong.
    """
    if len(training.channel) > MOST:
        raise BadSettings(f"There are {len(training.channel)} channels; a job takes {MOST} (T-19).")
    for name, place in training.channel.items():
        if not re.fullmatch(r"[A-Za-z0-9.\-_]{1,64}", name):
            raise BadSettings(f"{name!r} is no channel's name: 1 to 64 letters, digits, dots, hyphens, underscores (T-19).")
        if place.startswith("s3://"):
            split_uri(place)
        elif not Path(place).exists():
            raise BadSettings(f"Channel {name} is {place}, which is not here; s3://BUCKET/PREFIX or a path was expected.")
    if unknown := set(training.content_types) - set(channels_of(training)):
        raise BadSettings(f"A content type is set for {', '.join(sorted(unknown))}, but there is no such channel.")


def channels_of(training: Training) -> dict[str, str]:
    """Return the channels by name, as they are set; without any, the sample as the training channel."""
    return dict(training.channel) or {TRAINING[0]: str(SAMPLE)}


def input_data(cloud: Cloud, training: Training, network: Network, data: str) -> list[dict[str, Any]]:
    """Return `InputDataConfig`, after a copy of what is not in S3.

    Args:
        cloud: the account.
        training: has the channels.
        network: has the key that encrypts the copies.
        data: s3://BUCKET/PREFIX for copies.
    """
    return [_channel(cloud, name, training, network, data) for name in channels_of(training)]


def _channel(cloud: Cloud, name: str, training: Training, network: Network, data: str) -> dict[str, Any]:
    place = channels_of(training)[name]
    uri = place if place.startswith("s3://") else copy(cloud, network, Path(place), f"{data}/{name}")
    content_type = training.content_types.get(name, "")
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": uri,
                "S3DataDistributionType": training.distribution,
            }
        },
        "InputMode": training.input_mode,
        **({"ContentType": content_type} if content_type else {}),
    }
