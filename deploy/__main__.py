"""`python -m deploy VERB`: the command line, and the table of its verbs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deploy.endpoints.asynchronous import asynchronous
from deploy.endpoints.endpoint import endpoint
from deploy.endpoints.invoke import invoke
from deploy.endpoints.rollback import rollback
from deploy.endpoints.scaling import autoscale
from deploy.errors import BadSettings
from deploy.images.push import push
from deploy.jobs.approve import approve
from deploy.jobs.batch import batch
from deploy.jobs.train import train
from deploy.jobs.tune import tune
from deploy.market.publish import publish
from deploy.options import FILE, defaults_of, rows_of_settings
from deploy.preflight.preflight import preflight
from deploy.project.delete import delete
from deploy.project.logs import logs
from deploy.project.status import status
from deploy.supply.fresh import fresh
from deploy.supply.scan import scan

HEAD = ("table", "setting", "variable", "default", "meaning")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 128})
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="BERTH_SETTINGS",
    help=f"Settings file; without one, {FILE} where that is there.",
)
@click.pass_context
def main(context: click.Context, settings_file: Path | None) -> None:
    """From an image to a registry, an endpoint, batch jobs and back.

    Every verb can be run again after any failure: it looks at what is there and carries on. docs/deploy.md has all settings.
    """
    context.default_map = defaults_of(main, settings_file)


@click.command()
@click.option("--write", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Put it between this page's marks.")
def settings(write: Path | None) -> None:
    """Print all settings as Markdown: docs/deploy.md's table."""
    table = "".join(f"| {' | '.join(row)} |\n" for row in (HEAD, ["---"] * len(HEAD), *rows_of_settings()))
    if write is None:
        click.echo(table, nl=False)
        return
    before, mark, rest = write.read_text().partition("<!-- settings -->\n")
    _, end, after = rest.partition("<!-- end of settings -->")
    if not (mark and end):
        raise BadSettings(f"{write} has no <!-- settings --> and <!-- end of settings --> to put the table between.")
    write.write_text(before + mark + table + end + after)


VERBS: tuple[click.Command, ...] = (
    preflight,
    scan,
    push,
    train,
    tune,
    approve,
    endpoint,
    rollback,
    autoscale,
    invoke,
    asynchronous,
    batch,
    publish,
    status,
    logs,
    delete,
    fresh,
    settings,
)

for verb in VERBS:
    main.add_command(verb)

if __name__ == "__main__":
    try:
        main(standalone_mode=False)
    except click.exceptions.Abort:
        print("\nStopped. What AWS has begun goes on; run the same command again to carry on.", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
