"""A model that is ready to run, with a delegate or on the CPU; what is missing for the former explains itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.delegate import AUTO, drives_edge_tpu, is_compiled
from contract.errors import BadArtifact
from edge.delegate import choose_delegate
from edge.libraries import library


@dataclass(frozen=True)
class Ready:
    """An interpreter whose tensors are allocated."""

    interpreter: Any
    place: str
    """Where it runs, in a sentence."""
    note: str = ""
    """What a person should know of the delegate that was looked for."""


def make_interpreter(model: Path, delegate: str = AUTO, threads: int = 1) -> Ready:
    """Return a model, ready to run.

    Args:
        model: a .tflite file.
        delegate: `none`; `auto`: the Edge TPU's where it can be loaded, else the CPU; or a delegate's library.
        threads: how many the CPU may use.

    Raises:
        NoDelegate: the library that was named can't be used, or the model is compiled and there is none.
        BadArtifact: LiteRT can't run the model.
    """
    litert = library("ai_edge_litert.interpreter")
    chosen, note = choose_delegate(model, delegate)
    try:
        delegates = [litert.load_delegate(chosen)] if chosen else []
        interpreter = litert.Interpreter(model_path=str(model), num_threads=threads, experimental_delegates=delegates)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BadArtifact(f"LiteRT can't run {model}: {' '.join(str(error).split())}", file=str(model)) from error
    return Ready(interpreter, f"Running with {chosen}." if chosen else "Running on the CPU.", note or _idle(model, chosen))


def _idle(model: Path, chosen: str | None) -> str:
    if chosen is None or not drives_edge_tpu(chosen) or is_compiled(model):
        return ""
    return f"{model.name} isn't compiled for the Edge TPU, so that all of it runs on the CPU: `python -m edge compile {model}`."
