"""`async`: a request that an asynchronous endpoint answers when it comes to it, through S3 (H-32)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import click

from deploy.cloud import DRY, Cloud, Request
from deploy.endpoints.invoke import MISSING, payload, show
from deploy.errors import BadSettings, NotThere, whole
from deploy.jobs.bucket import put, ready_bucket, split_uri
from deploy.names import DIGITS
from deploy.options import takes
from deploy.settings import Account, Call, Endpoint, Network, Storage
from deploy.waiting import State, wait

MOST_BYTES = 2**30


@dataclass(frozen=True)
class Places:
    """Where the answer, or what went wrong, will be."""

    output: str
    failure: str


@click.command("async")
@takes(Account, Network, Storage, Endpoint, Call)
def asynchronous(account: Account, network: Network, storage: Storage, endpoint: Endpoint, call: Call) -> None:
    """Send one request to an asynchronous endpoint, wait for the answer in S3 and print it."""
    body = payload(call)
    if len(body) > MOST_BYTES:
        raise BadSettings(f"The body has {len(body):,} bytes; an asynchronous endpoint takes {MOST_BYTES:,} (H-32).")
    if call.target_model:
        raise BadSettings("An asynchronous endpoint serves one model; leave --target-model out.")
    cloud, name = Cloud(account), endpoint.endpoint or account.name
    bucket = ready_bucket(cloud, storage, network)
    source = f"s3://{bucket}/{account.name}/async/input/{hashlib.sha256(body).hexdigest()[:DIGITS]}"
    put(cloud, network, source, body)
    places = _send(cloud, name, call, source)
    if places is None:
        click.echo(DRY)
        return
    click.echo(f"The answer will be at {places.output}", err=True)
    if not account.wait:
        click.echo(f"Next: aws s3 cp {places.output} -", err=True)
        return
    wait(cloud, f"Request to {name}", _look(cloud, places))
    content, content_type = _get(cloud, places.output)
    show(content, content_type)
    click.echo("Next: python -m deploy autoscale, or python -m deploy logs endpoint", err=True)


def _send(cloud: Cloud, name: str, call: Call, source: str) -> Places | None:
    """Return where to look for the answer; None where nothing was sent."""
    accept: Request = {"Accept": call.accept} if call.accept else {}
    try:
        answer = cloud.change(
            "sagemaker-runtime",
            "invoke_endpoint_async",
            f"Send {source} to endpoint {name}",
            EndpointName=name,
            InputLocation=source,
            ContentType=call.content_type,
            **accept,
        )
    except NotThere as error:
        raise NotThere(f"{error.message} {MISSING}") from None
    return Places(str(answer["OutputLocation"]), str(answer.get("FailureLocation", ""))) if answer else None


def _look(cloud: Cloud, places: Places) -> Callable[[], State]:
    def look() -> State:
        if _there(cloud, places.output):
            return State("answered", done=True)
        if places.failure and _there(cloud, places.failure):
            return State("failed", failure=_get(cloud, places.failure)[0].decode(errors="replace"))
        return State("waiting")

    return look


def _there(cloud: Cloud, uri: str) -> bool:
    bucket, key = split_uri(uri)
    return cloud.find("s3", "head_object", Bucket=bucket, Key=key) is not None


def _get(cloud: Cloud, uri: str) -> tuple[bytes, str]:
    bucket, key = split_uri(uri)
    answer = cloud.read("s3", "get_object", Bucket=bucket, Key=key)
    return whole(answer["Body"], "s3:GetObject"), str(answer.get("ContentType", ""))
