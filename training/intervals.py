"""Prediction intervals by split conformal prediction: a half-width that held-out residuals vouch for, and a check of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from crepes import ConformalRegressor
from numpy.typing import NDArray
from scipy.stats import binomtest

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
LEAST_TESTED = 10

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Intervals:
    """An interval is the prediction -/+ `half_width`; `level` of the actual values are to lie within."""

    level: float
    half_width: float
    rows: int
    """Held-out rows that the half-width was calibrated on."""
    coverage: dict[float, float]
    """Level to the share of rows within, each level calibrated on one half of the held-out rows and counted on the other."""

    tested: int
    """Rows of that other half."""

    @property
    def checked(self) -> bool:
        """Say whether there were rows enough to check the level itself."""
        return self.level in self.coverage

    def confidence(self) -> dict[str, float]:
        """Return the 95 % interval of the coverage at the level, by Wilson's score, and its standard deviation."""
        share = self.coverage[self.level]
        low, high = binomtest(round(share * self.tested), self.tested).proportion_ci(0.95, method="wilson")
        deviation = (share * (1 - share) / self.tested) ** 0.5
        return {"low": float(low), "high": float(high), "standard_deviation": deviation}

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's `intervals`."""
        return {"level": self.level, "half_width": self.half_width, "rows": self.rows, "method": "split-conformal"}


def calibrate(actual: Numbers, predicted: Numbers, level: float, seed: int) -> Intervals | None:
    """Return the intervals of a level, or None where `rows_needed` are not there.

    The half-width is the residual of rank ceil((n + 1) level) among n: exchangeable rows are then covered with at least
    that probability. Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), doi 10.1080/01621459.2017.1307116.

    Args:
        actual: (n_rows,) of held-out rows.
        predicted: (n_rows,) for the same rows.
        level: share of the actual values to hold, in (0, 1).
        seed: of the halves that the check is made on.
    """
    residuals = actual - predicted
    half_width = _half_width(residuals, level)
    if not np.isfinite(half_width):
        return None
    coverage, tested = _coverage(residuals, level, seed)
    return Intervals(level, half_width, len(residuals), coverage, tested)


def rows_needed(level: float) -> int:
    """Return the fewest held-out rows that say anything about a level: with fewer the interval would have no end."""
    return next(rows for rows in range(1, 10_000) if _has_rank(level, rows))


def _has_rank(level: float, rows: int) -> bool:
    """Say whether crepes finds a residual to bound with: the condition, rounding and all, is its own."""
    return int((1 - level) * (rows + 1)) >= 1


def _half_width(residuals: Numbers, level: float) -> float:
    if not _has_rank(level, len(residuals)):
        return float("inf")
    low_high = ConformalRegressor().fit(residuals).predict_int(np.zeros(1), confidence=level)
    return float(low_high[0, 1])


def _coverage(residuals: Numbers, level: float, seed: int) -> tuple[dict[float, float], int]:
    mixed = np.abs(np.random.default_rng(seed).permutation(residuals))
    learn, test = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
    if len(test) < LEAST_TESTED:
        return {}, 0
    levels = sorted({*LEVELS, level})
    found = [level for level in levels if _has_rank(level, len(learn))]
    return {level: float(np.mean(test <= _half_width(learn, level))) for level in found}, len(test)
