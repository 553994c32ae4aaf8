"""`publish`: a version of what is sold, made once, validated by AWS, and compared with the last before buyers see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from contract.metrics import metric_line, metric_names
from deploy.cloud import DRY, Cloud, Request, Response
from deploy.errors import Failed, Rejected
from deploy.jobs.models import newest_model
from deploy.jobs.training import METRICS
from deploy.market.check import check
from deploy.market.kit import kit
from deploy.market.offer import offer_of
from deploy.market.product import COLUMNS, Offer, algorithm_request, columns_of, package_request
from deploy.market.published import ALGORITHM, FAILED, MODEL, Kind, differences, last_version, look, reasons, tags_of
from deploy.market.rules import judge
from deploy.market.settings import Listing
from deploy.market.versions import Document, compare, seen
from deploy.names import fingerprint
from deploy.options import takes
from deploy.settings import Account, Image, Network, Package, Storage
from deploy.waiting import wait
from model import DECLARATION


@click.group()
def publish() -> None:
    """Sell it on AWS Marketplace: an algorithm, or a model package, as versions that never change."""


publish.add_command(kit)


@publish.command()
@takes(Account, Image, Network, Storage, Listing)
def algorithm(account: Account, image: Image, network: Network, storage: Storage, listing: Listing) -> None:
    """Publish the image as an algorithm that buyers train and deploy, once AWS has validated it.

    The request follows from model/'s declarations. It is held against the Marketplace's rules and against the last version
    first: what would break its buyers is refused without --breaking.
    """
    cloud = Cloud(account)
    offer = offer_of(cloud, image, network, storage=storage, listing=listing)
    _publish(cloud, listing, ALGORITHM, offer=offer, request=algorithm_request(DECLARATION, METRICS, offer))


@publish.command()
@takes(Account, Image, Network, Storage, Package, Listing)
def model(account: Account, image: Image, network: Network, storage: Storage, package: Package, listing: Listing) -> None:
    """Publish a trained model as a package that buyers deploy, once AWS has validated it.

    The same rules as for an algorithm. A model package is apart from the versions of the model registry, which can't be sold.
    """
    cloud = Cloud(account)
    data = listing.sold_model or newest_model(cloud, package)
    offer = offer_of(cloud, image, network, storage=storage, listing=listing)
    _publish(cloud, listing, MODEL, offer=offer, request=package_request(DECLARATION, offer, data))


publish.add_command(check)


def _publish(cloud: Cloud, listing: Listing, kind: Kind, *, offer: Offer, request: Request) -> None:
    _pass(cloud, request)
    there = kind.find(cloud, offer.name)
    if there is not None:
        _same(cloud, kind, request, there)
    else:
        _compare(cloud, listing, kind, offer=offer, request=request)
    kind.make(cloud, f"Publish {kind.title} {offer.name}", request)
    if cloud.account.dry_run:
        click.echo(DRY)
    elif not cloud.account.wait:
        click.echo(f"Next: python -m deploy publish {kind.word} (the same command) waits for AWS's validation")
    else:
        wait(cloud, f"{kind.title.capitalize()} {offer.name}", lambda: look(cloud, kind, offer.name))
        _end(cloud, listing, kind, offer=offer, request=request)


def _pass(cloud: Cloud, request: Request) -> None:
    """Raise Rejected with all the rules that a request breaks."""
    lines = [metric_line(name, 0.5) for name in metric_names(METRICS)]
    broken = judge(request, cloud.account_id, cloud.region, lines)
    if broken:
        raise Rejected("\n  ".join([f"It is not published: {len(broken)} rule(s) broken.", *map(str, broken)]))


def _same(cloud: Cloud, kind: Kind, request: Request, there: Response) -> None:
    """Raise unless the version that is there is the one that is asked for, and has not failed."""
    name = there[f"{kind.noun}Name"]
    others = differences(request, there, tags_of(cloud, str(there[f"{kind.noun}Arn"])))
    if there.get(f"{kind.noun}Status") == FAILED:
        raise Failed(f"{kind.title.capitalize()} {name} is there, and its validation failed: {reasons(there, kind)}")
    if others:
        raise Rejected(
            f"{kind.title.capitalize()} {name} is there, and differs in {', '.join(others)}. A version never changes: publish "
            "this one under another, --release VERSION."
        )


def _compare(cloud: Cloud, listing: Listing, kind: Kind, *, offer: Offer, request: Request) -> None:
    """Say what buyers will see otherwise; raise Rejected where that breaks them and nobody has said that it may."""
    last = last_version(cloud, kind, offer.product, offer.name)
    if last is None:
        click.echo(f"{offer.name} is the first version of {offer.product}.")
        return
    name, arn = str(last[f"{kind.noun}Name"]), str(last[f"{kind.noun}Arn"])
    columns = columns_of(DECLARATION)
    is_same = tags_of(cloud, arn).get(COLUMNS) == fingerprint(columns)
    before = columns if is_same else _kept(listing, kind, name)
    changes = compare(seen(last, before), seen(request, columns))
    click.echo(f"Since {name}: {len(changes)} change(s) that buyers see.")
    for change in changes:
        click.echo(f"  {change}")
    breaks = [change for change in changes if change.breaks]
    if breaks and not listing.breaking:
        raise Rejected(
            f"{offer.name} is not published: {len(breaks)} of the changes break who uses {name}, as said above. Take them "
            f"back; or, where that is meant, --breaking with a --release that says so. {name} stays as it is."
        )


def _kept(listing: Listing, kind: Kind, name: str) -> Document | None:
    """Return what a version takes and answers, as it was written down when it was published."""
    path = _file(listing, kind, name)
    if not path.is_file():
        click.echo(f"{path}, which says what {name} takes and answers, is not here.")
        return None
    told: dict[str, Any] = json.loads(path.read_text())
    return dict(told["columns"])


def _end(cloud: Cloud, listing: Listing, kind: Kind, *, offer: Offer, request: Request) -> None:
    """Write down what buyers see, and say what is left to do by hand."""
    path = _file(listing, kind, offer.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(seen(request, columns_of(DECLARATION)), indent=1) + "\n")
    arn = (kind.find(cloud, offer.name) or {}).get(f"{kind.noun}Arn", "")
    click.echo(f"Published: {arn}\nWhat buyers see of it is in {path}: commit it.")
    click.echo("Next: name this ARN in the AWS Marketplace Management Portal, with what `python -m deploy publish kit` makes")


def _file(listing: Listing, kind: Kind, name: str) -> Path:
    return Path(listing.releases) / f"{kind.word}-{name}.json"
