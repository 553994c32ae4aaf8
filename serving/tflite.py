"""PREDICTOR=tflite: the int8 model that `export` left in edge/, on the CPU or on an accelerator that a delegate drives.

An interpreter is of one thread and of one process: each thread makes its own with its first rows, and none outlives a fork,
since a device is held by one process at a time.
"""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from threading import Lock, local
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from contract.delegate import NONE, drives_edge_tpu, look_for, named_library
from contract.edge import COMPILED, FOLDER, INT8, Column, EdgeManifest, Preprocessing, read_edge_manifest
from contract.errors import DamagedModel, MissingLibrary
from contract.manifest import Manifest
from serving.cells import Matrix
from serving.predictor import Predictions
from serving.schema import Schema

AT_ONCE = 1_024
"""Rows of one inference on the CPU: 1,000 took 0.2 ms so, and 1.5 ms one after another, with the same answers."""
ACCELERATORS_STEPS = 8
"""How many times `bound` an accelerator may be off, which rounds in its own way: TensorFlow Lite's own optimized kernels were
up to 6 steps off exact arithmetic, on random inputs."""
FIGURES = ("r2", "mae", "accuracy", "log_loss")
"""Of an artifact, on the rows that were held out from training."""

log = logging.getLogger("gunicorn.error")


class TflitePredictor:
    """Serves edge/student_int8.tflite, or what the Edge TPU's compiler made of it where its delegate is there."""

    def __init__(self, folder: Path, manifest: Manifest, delegate: str = NONE) -> None:
        """Read and check what `export` left, and try the delegate.

        Raises:
            MissingLibrary: this is not the image's edge target.
            DamagedModel: edge/ is missing, was changed, or is of another model.
            NoDelegate: the library that was named doesn't run the model.
        """
        self._litert = _runtime()
        edge = read_edge_manifest(folder / FOLDER, manifest)
        self.schema = Schema(manifest.declaration.features)
        self._preprocessing = _preprocessing(folder / FOLDER, edge)
        self._encoder, self._scales = Encoder(self._preprocessing), edge.quantization
        self._model, self._library = _choose(folder / FOLDER, edge, delegate)
        self.manifest = _as_served(manifest, edge, self._model, ACCELERATORS_STEPS if self._library else 1)
        self.let_go()
        _ALIVE.add(self)

    def predict(self, matrix: Matrix) -> Predictions:
        """Return the predictions of the rows."""
        runner: Runner = getattr(self._own, "runner", None) or self._make_runner()
        outputs = runner.run(self._encoder.encode(matrix))
        if not self.manifest.labels:
            values = self._preprocessing.mean + self._preprocessing.deviation * outputs[:, 0]
            return Predictions(values.astype(np.float32))
        probabilities = softmax(outputs).astype(np.float32)
        labels = np.array(self.manifest.labels, dtype=object)
        return Predictions(labels[probabilities.argmax(axis=1)], probabilities, self.manifest.labels)

    def let_go(self) -> None:
        """Drop the interpreters, and with them the device; the next rows make new ones."""
        self._own, self._delegate = local(), None
        self._turn: AbstractContextManager[Any] = Lock() if self._library else nullcontext()

    def _make_runner(self) -> Runner:
        with self._turn:
            if self._library and self._delegate is None:
                self._delegate = self._litert.load_delegate(self._library)
            # Reference kernels, as in the runner: plain arithmetic of integers, the same on every processor.
            kernels = self._litert.OpResolverType
            options = {
                "experimental_delegates": [self._delegate] if self._delegate else [],
                "experimental_op_resolver_type": kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                if self._delegate
                else kernels.BUILTIN_REF,
            }
            interpreter = self._litert.Interpreter(str(self._model), num_threads=1, **options)
            interpreter.allocate_tensors()
        self._own.runner = Runner(interpreter, self._scales, self._turn, 1 if self._library else AT_ONCE)
        return self._own.runner


_ALIVE: WeakSet[TflitePredictor] = WeakSet()


def _let_go_of_all() -> None:
    for predictor in list(_ALIVE):
        predictor.let_go()


os.register_at_fork(before=_let_go_of_all)


class Runner:
    """One thread's interpreter: on the CPU of as many rows at once as there are, with a delegate of one after another."""

    def __init__(self, interpreter: Any, scales: Any, turn: AbstractContextManager[Any], most_rows: int) -> None:
        self._interpreter, self._turn, self._most_rows, self._rows = interpreter, turn, most_rows, 1
        (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
        self._input, self._output, self._width = given["index"], answered["index"], int(answered["shape"][-1])
        limits, self._dtype = np.iinfo(given["dtype"]), given["dtype"]
        self._least, self._most = float(limits.min), float(limits.max)
        self._in, self._out = scales["input"], scales["output"]

    def run(self, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the outputs (n_rows, n_outputs) of inputs (n_rows, n_inputs), both as numbers and not as their integers."""
        numbers = inputs / self._in["scale"]
        numbers += self._in["zero_point"]
        np.rint(numbers, out=numbers)
        np.maximum(numbers, self._least, out=numbers)
        integers = np.minimum(numbers, self._most, out=numbers).astype(self._dtype)
        answers = np.empty((len(inputs), self._width), dtype=np.float64)  # wider than int8, from which a zero point overflows
        for start in range(0, len(integers), self._most_rows):
            some = slice(start, start + self._most_rows)
            answers[some] = self._ask(integers[some])
        return (answers - self._out["zero_point"]) * self._out["scale"]

    def _ask(self, rows: NDArray[Any]) -> NDArray[Any]:
        with self._turn:
            if len(rows) != self._rows:
                self._interpreter.resize_tensor_input(self._input, rows.shape)
                self._interpreter.allocate_tensors()
                self._rows = len(rows)
            self._interpreter.set_tensor(self._input, rows)
            self._interpreter.invoke()
            answers: NDArray[Any] = self._interpreter.get_tensor(self._output)
            return answers


class Encoder:
    """Rows of the server's matrix as the student's inputs: `Preprocessing.encode` for many rows at once."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        numbers = [(at, column) for at, column in enumerate(preprocessing.features) if column.kind == "number"]
        self._categories = [(at, column) for at, column in enumerate(preprocessing.features) if column.kind == "category"]
        self._numbers: Any = [at for at, _ in numbers] if self._categories else slice(None)
        self._nullable = [at for at, column in numbers if column.nullable]
        self._fill = np.array([column.fill for _, column in numbers])
        # A number that never varied says nothing: divided by infinity it is always 0.
        scaling = [(one.low, one.high, one.high - one.low) if one.high > one.low else (0, 0, np.inf) for _, one in numbers]
        self._low, self._high, self._span = np.array(scaling, dtype=np.float64).reshape(-1, 3).T.copy()

    def encode(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return (n_rows, n_inputs)."""
        numbers = matrix[:, self._numbers].astype(np.float64)
        if self._nullable:
            numbers = np.where(np.isnan(numbers), self._fill, numbers)
        numbers *= 2
        numbers -= self._low
        numbers -= self._high
        numbers /= self._span
        np.maximum(numbers, -1.0, out=numbers)
        np.minimum(numbers, 1.0, out=numbers)
        missing = [np.isnan(matrix[:, self._nullable]).astype(np.float64)] if self._nullable else []
        chosen = [_slots(matrix[:, at], column) for at, column in self._categories]
        return np.hstack([numbers, *missing, *chosen]) if missing or chosen else numbers


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _slots(indexes: NDArray[np.float32], column: Column) -> NDArray[np.float64]:
    chosen = np.where(np.isnan(indexes), len(column.choices), indexes)
    return (chosen[:, np.newaxis] == np.arange(column.slots)).astype(np.float64)


def _runtime() -> Any:
    try:
        return import_module("ai_edge_litert.interpreter")
    except ModuleNotFoundError as error:
        raise MissingLibrary(
            "PREDICTOR is tflite, which needs ai-edge-litert: the image's edge target has it (`make image TARGET=edge`), and "
            "`.ci/venv .venv edge` installs it. Or unset PREDICTOR.",
            library="ai_edge_litert",
        ) from error


def _choose(folder: Path, edge: EdgeManifest, setting: str) -> tuple[Path, str]:
    """Return the model to run and the delegate's library, empty without one.

    Raises:
        NoDelegate: a library was named that doesn't run it.
    """
    is_compiled = COMPILED in edge.artifacts and drives_edge_tpu(named_library(setting))
    model = folder / (COMPILED if is_compiled else INT8)
    outcome = look_for(setting, model)
    if outcome is None:
        return model, ""
    if outcome.ready:
        return model, outcome.library
    log.warning("%s\nTFLITE_DELEGATE is auto: %s is served on the CPU.", outcome.explanation, INT8)
    return folder / INT8, ""


def _preprocessing(folder: Path, edge: EdgeManifest) -> Preprocessing:
    """Return how a row becomes the int8 file's input; raises DamagedModel where there is no such file."""
    if INT8 not in edge.artifacts or edge.preprocessing is None:
        why = edge.left_out.get("tflite", "it was not asked for")
        raise DamagedModel(f"{folder} has no {INT8}: {why}. Export again, with `tflite`.", file=INT8)
    return edge.preprocessing


def _as_served(manifest: Manifest, edge: EdgeManifest, model: Path, steps: int) -> Manifest:
    """Return the model's manifest as it holds for what is served: other answers to the samples, other metrics, no intervals.

    Half a width was calibrated on the residuals of the teacher, and says nothing of the student's.
    """
    served, figures = f"{FOLDER}/{model.name}", edge.artifacts[INT8]
    return replace(
        manifest,
        samples=edge.samples,
        metrics={f"validation:{name}": figures[name] for name in FIGURES if name in figures},
        parity={**manifest.parity, "tolerance": steps * edge.bound, "file": served},
        origin={**manifest.origin, "served": served},
        intervals=None,
        confidence={},
    )
