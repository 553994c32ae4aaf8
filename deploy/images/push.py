"""`push`: an image that passes its gates, into a registry, under a tag that never moves; its digest is used from then on."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import click

from deploy.errors import Rejected
from deploy.images import gates, repository
from deploy.images.acceptance import accept, label, tag_of
from deploy.images.engine import Engine, LocalImage, engine_of
from deploy.images.registry import Record
from deploy.images.target import Target, target_of
from deploy.options import takes
from deploy.settings import Account, Gate, Image


@click.command()
@takes(Account, Image, Gate)
def push(account: Account, image: Image, gate: Gate) -> None:
    """Check the image and push it to ECR, Docker Hub or any registry; print its digest.

    It is refused where SageMaker would not take it, and where the scan or the platforms' rules reject it. A tag never moves:
    the image that is there already under it is left, if it is the same, and no other is put in its place.
    """
    engine = engine_of(image.engine)
    local = engine.image(image.image)
    accept(local, dirty=gate.allow_dirty)
    target = target_of(account, image, image.image_tag or tag_of(local))
    is_there = target.held(local) is not None
    click.echo(f"{target.place.reference} is {'there already' if is_there else 'not there yet'}.")
    if account.dry_run:
        _show(engine, local, target, image, is_there=is_there)
        return
    is_scanned = _pass(engine, local, account, gate, goes_to_ecr=not image.registry, is_there=is_there)
    target = target.ready(engine, image)
    if not is_there:
        click.echo(f"Push {local.name} ({local.size_bytes / 1e6:.0f} MB) to {target.place.reference} with {engine.program}")
        engine.push(local.identity, target.place.reference)
    digest = target.confirmed(local).digest
    uri = f"{target.place.repository}@{digest}"
    if not is_scanned:
        _scan_there(target, account, gate, uri, is_new=not is_there)
    if image.uri not in {"", uri}:
        click.echo(f"The settings still name {image.uri}, which the other verbs go on to use: change it there.")
    _end(local, target, digest, uri)


def _pass(engine: Engine, local: LocalImage, account: Account, gate: Gate, *, goes_to_ecr: bool, is_there: bool) -> bool:
    """Hold the image against its gates; say whether it was scanned, or need not be.

    ECR scans what it holds: where no scanner is here, the scan comes after the push.

    Raises:
        Rejected: it does not pass one.
    """
    is_scanned = gate.skip_scan or gates.scan(account, gate, local.name)
    if not is_scanned and not goes_to_ecr:
        raise Rejected(
            f"{local.name} is not pushed: nothing here could scan it, as said above. Install grype, or push it all the same "
            "with --skip-scan."
        )
    if not (gate.skip_conformance or is_there):  # it was judged before it got there
        gates.conform(engine.program, local.name)
    if engine.image(local.name).identity != local.identity:
        raise Rejected(f"{local.name} was built anew while it was judged, and is not pushed. Run the same command again.")
    return is_scanned


def _scan_there(target: Target, account: Account, gate: Gate, uri: str, *, is_new: bool) -> None:
    """Read ECR's findings; take back what was just pushed where it does not pass, or where that can't be told."""
    is_passed = False
    try:
        is_passed = gates.scan(account, gate, uri)
        if not is_passed:
            raise Rejected(
                f"{uri} could not be scanned, as said above. Turn ECR's scanning on, or install grype; --skip-scan "
                "pushes it without."
            )
    finally:
        if is_new and not is_passed:
            target.take_back()


def _end(local: LocalImage, target: Target, digest: str, uri: str) -> None:
    """Keep what was pushed for the verbs that come after, and say which comes next."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    Record(uri, digest, target.place.tag, label(local, "version"), label(local, "revision"), now).write()
    click.echo(f"Pushed: {uri}")
    if target.cloud:
        click.echo(f"Next: python -m deploy train --uri {uri}")
    else:
        click.echo(
            "SageMaker itself pulls from the account's ECR alone (T-8).\nNext: python -m deploy push, without --registry"
        )


def _show(engine: Engine, local: LocalImage, target: Target, image: Image, *, is_there: bool) -> None:
    """Print what a push would do."""
    if target.cloud:
        repository.made(target.cloud, target.place.name, image)
        click.echo(shlex.join([engine.program, "login", "--username", "AWS", "--password-stdin", target.place.host]))
    for command in [] if is_there else engine.push_commands(local.identity, target.place.reference):
        click.echo(shlex.join(command))
