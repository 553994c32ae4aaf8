"""The trained model as the student's teacher: model.onnx, by onnxruntime. Nothing is unpickled unless asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import DamagedModel, ExportFailed
from contract.manifest import JOBLIB, ONNX, Manifest
from edge.libraries import library

Answers = NDArray[np.float64]
"""(n_rows, 1) numbers, or (n_rows, n_labels) probabilities in the order of the labels."""
Answer = Callable[[NDArray[np.float32]], Answers]
"""From rows of the server's matrix to the answers to them."""


def load_teacher(folder: Path, manifest: Manifest) -> Answer:
    """Return what a model directory's ONNX file answers, after it answered the stored samples as on the day of training.

    Raises:
        ExportFailed: there is no such file: the model was trained with allow_sklearn.
        DamagedModel: it can't be loaded, or gives other answers.
    """
    if ONNX not in manifest.files:
        raise ExportFailed(
            f"{folder} has no {ONNX}: the model was trained with allow_sklearn=true, and what ONNX can't say a device can't "
            "run. Train a pipeline that skl2onnx converts, without allow_sklearn."
        )
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # the same sums on every machine
    try:
        session = runtime.InferenceSession(folder / ONNX, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds derive from Exception alone
        raise DamagedModel(f"{folder / ONNX} can't be loaded: {error}.", file=ONNX) from error
    index = 1 if manifest.labels else 0
    name = session.get_outputs()[index].name

    def answer(matrix: NDArray[np.float32]) -> Answers:
        found = session.run([name], {"features": matrix})[0]
        return np.asarray(found, dtype=np.float64).reshape(len(matrix), -1)

    _check_samples(answer, manifest)
    return answer


def against_joblib(answer: Answer, folder: Path, manifest: Manifest, matrix: NDArray[np.float32]) -> float:
    """Return how far ONNX is from the fitted pipeline at most; loading that runs whatever is in the file.

    Raises:
        ExportFailed: it is further off than at training.
    """
    model = library("joblib").load(folder / JOBLIB)
    found = model.predict_proba(matrix) if manifest.labels else model.predict(matrix)
    difference = float(np.abs(answer(matrix) - np.asarray(found).reshape(len(matrix), -1)).max())
    bound = float(manifest.parity["bound"])
    if not difference <= bound:
        raise ExportFailed(
            f"{ONNX} and {JOBLIB} differ by {difference:.3g} where at most {bound:.3g} was allowed at training. Was one of "
            "them changed, or is scikit-learn another than the one it was trained with? Train again.",
            difference=difference,
        )
    return difference


def sample_matrix(manifest: Manifest) -> NDArray[np.float32]:
    """Return the manifest's sample rows as the server's matrix."""
    rows = [[_number(sample["row"][feature.name], feature.choices) for feature in manifest.declaration.features]
            for sample in manifest.samples]  # fmt: skip
    return np.array(rows, dtype=np.float32)


def _check_samples(answer: Answer, manifest: Manifest) -> None:
    found, bound = answer(sample_matrix(manifest)), 10 * float(manifest.parity["bound"])
    for row, (numbers, sample) in enumerate(zip(found, manifest.samples, strict=True), 1):
        told = sample["prediction"]
        expected = [told["probabilities"][label] for label in manifest.labels] if manifest.labels else [float(told)]
        if not np.allclose(numbers, expected, rtol=1e-6, atol=bound):
            raise DamagedModel(f"Sample {row} is predicted as {numbers} where training had {expected}. Train again.", file=ONNX)


def _number(value: Any, choices: tuple[str, ...]) -> float:
    if value is None:
        return float("nan")
    return float(choices.index(value)) if choices else float(value)
