"""What an accelerator's delegate library does when tried: in a child process, so that its crash is an outcome like others."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from contract.errors import NoDelegate

EDGE_TPU_OPERATOR = b"edgetpu-custom-op"
"""What the Edge TPU's compiler puts in the place of the operators it took."""
EDGE_TPU_LIBRARIES = {"Darwin": "libedgetpu.1.dylib", "Windows": "edgetpu.dll"}
NONE, AUTO = "none", "auto"
"""What stands for no delegate, and for the Edge TPU's where it can be used; anything else is a library."""
TIMEOUT_S = 30.0
"""What a delegate may take to find its device: the first time, it loads firmware into it."""
ROOT = Path(__file__).resolve().parent.parent


class Case(StrEnum):
    """What came of trying a delegate."""

    READY = "ready"
    NO_LIBRARY = "no_library"
    NOT_A_DELEGATE = "not_a_delegate"
    NO_DEVICE = "no_device"
    NO_DELEGATE = "no_delegate"
    REFUSED = "refused"
    CRASHED = "crashed"
    HUNG = "hung"
    NO_RUNTIME = "no_runtime"


@dataclass(frozen=True)
class Outcome:
    """What came of it, and why."""

    case: Case
    library: str
    model: str = ""
    said: str = ""
    """What the library or the loader said, on one line."""
    step: str = ""
    """What was being done when it ended."""

    @property
    def ready(self) -> bool:
        """Whether the library can be loaded here, in a process that wants it."""
        return self.case is Case.READY

    @property
    def explanation(self) -> str:
        """Two lines: what is missing, and what to do. Empty where nothing is."""
        if self.ready:
            return ""
        told = {"said": self.said or "nothing more", "source": _source(self.model), "runtime": _runtime()}
        facts = {"library": self.library, "model": self.model, "step": self.step, "edge_tpu": edge_tpu_library(), **told}
        return "\n".join(EXPLAIN[self.case]).format(**facts)


def edge_tpu_library() -> str:
    """Return the name under which the Edge TPU's delegate is installed on this system."""
    return EDGE_TPU_LIBRARIES.get(platform.system(), "libedgetpu.so.1")


def named_library(setting: str) -> str:
    """Return the library that a setting other than NONE names."""
    return edge_tpu_library() if setting == AUTO else setting


def drives_edge_tpu(library: str) -> bool:
    """Say whether a library is the Edge TPU's, by its name."""
    return "edgetpu" in Path(library).name


def is_compiled(model: Path) -> bool:
    """Say whether a .tflite file is compiled for the Edge TPU, and so runs with its delegate only."""
    return EDGE_TPU_OPERATOR in model.read_bytes()


def without_delegate(model: Path) -> Outcome:
    """Return the outcome of running a compiled model with no delegate."""
    return Outcome(Case.NO_DELEGATE, edge_tpu_library(), model.name)


def look_for(setting: str, model: Path) -> Outcome | None:
    """Return what comes of the delegate that a setting names, with a model; None of NONE.

    Raises:
        NoDelegate: a library was named, and can't be used.
    """
    if setting == NONE:
        return None
    outcome = try_delegate(named_library(setting), model)
    if not outcome.ready and setting != AUTO:
        raise NoDelegate(outcome.explanation, library=outcome.library)
    return outcome


def try_delegate(library: str, model: Path | None = None, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Return what comes of loading a delegate, and of giving it a model, in a process of its own.

    Args:
        library: a name that the loader looks for (`libedgetpu.so.1`), or a path.
        model: a whole .tflite file whose tensors are then allocated with it.
        timeout_s: when to give up.
    """
    place = str(Path(library).resolve()) if os.sep in library else library  # a relative path, seen from another folder
    command = [sys.executable, "-m", "contract.delegate", place, *([str(model.resolve())] if model else [])]
    name = model.name if model else ""
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as late:
        return Outcome(Case.HUNG, library, name, f"no answer in {timeout_s:g} s", _last(late.stdout)["step"])
    told = _last(done.stdout)
    if "case" not in told:
        return Outcome(Case.CRASHED, library, name, _death(done.returncode), told["step"])
    return Outcome(Case(told["case"]), library, name, told["said"], told["step"])


def _last(lines: bytes | None) -> dict[str, str]:
    return json.loads(lines.splitlines()[-1]) if lines else {"step": "Python was started"}


def _death(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


# The two lines of each case: what is missing, and what to do.

CPU = "or go without a delegate, on the CPU"
EXPLAIN = {
    Case.NO_LIBRARY: (
        "{library} can't be loaded: {said}.",
        f"Install it (for an Edge TPU: libedgetpu1-std of Google's package source, docs/coral.md), {CPU}.",
    ),
    Case.NOT_A_DELEGATE: (
        "{library} can be loaded, but is no delegate of TensorFlow Lite: {said}.",
        f"Name one, such as {{edge_tpu}}, {CPU}.",
    ),
    Case.NO_DEVICE: (
        "{library} is there, but finds no device that it can use: it says {said}.",
        "Plug it in, let this user have it (its udev rule, a container's --device /dev/bus/usb), end what else uses it, "
        f"{CPU}.",
    ),
    Case.NO_DELEGATE: (
        f"{{model}} is compiled for the Edge TPU: its {EDGE_TPU_OPERATOR.decode()} needs a delegate, and there is none.",
        "Load {library} as the delegate, or run {source}, on the CPU.",
    ),
    Case.REFUSED: (
        "{library} has its device, but doesn't take {model}: {said}.",
        f"Compile the model for this device and its runtime, {CPU}.",
    ),
    Case.CRASHED: (
        "{library} crashes ({said}, when {step}), as one does that was built for another TensorFlow Lite than {runtime}.",
        f"Install one that is built for it, {CPU}.",
    ),
    Case.HUNG: (
        "{library} hangs: {said}, when {step}.",
        f"Take the device out and plug it in again, {CPU}.",
    ),
    Case.NO_RUNTIME: (
        "{library} can't be tried: {said}.",
        "Install ai-edge-litert: `.ci/venv .venv edge`, and call .venv/bin/python.",
    ),
}


def _source(model: str) -> str:
    """Return what a compiled model was compiled from."""
    source = model.replace("_edgetpu", "")
    return f"{source}, which it was compiled from" if source != model else "the model that it was compiled from"


def _runtime() -> str:
    try:
        return f"ai-edge-litert {metadata.version('ai-edge-litert')}"
    except metadata.PackageNotFoundError:
        return "ai-edge-litert"


# The child process.


def main(library: str, model: str | None = None) -> None:
    """Load a delegate, give it a model, let go of both, and tell each step on standard output, a JSON object a line."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not come between

    def tell(step: str, **facts: str) -> None:
        print(json.dumps({"step": step, **facts}), file=out, flush=True)

    case, said = _try(library, model, tell)
    tell("it ended", case=case, said=" ".join(said.split()).rstrip("."))
    os._exit(0)  # whatever a half-loaded library would do now is not asked


def _try(library: str, model: str | None, tell: Callable[[str], None]) -> tuple[Case, str]:
    tell("it was loaded")
    try:
        symbols = ctypes.CDLL(library)  # before LiteRT's loader, which prints a traceback where it finds none
        symbols.tflite_plugin_create_delegate, symbols.tflite_plugin_destroy_delegate  # noqa: B018
    except OSError as error:
        return Case.NO_LIBRARY, str(error).removeprefix(f"{library}: ")
    except AttributeError as error:
        return Case.NOT_A_DELEGATE, str(error).removeprefix(f"{library}: ")
    try:
        litert = import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        return Case.NO_RUNTIME, str(error)
    tell("it looked for its device")
    try:
        delegate = litert.load_delegate(library)
    except ValueError as error:
        return Case.NO_DEVICE, str(error).partition("\n")[2]
    return _give(litert, delegate, model, tell) if model else (Case.READY, "")


def _give(litert: Any, delegate: Any, model: str, tell: Callable[[str], None]) -> tuple[Case, str]:
    tell("it was given the model")
    try:
        interpreter = litert.Interpreter(model_path=model, experimental_delegates=[delegate])
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        return Case.REFUSED, str(error)
    tell("it let go of its device")
    del interpreter, delegate
    return Case.READY, ""


if __name__ == "__main__":
    main(*sys.argv[1:])
