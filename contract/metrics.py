"""The one format of a metric on standard output, and the regular expression that reads it back (T-37)."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

PARTS = ("train", "validation", "cv")
"""What a metric is measured on: rows the model has seen, held-out rows, and folds where `cv_folds` asks for them."""


@dataclass(frozen=True)
class Metric:
    """One thing that is measured of a model; its values are printed as `train:name`, `validation:name`, `cv:name`."""

    name: str
    meaning: str
    goal: Literal["Minimize", "Maximize"]
    """SageMaker's word for which way is better."""


INTERVAL_COVERAGE, ROWS_DROPPED = "validation:interval_coverage", "data:rows_dropped"
JOB_METRICS = {
    INTERVAL_COVERAGE: "Share of the rows held out from an interval's calibration that the interval holds",
    ROWS_DROPPED: "Rows left out for a fault, where bad_rows=drop asks for that",
}
"""What a job prints of itself, whatever its model measures."""


def metric_names(metrics: Sequence[Metric]) -> list[str]:
    """Return the names that a job may print."""
    return [*(f"{part}:{metric.name}" for part in PARTS for metric in metrics), *JOB_METRICS]


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
