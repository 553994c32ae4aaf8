"""`delete`: ends all of the project that runs and serves, after it has listed it; goes on where one thing fails."""

from __future__ import annotations

import click

from deploy.cloud import TAG, Cloud
from deploy.errors import AGAIN, DeployError, Failed, NotThere
from deploy.options import takes
from deploy.project.removal import Step, Wanted, plan
from deploy.settings import Account, Storage
from deploy.tables import table


@click.command()
@click.option("--models", is_flag=True, help="Also the registered models: all versions, and their group.")
@click.option("--images", is_flag=True, help="Also the ECR repository with all images.")
@click.option("--jobs", is_flag=True, help="Also the records of training and tuning jobs, where the models come from.")
@click.option("--data", is_flag=True, help="Also the project's folder in the bucket: data, models, answers.")
@click.option("--logs", is_flag=True, help="Also what endpoints and jobs have written.")
@takes(Account, Storage)
def delete(account: Account, storage: Storage, **wanted: bool) -> None:
    """Delete endpoints, their scaling, configurations, models and alarms; stop jobs that run.

    Only what carries the project's tag is touched. What is to go is listed first, with what it costs.
    """
    cloud = Cloud(account)
    steps, stays = plan(cloud, storage, Wanted(**wanted))
    if stays:
        click.echo("Stays:\n" + "\n".join(f"  {one}" for one in stays))
    if not steps:
        click.echo(f"Nothing is left to delete that carries the tag {TAG}={account.name} ({cloud.place}).")
        return
    click.echo(f"To be deleted, or stopped ({cloud.place}):")
    click.echo(table(("what", "status", "costs"), ((step.what, step.status, step.costs) for step in steps)))
    if not (account.yes or account.dry_run):
        click.confirm("Go on?", abort=True)
    left = _done(steps)
    if left:
        raise Failed("Left:\n" + "\n".join(f"  {one}" for one in left) + f"\n{AGAIN}")
    click.echo("Next: python -m deploy status")


def _done(steps: list[Step]) -> list[str]:
    """Take all steps, and return what is left and why; what it may use stays with what is left."""
    left: list[str] = []
    failed: set[str] = set()
    for step in steps:
        if not failed.isdisjoint({step.subject, *step.after}):
            left.append(f"{step.what}: kept, as what goes before it is still there")
            failed.add(step.subject)
            continue
        try:
            step.act()
        except NotThere:
            click.echo(f"{step.what} is gone already.")
        except DeployError as error:
            left.append(f"{step.what}: {error.message}")
            failed.add(step.subject)
    return left
