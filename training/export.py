"""The fitted pipeline as ONNX, and the proof that both say the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from contract.errors import ExportFailed
from training import lightgbm
from training.answers import Answers, Matrix, Predictor, onnx_predictor
from training.facts import PARITY_ROWS
from training.libraries import left_out
from training.split import evenly
from training.thresholds import last_step, snap_thresholds

with left_out("pandas"):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

NUMBER_BOUND, PROBABILITY_BOUND = 1e-4, 1e-5


@dataclass(frozen=True)
class Exported:
    """An ONNX model that agrees with its scikit-learn one."""

    onnx: bytes
    parity: Mapping[str, Any]
    predict: Predictor
    answers: Answers
    """What ONNX says of the rows that `export` was given, all of them."""


def export(model: Pipeline, matrix: Matrix, spread: float, most: int = PARITY_ROWS) -> Exported:
    """Return the pipeline as ONNX, and what it answers, after comparing both on rows.

    Args:
        model: fitted; takes (n_rows, n_features) float32.
        matrix: the rows to answer and compare on.
        spread: the training target's standard deviation; a number may differ by 1e-4 of it. Classes: equal labels,
            probabilities within 1e-5.
        most: the rows to compare on, at most; of more an even selection is taken.

    Raises:
        ExportFailed: ONNX can't express the pipeline, or differs by more; facts name the worst row.
    """
    snap_thresholds(model)
    onnx = _convert(model, matrix.shape[1])
    predict = onnx_predictor(onnx, hasattr(model, "predict_proba"))
    answers, rows = predict(matrix), evenly(len(matrix), most)
    if hasattr(model, "predict_proba"):
        parity = _class_parity(model, matrix[rows], answers.take(rows))
    else:
        parity = _number_parity(model, matrix[rows], answers.values[rows], spread)
    if not parity["difference"] <= parity["bound"]:
        worst = int(rows[parity["worst"]])
        raise ExportFailed(_message(parity, worst), row=worst + 1, difference=parity["difference"], bound=parity["bound"])
    told = {"onnx": True, "rows": len(rows), "difference": parity["difference"], "bound": parity["bound"]}
    return Exported(onnx, told, predict, answers)


def _convert(model: Pipeline, n_features: int) -> bytes:
    opsets = lightgbm.teach_skl2onnx() if lightgbm.is_lightgbm(last_step(model)) else None
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    try:
        # A fixed name makes the same model the same bytes.
        converted = to_onnx(
            model,
            initial_types=[("features", FloatTensorType([None, n_features]))],
            options=options,
            name="model",
            target_opset=opsets,
        )
    except Exception as error:  # skl2onnx raises its own kinds and whatever its converters hit
        raise ExportFailed(
            f"ONNX can't express this pipeline: {type(error).__name__}: {str(error).strip()[:500]} Use steps that skl2onnx "
            "converts, or set allow_sklearn=true and serve with PREDICTOR=sklearn."
        ) from error
    domains = sorted(converted.opset_import, key=lambda entry: entry.domain)  # skl2onnx keeps them in a set
    del converted.opset_import[:]
    converted.opset_import.extend(domains)
    return bytes(converted.SerializeToString(deterministic=True))


def _number_parity(model: Pipeline, matrix: Matrix, answers: NDArray[np.float64], spread: float) -> dict[str, Any]:
    expected = np.asarray(model.predict(matrix), dtype=np.float64).reshape(-1)
    difference = np.nan_to_num(np.abs(answers - expected), nan=np.inf)
    largest = float(np.nanmax(np.abs(expected)))
    # A constant target has no spread, or that of float64's rounding.
    bound = NUMBER_BOUND * (spread if spread > 1e-12 * largest else max(largest, 1e-6))
    worst = int(difference.argmax())
    shared = {"difference": float(difference[worst]), "bound": bound, "worst": worst}
    return {
        **shared,
        "sklearn": expected[worst],
        "onnx": float(answers[worst]),
        "grain": float(np.spacing(np.float32(largest))),
    }


def _class_parity(model: Pipeline, matrix: Matrix, answers: Answers) -> dict[str, Any]:
    probabilities: Any = answers.probabilities
    expected = model.predict_proba(matrix)
    difference = np.nan_to_num(np.abs(probabilities - expected).max(axis=1), nan=np.inf)
    difference[answers.values != model.predict(matrix).astype(str)] = 1.0
    worst = int(difference.argmax())
    shared = {"difference": float(difference[worst]), "bound": PROBABILITY_BOUND, "worst": worst}
    return {
        **shared,
        "sklearn": expected[worst].round(7).tolist(),
        "onnx": probabilities[worst].round(7).tolist(),
        "grain": 0.0,
    }


def _message(parity: Mapping[str, Any], row: int) -> str:
    if parity["grain"] > parity["bound"]:
        cause = f"float32, in which ONNX answers, has steps of {parity['grain']:.3g} at this size: rescale or shift the target."
    else:
        cause = (
            "some step computes in float64 what ONNX computes in float32; in front of trees a scaler does this, by moving "
            "values across their thresholds: leave trees unscaled."
        )
    return (
        f"ONNX and scikit-learn differ by {parity['difference']:.3g} in row {row + 1}, where at most {parity['bound']:.3g} is "
        f"allowed (scikit-learn {parity['sklearn']}, ONNX {parity['onnx']}). Most likely cause: {cause} "
        "Or set allow_sklearn=true and serve with PREDICTOR=sklearn."
    )
