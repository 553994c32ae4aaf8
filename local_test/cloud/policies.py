"""Bucket policies as moto enforces them, but for those with conditions: it reads no Condition, and would deny everything."""

from __future__ import annotations

import json
from typing import Any

from moto.s3.models import FakeBucket

_enforced = FakeBucket.get_permission


def pass_over_conditions() -> None:
    """Have moto keep a statement with a condition, such as TLS alone, without enforcing it; no test may claim that it is."""
    setattr(FakeBucket, "get_permission", _permission)  # noqa: B010 mypy lets no method be assigned


def _permission(bucket: Any, action: str, resource: str) -> Any:
    kept = bucket.policy
    if not kept:
        return _enforced(bucket, action, resource)
    document = json.loads(kept)
    document["Statement"] = [one for one in document["Statement"] if "Condition" not in one]
    try:
        bucket.policy = json.dumps(document).encode() if document["Statement"] else None
        return _enforced(bucket, action, resource)
    finally:
        bucket.policy = kept
