"""`python -m edge check MODEL.tflite`: will the Edge TPU's compiler take it? No interpreter, compiler or device is needed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from edge.checker.judge import Verdict, describe, judge
from edge.checker.vela import ask_vela
from edge.graph import read_graph

GOOD = (Verdict.FULL, Verdict.COMPILED)


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, each operator by itself.")
@click.option(
    "--vela",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Ask Arm's Vela too, where it is installed. Its opinion changes no verdict.",
)
def check(model: Path, *, as_json: bool, vela: str) -> None:
    """Judge MODEL.tflite operator by operator: FULL, PARTIAL, REJECTED or COMPILED, with reasons and cures.

    Exits with 0 for FULL and COMPILED, with 1 otherwise.
    """
    judgment = judge(read_graph(model))
    opinion = ask_vela(model) if vela == "auto" and judgment.verdict is not Verdict.COMPILED else None
    if as_json:
        second = opinion and {"npu": opinion.npu, "cpu": opinion.cpu, "reasons": opinion.reasons, "failure": opinion.failure}
        click.echo(json.dumps({"model": model.name, **judgment.to_json(), "vela": second}, indent=2))
    else:
        click.echo("\n".join([*describe(model.name, judgment), *(["", opinion.line] if opinion else [])]))
    sys.exit(0 if judgment.verdict in GOOD else 1)
