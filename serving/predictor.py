"""The loaded model: one float32 matrix in, predictions out. Nothing is unpickled unless PREDICTOR=sklearn asks for it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: its thread aborts forked workers when they exit

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contract.edge import FOLDER, INT8
from contract.errors import DamagedModel
from contract.manifest import JOBLIB, MANIFEST, ONNX, Manifest, read_manifest
from serving.cells import Matrix
from serving.schema import Schema


@dataclass(slots=True)
class Predictions:
    """The answers to N rows."""

    values: NDArray[Any]
    """(N,) float32, or labels as text objects."""
    probabilities: NDArray[np.float32] | None = None
    """(N, C) where the target is a class, in the order of `labels`."""
    labels: Sequence[str] = ()
    half_width: float | None = None
    """Where intervals were asked for: how far low and high lie from each value."""

    def bounds(self) -> NDArray[np.float32]:
        """Return each value with its interval, (N, 3) float32: prediction, low, high."""
        exact, half_width = self.values.astype(np.float64), self.half_width or 0.0
        with np.errstate(over="ignore"):
            return np.column_stack([exact, exact - half_width, exact + half_width]).astype(np.float32)


class Predictor(Protocol):
    """What serves a model."""

    manifest: Manifest
    schema: Schema

    def predict(self, matrix: Matrix) -> Predictions:
        """Return the predictions of (n_rows, n_features) float32; threads may call it at once."""


def load_predictor(folder: Path, kind: str = "onnx", delegate: str = "none") -> Predictor:
    """Return the model of a directory, after its files were checked and it has answered its stored samples right.

    Args:
        folder: the model directory.
        kind: one of PREDICTORS, or `tflite`.
        delegate: as TFLITE_DELEGATE says, where it is `tflite`.

    Raises:
        DamagedModel: a file is missing, was changed, can't be loaded, or gives other answers than at training.
        MissingLibrary: this image can't run a model for devices.
        NoDelegate: nor can the library that was named.
    """
    manifest = read_manifest(folder)
    predictor = load_tflite(folder, manifest, delegate) if kind == TFLITE else PREDICTORS[kind](folder, manifest)
    self_test(predictor)
    half_width_of(manifest)
    return predictor


def load_tflite(folder: Path, manifest: Manifest, delegate: str) -> Predictor:
    """Return the model for devices, whose reader is imported where it is asked for; raises as `load_predictor`."""
    from serving.tflite import TflitePredictor

    return TflitePredictor(folder, manifest, delegate)


def half_width_of(manifest: Manifest) -> float | None:
    """Return how far a prediction's interval reaches to each side, None where the model has none.

    Raises:
        DamagedModel: the manifest says it in another way.
    """
    if manifest.intervals is None:
        return None
    try:
        half_width, level = float(manifest.intervals["half_width"]), float(manifest.intervals["level"])
        is_usable = not manifest.labels and 0 <= half_width < math.inf and 0 < level < 1
    except (TypeError, KeyError, ValueError):
        is_usable = False
    if not is_usable:
        raise DamagedModel(f"intervals of {MANIFEST} is not what `train` writes. Train again.", file=MANIFEST)
    return half_width


def self_test(predictor: Predictor) -> None:
    """Predict the manifest's sample rows, together and one alone, and compare with the answers of the day of training.

    Raises:
        DamagedModel: an answer differs by more than ten times the parity bound, or than what was stated of another file.
    """
    samples = predictor.manifest.samples
    for some in (samples, samples[:1]):
        _compare(predictor, some)


def _compare(predictor: Predictor, samples: Sequence[Any]) -> None:
    answers = predictor.predict(predictor.schema.from_records([sample["row"] for sample in samples]))
    parity = predictor.manifest.parity
    bound = float(parity.get("tolerance", 10 * parity.get("bound", 1e-6)))
    for row, sample in enumerate(samples):
        expected, found = _sample_numbers(sample["prediction"], answers, row)
        if not np.allclose(found, expected, rtol=1e-6, atol=bound):
            raise DamagedModel(
                f"Sample {row + 1} of {MANIFEST} is predicted as {found} where training had {expected}.",
                file=parity.get("file", ONNX),
            )


def _sample_numbers(expected: Any, answers: Predictions, row: int) -> tuple[list[float], list[float]]:
    if answers.probabilities is None:
        return [float(expected)], [float(answers.values[row])]
    return [expected["probabilities"][label] for label in answers.labels], answers.probabilities[row].tolist()


class OnnxPredictor:
    """Serves model.onnx on one thread a call, so that it may be made before a fork."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        if ONNX not in manifest.files:
            raise DamagedModel(
                f"{folder} has no {ONNX}: the model was trained with allow_sklearn=true. Set PREDICTOR=sklearn to serve "
                f"{JOBLIB}, which means to trust its author: loading it runs what is in it.",
                file=ONNX,
            )
        self.manifest = manifest
        self.schema = Schema(manifest.declaration.features)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(folder / ONNX, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds derive from Exception alone
            raise DamagedModel(f"{folder / ONNX} can't be loaded: {error}.", file=ONNX) from error
        outputs = session.get_outputs()
        self._run, self._names = session.run, [output.name for output in outputs]
        is_number = outputs[0].type == "tensor(float)" and outputs[0].shape[1:] == [1] and not manifest.labels
        self._one_row = OneRow(session, self._names[0], len(self.schema.names)) if is_number else None

    def predict(self, matrix: Matrix) -> Predictions:
        """Return the predictions of the rows."""
        if len(matrix) == 1 and self._one_row is not None and (values := self._one_row.predict(matrix)) is not None:
            return Predictions(values)
        outputs = self._run(self._names, {"features": matrix})
        if not self.manifest.labels:
            return Predictions(outputs[0].reshape(-1))
        return Predictions(outputs[0], outputs[1], self.manifest.labels)


class OneRow:
    """A session with an input and an output of one row bound to it: a quarter of a row's time went into making them anew."""

    def __init__(self, session: Any, output: str, n_features: int) -> None:
        self._input = np.zeros((1, n_features), dtype=np.float32)
        self._output = np.zeros((1, 1), dtype=np.float32)
        self._run, self._binding = session.run_with_iobinding, session.io_binding()
        self._binding.bind_input("features", "cpu", 0, np.float32, self._input.shape, self._input.ctypes.data)
        self._binding.bind_output(output, "cpu", 0, np.float32, self._output.shape, self._output.ctypes.data)
        self._lock = Lock()

    def predict(self, row: Matrix) -> NDArray[np.float32] | None:
        """Return the prediction of (1, n_features), shape (1,); None while another thread asks."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            self._input[:] = row
            self._run(self._binding)
            return self._output[0].copy()
        finally:
            self._lock.release()


class SklearnPredictor:
    """Serves model.joblib; loading a pickle runs its code, so only a trusted author's will do."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import joblib

        self.manifest = manifest
        self.schema = Schema(manifest.declaration.features)
        try:
            self._model = joblib.load(folder / JOBLIB)
            threads = [name for name in self._model.get_params() if name.endswith("__n_jobs")]
            self._model.set_params(**dict.fromkeys(threads, 1))  # a forest would spread one row over every CPU
        except Exception as error:  # unpickling may raise anything
            raise DamagedModel(f"{folder / JOBLIB} can't be loaded: {error!r}.", file=JOBLIB) from error

    def predict(self, matrix: Matrix) -> Predictions:
        """Return the predictions of the rows."""
        values = self._model.predict(matrix)
        if not self.manifest.labels:
            return Predictions(np.asarray(values, dtype=np.float32).reshape(-1))
        return Predictions(values, self._model.predict_proba(matrix).astype(np.float32), self.manifest.labels)


TFLITE = "tflite"
FILES = {"onnx": ONNX, "sklearn": JOBLIB, TFLITE: f"{FOLDER}/{INT8}"}
"""What each kind of predictor reads."""
PREDICTORS: dict[str, type[OnnxPredictor] | type[SklearnPredictor]] = {"onnx": OnnxPredictor, "sklearn": SklearnPredictor}
