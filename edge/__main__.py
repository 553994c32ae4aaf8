"""`python -m edge VERB`: the command line, and the table of its verbs."""

from __future__ import annotations

import sys

import click

from contract.errors import BerthError
from edge import command
from edge.check import check
from edge.classify import classify
from edge.compiler.command import compile_model

VERBS: tuple[click.Command, ...] = (
    command.export,
    command.predict,
    check,
    classify,
    compile_model,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 128})
def main() -> None:
    """Make the trained model for small devices, judge what their compilers take, and run it."""


for verb in VERBS:
    main.add_command(verb)

if __name__ == "__main__":
    try:
        main()
    except BerthError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("\nStopped; nothing half-written is left.", file=sys.stderr)
        sys.exit(130)
