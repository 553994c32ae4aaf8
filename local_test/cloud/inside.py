"""The stand-in's own calls to the services beside it, through the same door, uncounted and unharmed."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from local_test.cloud.wire import INSIDE
from local_test.cloud.world import World

KEY = "testing"
"""As access key and secret: what moto's documentation uses, and nothing that could work anywhere."""
_CONNECTING = Lock()
"""A session makes one client at a time, its documentation says; clients may be shared."""
_CONFIG = Config(user_agent_extra=INSIDE, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


def client(world: World, service: str, region: str) -> Any:
    """Return a client of a service of this cloud; it is kept."""
    known = world.clients
    if (service, region) not in known:
        known[service, region] = connect(service, region, world.url, config=_CONFIG)
    return known[service, region]


def connect(service: str, region: str, url: str, **options: Any) -> Any:
    """Return a client of a service of the cloud at a URL; options are boto3's."""
    with _CONNECTING:
        return _session().client(service, region_name=region, endpoint_url=url, **options)


@cache
def _session() -> Any:
    """Return one session for all: it reads a service's model, megabytes of JSON, once."""
    return boto3.Session(KEY, KEY)


def place(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URI."""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def put(world: World, region: str, uri: str, body: bytes) -> None:
    """Write an object."""
    bucket, key = place(uri)
    client(world, "s3", region).put_object(Bucket=bucket, Key=key, Body=body)


def get(world: World, region: str, uri: str) -> bytes:
    """Read an object."""
    bucket, key = place(uri)
    return bytes(client(world, "s3", region).get_object(Bucket=bucket, Key=key)["Body"].read())


def keys(world: World, region: str, uri: str) -> list[str]:
    """Return the keys below a prefix, those that only mark a folder left out."""
    bucket, prefix = place(uri)
    pages = client(world, "s3", region).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [each["Key"] for page in pages for each in page.get("Contents", ()) if not each["Key"].endswith("/")]
