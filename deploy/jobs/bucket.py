"""The bucket of data and models: encrypted, closed to the public, TLS alone; what is copied there is named by its content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from contract.files import sha256
from deploy.cloud import TAG, Cloud, Request, Response
from deploy.errors import BadSettings, NotThere
from deploy.names import DIGITS
from deploy.settings import Network, Storage

MOST_BYTES = 5 * 2**30
"""What S3 takes in one piece."""
ENDINGS = (".csv", ".csv.gz", ".parquet", ".npy", ".json", ".jsonl")
"""Of files that `train` or `serve` reads."""
WITHOUT_LOCATION = "us-east-1"
"""The one Region whose name S3 refuses as a location."""


def bucket_of(storage: Storage, cloud: Cloud) -> str:
    """Return the bucket's name, whether it is there or not."""
    return storage.bucket or f"sagemaker-{cloud.region}-{cloud.account_id}"


def ready_bucket(cloud: Cloud, storage: Storage, network: Network) -> str:
    """Return the bucket's name, and make it first where it is not there.

    The name without a setting can be guessed: a bucket of that name which is another account's is refused by its owner check.
    The tags come last: an empty bucket without any is one whose making was interrupted, and is finished.
    """
    name = bucket_of(storage, cloud)
    owner = {} if storage.bucket else {"ExpectedBucketOwner": cloud.account_id}

    def found() -> Response | None:
        return cloud.find("s3", "head_bucket", Bucket=name, **owner)

    there = found() is not None
    if there and not _unfinished(cloud, name):
        return name
    if not there:
        location = {"CreateBucketConfiguration": {"LocationConstraint": cloud.region}}
        elsewhere: Request = {} if cloud.region == WITHOUT_LOCATION else {**location}
        cloud.make("s3", "create_bucket", f"Create bucket {name}", found, Bucket=name, **elsewhere)
    _protect(cloud, name, network.output_key)
    return name


def _unfinished(cloud: Cloud, name: str) -> bool:
    if cloud.find("s3", "get_bucket_tagging", Bucket=name) is not None:
        return False
    return not cloud.read("s3", "list_objects_v2", Bucket=name, MaxKeys=1).get("KeyCount", 0)


def _protect(cloud: Cloud, name: str, key: str) -> None:
    rule = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
    cloud.change(
        "s3",
        "put_public_access_block",
        f"Close bucket {name} to the public",
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        ),
    )
    cloud.change(
        "s3",
        "put_bucket_encryption",
        f"Encrypt what is put into bucket {name}",
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": rule, "BucketKeyEnabled": bool(key)}]
        },
    )
    cloud.change(
        "s3",
        "put_bucket_policy",
        f"Let bucket {name} be reached by TLS alone",
        Bucket=name,
        Policy=json.dumps(_tls_alone(cloud.partition, name)),
    )
    tags = [{"Key": one, "Value": value} for one, value in cloud.tags.items()]
    cloud.change("s3", "put_bucket_tagging", f"Tag bucket {name} with {TAG}", Bucket=name, Tagging={"TagSet": tags})


def _tls_alone(partition: str, name: str) -> dict[str, Any]:
    arn = f"arn:{partition}:s3:::{name}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TlsAlone",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [arn, f"{arn}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of s3://BUCKET/KEY; raises BadSettings for anything else."""
    found = re.fullmatch(r"s3://([^/]+)/?(.*)", uri)
    if not found:
        raise BadSettings(f"{uri!r} is no place in S3; s3://BUCKET/KEY was expected.")
    return found[1], found[2]


def put(cloud: Cloud, network: Network, uri: str, body: Any) -> None:
    """Put bytes, or an open file, to s3://BUCKET/KEY, encrypted as the settings say."""
    bucket, key = split_uri(uri)
    sealed: Request = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": network.output_key} if network.output_key else {}
    cloud.change("s3", "put_object", f"Put {uri}", Bucket=bucket, Key=key, Body=body, **sealed)


def copy(cloud: Cloud, network: Network, path: Path, prefix: str) -> str:
    """Copy a file or a folder under a prefix and a name that follows from its content; return s3:// of the copy, a folder.

    What is there already is not copied again. Hidden files stay here, and where there is data so does what is none by its
    ending: a README would go through a pipe, or be taken for a host's share.

    Args:
        cloud: the account.
        network: the key to encrypt with.
        path: what is copied.
        prefix: s3://BUCKET/PREFIX.

    Raises:
        BadSettings: there is nothing to copy, or a file is too large for one piece.
    """
    files = dict(_files(path))
    bucket, key = split_uri(f"{prefix}-{_fingerprint(files)}/")
    there = dict(objects(cloud, bucket, key))
    lacking = {name: file for name, file in files.items() if there.get(key + name) != file.stat().st_size}
    click.echo(f"{path}: {len(files)} file(s), {len(files) - len(lacking)} of them at s3://{bucket}/{key} already.")
    for name, file in lacking.items():
        with file.open("rb") as body:
            put(cloud, network, f"s3://{bucket}/{key}{name}", body)
    return f"s3://{bucket}/{key}"


def objects(cloud: Cloud, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield key and size of what is there under a prefix; nothing where the bucket is not."""
    try:
        for item in cloud.pages("s3", "list_objects_v2", "Contents", Bucket=bucket, Prefix=prefix):
            yield str(item["Key"]), int(item["Size"])
    except NotThere:
        return


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file by its name below the folder."""
    found = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    root = path.parent if path.is_file() else path
    names = {item.relative_to(root): item for item in found}
    seen = {name: item for name, item in names.items() if not any(part.startswith(".") for part in name.parts)}
    data = {name: item for name, item in seen.items() if name.name.lower().endswith(ENDINGS)}
    chosen = data or seen
    if not chosen:
        raise BadSettings(f"{path} is no file, and no folder with files; s3://BUCKET/PREFIX, a file or a folder was expected.")
    for name, item in chosen.items():
        if item.stat().st_size > MOST_BYTES:
            raise BadSettings(
                f"{item} has {item.stat().st_size:,} bytes; S3 takes {MOST_BYTES:,} in one piece. Copy it with `aws s3 cp` "
                "and name its place: s3://BUCKET/PREFIX."
            )
        yield name.as_posix(), item


def _fingerprint(files: dict[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, file in files.items():
        digest.update(f"{name}\0{sha256(file)}\n".encode())
    return digest.hexdigest()[:DIGITS]
