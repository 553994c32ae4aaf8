"""`python -m edge classify -m MODEL -i IMAGE`: what an image shows, and how long each inference takes."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from contract.delegate import AUTO, NONE
from contract.errors import BadArtifact
from edge.classification.image import MODES, read_image
from edge.classification.interpreter import make_interpreter
from edge.classification.labels import labels_within, read_labels
from edge.classification.normalization import Normalization, read_normalization, to_input
from edge.graph import read_graph

SLOW = "Note: the first inference on an Edge TPU is slow, as the model is loaded into its memory then."


def _finite(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


@click.command()
@click.option("-m", "--model", type=click.Path(path_type=Path), required=True, help="A .tflite file.")
@click.option("-i", "--image", type=click.Path(path_type=Path), required=True, help="An image of any size and usual format.")
@click.option(
    "-l", "--labels", type=click.Path(path_type=Path), help="Labels, one a line, each with its number in front or not."
)
@click.option("-k", "--top", type=click.IntRange(min=1), default=1, show_default=True, help="How many labels to print.")
@click.option("-c", "--count", type=click.IntRange(min=1), default=5, show_default=True, help="How often to run it.")
@click.option("--delegate", metavar=f"LIB|{NONE}|{AUTO}", default=AUTO, show_default=True, help="The accelerator's library.")
@click.option("--mean", type=float, callback=_finite, help="With --std: what the model wants is (pixel - mean) / std.")
@click.option(
    "--std",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    help="Without them: as the model's metadata says, else 127.5.",
)
def classify(
    *,
    model: Path,
    image: Path,
    labels: Path | None,
    top: int,
    count: int,
    delegate: str,
    mean: float | None,
    std: float | None,
) -> None:
    """Say what an image shows, with the Edge TPU where there is one.

    An 8-bit model gets the pixels as they are, unless its metadata or --mean and --std say otherwise.
    """
    if (mean is None) != (std is None):
        raise click.UsageError("--mean and --std go together.")
    graph = read_graph(model)
    ready = make_interpreter(model, delegate)
    for line in filter(None, [ready.note, ready.place]):
        click.echo(line, err=True)
    asked = None if mean is None or std is None else Normalization((mean,), (std,))
    interpreter, outputs = ready.interpreter, _outputs(model, ready.interpreter)
    names = read_labels(labels, outputs) if labels else labels_within(model, outputs)
    _give(model, interpreter, image, asked or read_normalization(graph.metadata))
    click.echo("----INFERENCE TIME----\n" + SLOW)
    for _ in range(count):
        click.echo(f"{_invoke_ms(interpreter):.1f}ms")
    click.echo("-------RESULTS--------")
    scores = _scores(interpreter)
    for number in np.argsort(-scores, kind="stable")[:top]:
        click.echo(f"{names[number] if names else number}: {scores[number]:.5f}")


def _outputs(model: Path, interpreter: Any) -> int:
    shapes = [tuple(int(size) for size in output["shape"]) for output in interpreter.get_output_details()]
    if len(shapes) == 1 and shapes[0] and math.prod(shapes[0]) == shapes[0][-1]:
        return shapes[0][-1]
    found = ", ".join(str(list(shape)) for shape in shapes)
    raise BadArtifact(f"{model} is no classifier: its outputs are {found}; one of [1, classes] is needed.", file=str(model))


def _give(model: Path, interpreter: Any, image: Path, wanted: Normalization | None) -> None:
    inputs = interpreter.get_input_details()
    shapes = [[int(size) for size in each["shape"]] for each in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][0] != 1 or shapes[0][3] not in MODES:
        found = ", ".join(map(str, shapes))
        raise BadArtifact(
            f"{model} takes no image: its inputs are {found}; one of [1, height, width, 1 or 3] is needed.", file=str(model)
        )
    _, height, width, channels = shapes[0]
    interpreter.set_tensor(inputs[0]["index"], to_input(read_image(image, width, height, channels), inputs[0], wanted))


def _invoke_ms(interpreter: Any) -> float:
    began = time.perf_counter()
    interpreter.invoke()
    return (time.perf_counter() - began) * 1000


def _scores(interpreter: Any) -> npt.NDArray[np.float64]:
    output = interpreter.get_output_details()[0]
    found = (
        interpreter.get_tensor(output["index"]).reshape(-1).astype(np.float64)
    )  # before the zero point, which 8 bits lack room for
    scale, zero_point = output["quantization"]
    return (found - zero_point) * scale if scale else found
