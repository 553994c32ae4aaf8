"""The word `predict` of the command line: the runner's, with this project's errors."""

from __future__ import annotations

from pathlib import Path

import click

from contract.errors import BadData


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--row", help="Values in the features' order, or NAME=VALUE, with commas between.")
@click.option("--csv", "table", type=click.Path(path_type=Path), help="A file of rows, with a header or without.")
@click.option("--delegate", help="An accelerator's library, such as libedgetpu.so.1.")
def predict(model: Path, row: str | None, table: Path | None, delegate: str | None) -> None:
    """Ask a .tflite MODEL that `export` wrote: a line an answer, and the time that a row took on stderr."""
    from edge import runner
    from edge.libraries import library

    library("ai_edge_litert.interpreter")
    try:
        runner.run(model, row, table, delegate)
    except runner.Refused as error:
        raise BadData(str(error), file=str(model)) from error
