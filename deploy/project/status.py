"""`status`: everything of the project, what it does and what it costs; what may not be read is said, and the rest is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from deploy.cloud import Cloud
from deploy.errors import DeployError, Failed, NotThere
from deploy.options import takes
from deploy.project.inventory import Thing, inventory
from deploy.project.state import JOBS, Facts, endpoint_state, image_states, job_states, package_states
from deploy.settings import Account
from deploy.tables import table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@takes(Account)
def status(account: Account, as_json: bool) -> None:
    """Show all that carries the project's tag: what it does, which image it runs, what it costs an hour."""
    cloud = Cloud(account)
    seen = look(cloud)
    click.echo(json.dumps(seen, indent=2) if as_json else "\n\n".join(_sections(seen)))
    if seen["unread"]:
        raise Failed("Not all could be read:\n" + "\n".join(seen["unread"]))
    if not as_json:
        click.echo(f"\nNext: python -m deploy {_next(seen)}")


def look(cloud: Cloud) -> Facts:
    """Return all that is known of the project, as JSON types; `unread` says what AWS refused to tell."""
    things, unread = inventory(cloud), []

    def told(ask: Callable[[], Iterable[Facts]]) -> list[Facts]:
        try:
            return list(ask())
        except NotThere:  # it was deleted meanwhile
            return []
        except DeployError as error:
            unread.append(error.message)
            return []

    def of_kind(kind: str) -> list[Thing]:
        return [thing for thing in things if thing.kind == kind]

    shown = {"endpoint", "scalable-target", "model-package-group", "repository", "alarm", *JOBS}
    return {
        "project": cloud.account.name,
        "region": cloud.region,
        "account": cloud.account_id,
        "endpoints": [one for thing in of_kind("endpoint") for one in told(partial(_one, endpoint_state, cloud, thing))],
        "jobs": told(partial(job_states, cloud, things)),
        "packages": [one for thing in of_kind("model-package-group") for one in told(partial(package_states, cloud, thing))],
        "images": [one for thing in of_kind("repository") for one in told(partial(image_states, cloud, thing))],
        "alarms": [{"name": thing.name, "state": thing.status} for thing in of_kind("alarm")],
        "others": [
            {"kind": thing.kind, "name": thing.name, "stack": thing.stack} for thing in things if thing.kind not in shown
        ],
        "unread": unread,
    }


def _one(ask: Callable[[Cloud, Thing], Facts], cloud: Cloud, thing: Thing) -> list[Facts]:
    return [ask(cloud, thing)]


def costs(seen: Facts) -> str:
    """Return what all of it costs an hour now, for people: what is known, and how much is not."""
    priced = [one for endpoint in seen["endpoints"] for one in endpoint["variants"]] + seen["jobs"]
    running = [one for one in priced if "hourly" in one]
    known = [one for one in running if one["hourly"] is not None]
    parts = [
        f"{sum(one['hourly'] for one in known if one['currency'] == currency):.6g} {currency} an hour"
        for currency in sorted({one["currency"] for one in known})
    ]
    if len(known) < len(running):
        parts.append(f"price unknown of {len(running) - len(known)}")
    sources = sorted({one["price"] for one in running})
    return " and ".join(parts or ["nothing an hour"]) + (f" ({'; '.join(sources)})" if sources else "")


def _sections(seen: Facts) -> Iterable[str]:
    yield f"Project {seen['project']} in {seen['region']}, account {seen['account']}: costs {costs(seen)}"
    for endpoint in seen["endpoints"]:
        yield "\n".join(_endpoint(endpoint))
    for title, heads, rows in (
        ("Jobs", ("kind", "name", "status", "begun", "costs"), seen["jobs"]),
        ("Model packages", ("group", "version", "approval", "status", "made"), seen["packages"]),
        ("Images", ("repository", "tags", "digest", "size_mb", "pushed", "findings"), seen["images"]),
        ("Alarms", ("name", "state"), seen["alarms"]),
        ("Others", ("kind", "name", "stack"), seen["others"]),
    ):
        if rows:
            yield f"{title}\n{table(heads, ([_cell(row.get(head, '')) for head in heads] for row in rows))}"


def _endpoint(endpoint: Facts) -> Iterable[str]:
    yield f"Endpoint {endpoint['name']}: {endpoint['status']} since {endpoint['changed']}, configuration {endpoint['config']}"
    if endpoint["reason"]:
        yield f"  {endpoint['reason']}"
    if endpoint["update"]:
        doing = "; ".join(f"{one['name']} {one['doing']} {_of(one)}" for one in endpoint["update"]["variants"])
        yield f"  is updated to {endpoint['update']['config']} since {endpoint['update']['since']}: {doing}"
    rows = [
        (
            one["name"] + (" (shadow)" if one["shadow"] else ""),
            _size(one),
            _cell(one["weight"]),
            one["costs"],
            _cell(one["images"]),
        )
        for one in endpoint["variants"]
    ]
    if rows:
        yield table(("variant", "size", "weight", "costs", "image"), rows)
    for one in endpoint["variants"]:
        for activity in one.get("activities", []):
            yield f"  {activity['at']} {one['name']}: {activity['what']} {activity['status']}. {activity['why']}".rstrip()
    if endpoint["alarms"]:
        yield "  turned back by: " + ", ".join(f"{name} ({state})" for name, state in endpoint["alarms"].items())


def _size(variant: Facts) -> str:
    if "memory_mb" in variant:
        return f"serverless, {variant['memory_mb']} MB, {variant['concurrency']} at a time"
    scales = variant["scales"]
    return f"{_of(variant)} {variant['instance_type']}" + (f", scales {scales[0]} to {scales[1]}" if scales else "")


def _of(variant: Facts) -> str:
    return str(variant["count"]) if variant["count"] == variant["wanted"] else f"{variant['count']} of {variant['wanted']}"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _next(seen: Facts) -> str:
    """Return the next command of a first deployment."""
    if any(one["status"] == "Failed" for one in seen["endpoints"]):
        return "logs"
    if seen["endpoints"]:
        return "async" if all(one["is_async"] for one in seen["endpoints"]) else "invoke"
    if any(one["kind"] == "training" and one["status"] == "Completed" for one in seen["jobs"]):
        return "endpoint"
    return "train" if seen["images"] else "push"
