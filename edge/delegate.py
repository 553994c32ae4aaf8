"""Which delegate a model runs with: the one that was asked for, or none; what is missing for it explains itself."""

from __future__ import annotations

from pathlib import Path

import click

from contract.delegate import AUTO, NONE, edge_tpu_library, is_compiled, look_for, without_delegate
from contract.errors import NoDelegate


def choose_delegate(model: Path, delegate: str) -> tuple[str | None, str]:
    """Return the library to load, None for the CPU, and what a person should know of one that was looked for in vain.

    Args:
        model: a whole .tflite file, with which the library is tried, in a child process.
        delegate: `none`; `auto`: the Edge TPU's where it can be loaded, else the CPU; or a delegate's library.

    Raises:
        NoDelegate: the library that was named can't be used, or the model is compiled and there is none.
    """
    if not delegate.strip():
        raise click.UsageError(f"--delegate is empty: name a library, such as {edge_tpu_library()}, or give {NONE} or {AUTO}.")
    outcome = look_for(delegate, model)
    if outcome and outcome.ready:
        return outcome.library, ""
    if is_compiled(model):
        missing = [*([outcome] if outcome else []), without_delegate(model)]
        raise NoDelegate("\n".join(each.explanation for each in missing), library=missing[0].library)
    return None, outcome.explanation if outcome else ""
