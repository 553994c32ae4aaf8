"""`invoke`: one request to an endpoint, and its answer on standard output."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from deploy.cloud import Cloud
from deploy.errors import BadSettings, NotThere, whole
from deploy.jobs.samples import sample_body
from deploy.options import takes
from deploy.settings import Account, Call, Endpoint

MISSING = "`python -m deploy endpoint` makes one; `status` shows what is there."
MOST_BYTES = 25 * 2**20
"""H-12."""


@click.command()
@takes(Account, Endpoint, Call)
def invoke(account: Account, endpoint: Endpoint, call: Call) -> None:
    """Send one request to the endpoint and print the answer; without --payload, rows of the sample."""
    body = payload(call)
    if len(body) > MOST_BYTES:
        raise BadSettings(
            f"The body has {len(body):,} bytes; an endpoint takes {MOST_BYTES:,} (H-12). Use `python -m deploy async` on an "
            "asynchronous endpoint, or `python -m deploy batch`."
        )
    cloud, name = Cloud(account), endpoint.endpoint or account.name
    optional = {"Accept": call.accept, "TargetModel": call.target_model}
    began = time.perf_counter()
    try:
        answer = cloud.read(
            "sagemaker-runtime",
            "invoke_endpoint",
            EndpointName=name,
            Body=body,
            ContentType=call.content_type,
            **{key: value for key, value in optional.items() if value},
        )
    except NotThere as error:
        raise NotThere(f"{error.message} {MISSING}") from None
    content = whole(answer["Body"], "sagemaker:InvokeEndpoint")
    took_ms = 1000 * (time.perf_counter() - began)
    show(content, str(answer.get("ContentType", "")))
    variant = answer.get("InvokedProductionVariant", "")
    click.echo(f"{name}{f', variant {variant}' if variant else ''}: {len(body):,} bytes in, {took_ms:.0f} ms", err=True)
    click.echo("Next: python -m deploy autoscale, or python -m deploy logs endpoint", err=True)


def payload(call: Call) -> bytes:
    """Return the body that is to be sent.

    Raises:
        BadSettings: its file can't be read.
        NotThere: no file is set, and no sample rows are at hand.
    """
    if not call.payload:
        return sample_body(call.content_type)
    if call.payload == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(call.payload).read_bytes()
    except OSError as error:
        raise BadSettings(f"The body {call.payload} can't be read: {error.strerror}.") from None


def show(content: bytes, content_type: str) -> None:
    """Print an answer as it is; bytes that are no text only where no terminal would show them."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        if sys.stdout.isatty():
            click.echo(f"The answer is {len(content):,} bytes of {content_type or 'no text'}: send them to a file with > FILE.")
        else:
            click.echo(content, nl=False)
        return
    click.echo(text, nl=not text.endswith("\n"))
