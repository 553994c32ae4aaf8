"""The word `predict` of the command line: the runner's, with this project's errors, and a delegate tried beforehand."""

from __future__ import annotations

from pathlib import Path

import click

from contract.delegate import AUTO, NONE
from contract.errors import BadData
from edge.delegate import choose_delegate


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--row", help="Values in the features' order, or NAME=VALUE, with commas between.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="A file of rows, with a header or without.")
@click.option("--delegate", metavar=f"LIB|{NONE}|{AUTO}", default=NONE, show_default=True, help="The accelerator's library.")
def predict(model: Path, row: str | None, table: Path | None, delegate: str) -> None:
    """Ask a .tflite MODEL that `export` wrote: a line an answer, and the time that a row took on stderr."""
    from edge import runner
    from edge.libraries import library

    asked = table if row is None else row
    if asked is None or (row is not None and table is not None):
        raise click.UsageError("Give either --row VALUES or --csv FILE.")
    library("ai_edge_litert.interpreter")
    try:
        runner.preprocessing_in(runner.content_of(model), model)  # what is wrong with the file comes before the delegate
        chosen, note = choose_delegate(model, delegate)
        if note:
            click.echo(f"{note}\nRunning on the CPU.", err=True)
        runner.run(model, asked, chosen)
    except runner.Refused as error:
        raise BadData(str(error), file=str(model)) from error
