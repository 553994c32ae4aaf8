"""`python -m edge VERB`: the command line, and the table of its verbs."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

import click

from contract.errors import BerthError
from edge.checker.check import check
from edge.classification.classify import classify
from edge.compiler.command import compile_model
from edge.export.command import export
from edge.photos.command import photos
from edge.predict import predict

VERBS: tuple[click.Command, ...] = (
    export,
    predict,
    check,
    classify,
    compile_model,
    photos,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 128})
def main() -> None:
    """Make the trained model for small devices, judge what their compilers take, and run it."""


for verb in VERBS:
    main.add_command(verb)


def run(words: Sequence[str] | None = None) -> None:
    """Run a verb, by default as the command line says, and exit; what it had begun to write is gone where it is stopped."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main(words, prog_name="python -m edge", standalone_mode=False))
    except BerthError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("Stopped; nothing half-written is left.", file=sys.stderr)  # click has begun a new line
        sys.exit(130)


if __name__ == "__main__":
    run()
