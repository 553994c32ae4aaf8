"""What a model.tar.gz in S3 tells of its model: read as it streams, bounded, and nothing of it is unpacked."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from botocore.exceptions import BotoCoreError

from contract.manifest import MANIFEST, REPORT
from deploy.cloud import Cloud
from deploy.errors import Failed, explained
from deploy.jobs.bucket import split_uri

CARD, QUALITY = REPORT[1:]
WANTED = {MANIFEST, CARD, QUALITY}
MOST_BYTES = 8 * 2**20
"""Of one wanted file; the others are passed over unread."""
MOST_MEMBERS = 10_000


@dataclass(frozen=True)
class Artifact:
    """The documents beside a trained model; empty where it has none."""

    manifest: Mapping[str, Any]
    card: Mapping[str, Any]
    quality: Mapping[str, Any]


def read_artifact(cloud: Cloud, uri: str) -> Artifact:
    """Return the documents of a model.tar.gz.

    Raises:
        Failed: it is no such archive, or has a link in place of a document (H-4).
        DeployError: S3 refused, or could not be reached.
    """
    bucket, key = split_uri(uri)
    body = cloud.read("s3", "get_object", Bucket=bucket, Key=key)["Body"]
    try:
        found = _documents(body)
    except BotoCoreError as error:
        raise explained(error, "s3:GetObject") from None
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise Failed(f"{uri} is no model that `train` wrote ({error}). Train again.") from None
    finally:
        body.close()
    if MANIFEST not in found:
        click.echo(f"{uri} has no {MANIFEST}: nothing more is known of this model.")
    return Artifact(*(found.get(name, {}) for name in (MANIFEST, CARD, QUALITY)))


def _documents(body: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tarfile.open(fileobj=io.BufferedReader(_Stream(body)), mode="r|gz") as archive:
        for number, member in enumerate(archive):
            name = member.name.removeprefix("./")
            if name in WANTED:
                found[name] = _document(archive, member)
            if len(found) == len(WANTED) or number == MOST_MEMBERS:
                break
    return found


def _document(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    if not member.isreg():
        raise ValueError(f"{member.name} is no regular file")
    if member.size > MOST_BYTES:
        raise ValueError(f"{member.name} has {member.size:,} bytes; {MOST_BYTES:,} at most are read")
    file = archive.extractfile(member)
    return json.load(file) if file else {}


class _Stream(io.RawIOBase):
    """botocore's body as tarfile reads it: never more than is asked for."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._body.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)
