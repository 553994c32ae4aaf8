"""`python -m deploy VERB`: the command line, and the table of its verbs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from deploy.options import FILE, defaults_of, rows_of_settings


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
def settings() -> None:
    """Print all settings as Markdown: docs/deploy.md's table."""
    click.echo("| table | setting | variable | default | meaning |\n|---|---|---|---|---|")
    for section, name, variable, default, meaning in rows_of_settings():
        click.echo(f"| {section} | {name} | {variable} | {default} | {meaning} |")


VERBS: tuple[click.Command, ...] = (settings,)

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
