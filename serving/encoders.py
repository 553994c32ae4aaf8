"""Predictions to bytes, one function a media type, and the table of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from contract.media import CSV, JSON, JSONLINES, JSONLINES_ALIASES, NPY
from serving.predictor import Predictions

Encoder = Callable[[Predictions], bytes]


def encode_csv(predictions: Predictions) -> bytes:
    """Write an answer a line (H-19): the number, with its interval where that was asked, or the label and its probabilities.

    The prediction stands first (H-39). No newline at the end (H-31).
    """
    if predictions.half_width is not None:
        return b"\n".join(_rows(predictions))
    if predictions.probabilities is None:
        return b"\n".join(_numbers(predictions.values))
    text = io.StringIO()
    rows = zip(predictions.values, orjson.loads(_dumps(predictions.probabilities)), strict=True)
    csv.writer(text, lineterminator="\n").writerows([label, *probabilities] for label, probabilities in rows)
    return text.getvalue()[:-1].encode()


def encode_json(predictions: Predictions) -> bytes:
    """Write `{"predictions": [..]}`."""
    return b'{"predictions":' + plain(predictions) + b"}"


def encode_book(predictions: Predictions) -> bytes:
    """Write `{"prediction": [..]}`, the shape of POST /predict; intervals stand beside it, so that its readers stay right."""
    if predictions.half_width is not None:
        columns = (_dumps(column) for column in predictions.bounds().T)
        return b'{"prediction":%b,"low":%b,"high":%b}' % tuple(columns)
    return b'{"prediction":' + plain(predictions) + b"}"


def encode_jsonlines(predictions: Predictions) -> bytes:
    """Write `{"prediction": ..}` a line, with its interval where that was asked; without a newline at the end (H-31)."""
    if predictions.half_width is not None:
        return b"\n".join(_records(predictions))
    if predictions.probabilities is None:
        return b'{"prediction":' + b'}\n{"prediction":'.join(_numbers(predictions.values)) + b"}"
    return b"\n".join(orjson.dumps({"prediction": answer}) for answer in _answers(predictions))


def encode_npy(predictions: Predictions) -> bytes:
    """Write a float32 array: [N], with intervals [N, 3], or [N, C] probabilities."""
    stream = io.BytesIO()
    values = predictions.values if predictions.probabilities is None else predictions.probabilities
    np.save(stream, values if predictions.half_width is None else predictions.bounds(), allow_pickle=False)
    return stream.getvalue()


ENCODERS: dict[str, Encoder] = {
    CSV: encode_csv,
    JSON: encode_json,
    JSONLINES: encode_jsonlines,
    **dict.fromkeys(JSONLINES_ALIASES, encode_jsonlines),
    NPY: encode_npy,
}


def plain(predictions: Predictions) -> bytes:
    """Return the answers as a JSON list."""
    if predictions.half_width is not None:
        return b"[" + b",".join(_records(predictions)) + b"]"
    return _dumps(predictions.values) if predictions.probabilities is None else orjson.dumps(_answers(predictions))


def _answers(predictions: Predictions) -> list[dict[str, Any]]:
    probabilities = orjson.loads(_dumps(predictions.probabilities))
    return [
        {"label": str(label), "probabilities": dict(zip(predictions.labels, row, strict=True))}
        for label, row in zip(predictions.values, probabilities, strict=True)
    ]


def _rows(predictions: Predictions) -> list[bytes]:
    """Return `prediction,low,high` of each row, with the digits that predictions have."""
    return _dumps(predictions.bounds())[2:-2].split(b"],[") if len(predictions.values) else []


def _records(predictions: Predictions) -> list[bytes]:
    return [b'{"prediction":%b,"low":%b,"high":%b}' % tuple(row.split(b",")) for row in _rows(predictions)]


def _numbers(values: NDArray[np.float32]) -> list[bytes]:
    return _dumps(values)[1:-1].split(b",")


def _dumps(values: Any) -> bytes:
    """Return JSON of an array; orjson writes float32 with the fewest digits that read back the same."""
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
