"""What a transform job is asked with, and which of its settings go together (H-25 to H-31)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from deploy.cloud import Request
from deploy.errors import BadSettings
from deploy.instances import check_instances
from deploy.jobs.bucket import split_uri
from deploy.jobs.training import is_private
from deploy.network import vpc_of
from deploy.settings import Batch, Image, Network
from model import DECLARATION

MOST_MB = 100
TIMEOUT_S, RETRIES = 3_600, 3
"""H-27: the longest AWS allows; `serve` waits as long in batch."""
BAD_ROWS = {"fail": "fail", "placeholder": "null"}
"""The setting, and what `serve` calls it in its variable BAD_ROWS."""
JOINABLE = ("text/csv", "application/jsonlines")
"""H-29: one record a line."""


def checked(batch: Batch, network: Network, image: Image, *, stop: bool = False) -> None:
    """Refuse what no transform job takes, before any call.

    Raises:
        BadSettings: with the reason.
    """
    vpc_of(network)
    if is_private(image):
        raise BadSettings("A transform job takes an image of ECR alone; push it there: leave out --registry.")
    if not (batch.batch_input or stop):
        raise BadSettings("No input is set. Name it: --batch-input s3://BUCKET/PREFIX, or a file or folder here.")
    check_instances("batch_type", batch.batch_type, batch.batch_count, network)
    for name, value, choices in (
        ("split", batch.split, ("Line", "None")),
        ("record_strategy", batch.record_strategy, ("MultiRecord", "SingleRecord")),
        ("bad_rows", batch.bad_rows, tuple(BAD_ROWS)),
    ):
        if value not in choices:
            raise BadSettings(f"{name} is {value!r}; it takes {', '.join(choices)}.")
    if not 1 <= batch.payload_mb * batch.transforms <= MOST_MB or batch.payload_mb < 1:
        raise BadSettings(
            f"{batch.transforms} mini-batches of {batch.payload_mb} MB at a time are {batch.transforms * batch.payload_mb} MB; "
            f"1 to {MOST_MB} in all was expected (H-26). Set --transforms or --payload-mb."
        )
    if batch.join_input:
        _joinable(batch)
    _here(batch)


def _joinable(batch: Batch) -> None:
    if batch.split != "Line" or batch.record_type not in JOINABLE:
        raise BadSettings(
            f"Answers are put behind their own records where each line is one (H-29): --split Line and --record-type "
            f"{' or '.join(JOINABLE)} were expected, not {batch.split} and {batch.record_type}."
        )


def _here(batch: Batch) -> None:
    """Check an input that is not in S3 yet."""
    place = batch.batch_input
    if not place or place.startswith("s3://"):
        if place:
            split_uri(place)
        return
    path = Path(place)
    if not path.exists():
        raise BadSettings(f"The input {place} is not here; s3://BUCKET/PREFIX, a file or a folder was expected.")
    if batch.join_input and path.is_file() and batch.record_type == "text/csv" and _has_header(path):
        raise BadSettings(f"{place} begins with a header, which yields no answer to join (H-30): leave that line out.")


def _has_header(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8", errors="replace") as lines:
        return set(DECLARATION.feature_names) <= set(next(csv.reader(lines), []))


def transform(batch: Batch, network: Network, records: str) -> dict[str, Any]:
    """Return CreateTransformJob's request but for the names of job and model, and the place of the answers.

    Args:
        batch: its settings.
        network: keys; subnets and isolation are the model's.
        records: s3:// of the input.
    """
    lines = batch.split == "Line"
    request: Request = {
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": records}},
            "ContentType": batch.record_type,
            "SplitType": batch.split,
        },
        "TransformOutput": {
            "Accept": batch.record_type,
            "AssembleWith": "Line" if lines else "None",
            **({"KmsKeyId": network.output_key} if network.output_key else {}),
        },
        "TransformResources": {
            "InstanceType": batch.batch_type,
            "InstanceCount": batch.batch_count,
            **({"VolumeKmsKeyId": network.volume_key} if network.volume_key else {}),
        },
        "MaxPayloadInMB": batch.payload_mb,
        "MaxConcurrentTransforms": batch.transforms,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": TIMEOUT_S, "InvocationsMaxRetries": RETRIES},
        "Environment": {"BAD_ROWS": BAD_ROWS[batch.bad_rows]},
    }
    if lines:
        request["BatchStrategy"] = batch.record_strategy
    if batch.join_input:
        request["DataProcessing"] = {"JoinSource": "Input"}
    return request
