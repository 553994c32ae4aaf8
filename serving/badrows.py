"""BAD_ROWS=null: a row that can't be used gets a placeholder, so that a file keeps one record a row (H-28, H-29)."""

from __future__ import annotations

import logging
from itertools import count

import orjson

from contract.media import CSV, JSONLINES, JSONLINES_ALIASES
from serving.decoders import Faults
from serving.encoders import ENCODERS, Encoder
from serving.predictor import Predictions

MAX_NAMED = 20

log = logging.getLogger("gunicorn.error")


def with_placeholders(media_type: str, faults: Faults) -> Encoder:
    """Return the encoder of a media type, made to put a placeholder in the place of each faulty row.

    `NaN` in CSV (as many as a row has cells); in JSON Lines `{"prediction": null, "error": what is wrong}`, with `low` and
    `high` where other rows have them. Other types answer good rows alone: their bodies aren't files of rows.
    """
    encode = ENCODERS[media_type]
    if media_type not in {CSV, JSONLINES, *JSONLINES_ALIASES}:
        return encode

    def encode_all(predictions: Predictions) -> bytes:
        good = iter(encode(predictions).split(b"\n") if len(predictions.values) else [])
        total = len(predictions.values) + len(faults)
        lines = []
        for row, _ in zip(count(1), range(total), strict=False):
            lines.append(_placeholder(media_type, faults[row], predictions) if row in faults else next(good))
        return b"\n".join(lines)

    return encode_all


def report(faults: Faults, identity: str) -> None:
    """Say in the log which rows were passed over; what stood in them is nobody's business."""
    if faults:
        rows = ", ".join(map(str, sorted(faults)[:MAX_NAMED]))
        more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        log.warning("request %s: BAD_ROWS=null passed over rows %s%s", identity, rows, more)


def _placeholder(media_type: str, message: str, predictions: Predictions) -> bytes:
    bounds = [] if predictions.half_width is None else ["low", "high"]
    if media_type == CSV:
        return b",".join([b"NaN"] * (1 + len(predictions.labels) + len(bounds)))
    return orjson.dumps({"prediction": None, **dict.fromkeys(bounds), "error": message})
