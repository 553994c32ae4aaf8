"""A model that is ready to run, with a delegate or on the CPU; what is missing for the former explains itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contract.delegate import Outcome, edge_tpu_library, is_compiled, try_delegate, without_delegate
from contract.errors import BadArtifact, NoDelegate
from edge.libraries import library

AUTO, NONE = "auto", "none"


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
    chosen, note = _choose(model, delegate)
    try:
        delegates = [litert.load_delegate(chosen)] if chosen else []
        interpreter = litert.Interpreter(model_path=str(model), num_threads=threads, experimental_delegates=delegates)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BadArtifact(f"LiteRT can't run {model}: {' '.join(str(error).split())}", file=str(model)) from error
    return Ready(interpreter, f"Running with {chosen}." if chosen else "Running on the CPU.", note or _idle(model, chosen))


def _choose(model: Path, delegate: str) -> tuple[str | None, str]:
    outcome = None if delegate == NONE else try_delegate(edge_tpu_library() if delegate == AUTO else delegate, model)
    if outcome and outcome.ready:
        return outcome.library, ""
    if outcome and delegate != AUTO:
        raise _none(outcome)
    if is_compiled(model):
        raise _none(*([outcome] if outcome else []), without_delegate(model))
    return None, outcome.explanation if outcome else ""


def _idle(model: Path, chosen: str | None) -> str:
    if chosen is None or "edgetpu" not in Path(chosen).name or is_compiled(model):
        return ""
    return f"{model.name} isn't compiled for the Edge TPU, so that all of it runs on the CPU: `python -m edge compile {model}`."


def _none(*outcomes: Outcome) -> NoDelegate:
    return NoDelegate("\n".join(outcome.explanation for outcome in outcomes), library=outcomes[0].library)
