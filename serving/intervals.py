"""Prediction intervals: who asks for them, and how. The nearest to the rows decides; nobody who asks is passed over.

A JSON body's `parameters`, then the parameter of the media range in Accept that the answer's type was taken from, then the
custom attributes (H-13: no query string comes through InvokeEndpoint), then BERTH_INTERVALS.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from werkzeug.http import parse_accept_header, parse_options_header

from contract.errors import BadParameter, BadSetting, NoIntervals
from contract.manifest import Manifest
from serving.cells import Matrix, short
from serving.exchange import Request
from serving.predictor import Predictions, Predictor, half_width_of
from serving.settings import Settings

NAME = "intervals"
CUSTOM_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_MARK = NAME.encode()
_WORDS = {"true": True, "false": False}


def asks_for(request: Request, media_type: str, default: bool) -> bool:
    """Say whether a request, whose body was read, asks for intervals.

    Args:
        request: what was asked.
        media_type: of the answer.
        default: what holds when it says nothing.

    Raises:
        BadParameter: it says neither true nor false.
    """
    if NAME in request.asked:
        return _read(request.asked[NAME], "parameters")
    headers = request.headers  # looked through for the name first: of most requests that is all
    if _MARK in (accept := headers.get(b"accept", b"").lower()):
        stated = _of_range(accept.decode("latin-1"), media_type)
        if stated is not None:
            return _read(stated, "Accept")
    if _MARK in (attributes := headers.get(CUSTOM_ATTRIBUTES, b"").lower()):
        pairs = [part.partition("=")[::2] for part in re.split("[,;]", attributes.decode("latin-1"))]
        values = [value for name, value in pairs if name.strip() == NAME]
        if values:
            return _read(values[-1], "X-Amzn-SageMaker-Custom-Attributes")
    return default


def with_intervals(predictor: Predictor, matrix: Matrix) -> Predictions:
    """Return the predictions of the rows with their intervals.

    Raises:
        NoIntervals: the model has none.
    """
    half_width = half_width_of(predictor.manifest)
    if half_width is None:
        raise NoIntervals(f"{_reason(predictor.manifest)} Ask without intervals, or with intervals=false.")
    return replace(predictor.predict(matrix), half_width=half_width)


def check_setting(settings: Settings, manifest: Manifest) -> None:
    """Stop a start that promises intervals for a model without; of several models, each answers for itself.

    Raises:
        BadSetting: naming the variable.
    """
    if settings.intervals and not settings.multi_model and half_width_of(manifest) is None:
        raise BadSetting(f"BERTH_INTERVALS is true. {_reason(manifest)} Unset it.", setting="BERTH_INTERVALS")


def _reason(manifest: Manifest) -> str:
    if manifest.labels:
        return "The model has no prediction intervals: it predicts a class, whose probabilities say how sure it is."
    if served := manifest.origin.get("served"):
        return f"The model has no prediction intervals: they were calibrated for model.onnx, and {served} is served."
    return "The model has no prediction intervals: its manifest.json holds none. Training with held-out rows writes them."


def _of_range(accept: str, media_type: str) -> str | None:
    """Return what the range of Accept that fits a media type best says of intervals, None where it says nothing."""
    for name in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        for text, quality in parse_accept_header(accept):
            found, options = parse_options_header(text)
            if found == name and quality > 0:
                return options.get(NAME)
    return None


def _read(value: Any, where: str) -> bool:
    answer = value if isinstance(value, bool) else _WORDS.get(value.strip()) if where != "parameters" else None
    if answer is None:
        raise BadParameter(f"intervals is {short(value)} in {where}; true or false was expected.", parameter=NAME)
    return answer
