"""The one format of a metric on standard output, and the regular expression that reads it back (T-37)."""

from __future__ import annotations

import math
import re
import sys
from typing import TextIO


def metric_line(name: str, value: float) -> str:
    """Return the line that reports one metric, such as `metric validation:rmse=3.21747;`."""
    return f"metric {name}={value:.6g};"


def metric_regex(name: str) -> str:
    """Return the expression, with one group, that SageMaker scans logs with for this metric."""
    return f"metric {re.escape(name)}=([-+0-9.eE]+);"


def report_metric(name: str, value: float, stream: TextIO | None = None) -> None:
    """Print one metric and flush; a value that isn't finite has no number to read and is left out."""
    if math.isfinite(value):
        print(metric_line(name, value), file=stream or sys.stdout, flush=True)
