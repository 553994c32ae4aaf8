"""The word `export` of the command line: what it takes, in the terms of the function it calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
KINDS = ("onnx", "tflite", "coreml", "all")


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """Return a loss; click's own range takes nan."""
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"{value} isn't a finite number of at least 0.", context, parameter)
    return value


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--model", type=FOLDER, default=Path("build/ml/model"), show_default=True, help="The trained model's directory.")
@click.option("--out", type=FOLDER, help="Where to write; MODEL/edge unless given.")
@click.option(
    "--data", type=FOLDER, help="The training channel, a folder or a CSV file; MODEL/../input/data/training unless given."
)
@click.option(
    "--validation", type=FOLDER, help="The same of the validation channel, of a model that had one; `validation` beside it."
)
@click.option(
    "--student-loss",
    type=float,
    callback=_finite,
    default=0.05,
    show_default=True,
    help="How far below the model's the student's R2 or accuracy may be.",
)
@click.option(
    "--int8-loss",
    type=float,
    callback=_finite,
    default=0.02,
    show_default=True,
    help="How far below the student's the int8 file's may be.",
)
@click.option("--trust-joblib", is_flag=True, help="Compare ONNX with model.joblib too: loading it runs what is in it.")
def export(
    *,
    kinds: Sequence[str],
    model: Path,
    out: Path | None,
    data: Path | None,
    validation: Path | None,
    student_loss: float,
    int8_loss: float,
    trust_joblib: bool,
) -> None:
    """Write a trained model's files for devices, each read back and compared, and edge.json over them.

    Without KINDS what this machine has the libraries for is made, and what was left out is said; `all` insists.
    """
    from edge.export.export import EXPORTERS
    from edge.export.export import export as write
    from edge.export.tolerance import Tolerance

    write(
        model,
        out,
        tuple(EXPORTERS) if "all" in kinds else tuple(dict.fromkeys(kinds)),
        training=data,
        validation=validation,
        tolerance=Tolerance(student=student_loss, int8=int8_loss),
        trust_joblib=trust_joblib,
    )
