"""What the report tells of features: how much the predictions rest on each, and how. Types, for who draws them too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contract.declaration import Feature


@dataclass(frozen=True)
class Importance:
    """How much worse the held-out rows are predicted when one feature's values are shuffled among them."""

    feature: Feature
    mean: float
    """RMSE gained in the target's unit, or accuracy lost, over five shuffles."""
    deviation: float


@dataclass(frozen=True)
class Curve:
    """The average prediction over rows as one feature takes each of some values."""

    feature: Feature
    values: NDArray[np.float64]
    """(n_points,) numbers, or indexes of choices."""
    averages: NDArray[np.float64]
    """(n_lines, n_points): one line for a number, one a class for labels; of two classes the second's alone."""


@dataclass(frozen=True)
class Explanation:
    """Importances, greatest first, and the curves of the first six features that vary."""

    importances: Sequence[Importance]
    curves: Sequence[Curve]
    rows: int
    is_class: bool

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the least and the greatest of all curves, and a little room."""
        low = min((float(curve.averages.min()) for curve in self.curves), default=0.0)
        high = max((float(curve.averages.max()) for curve in self.curves), default=1.0)
        room = 0.05 * (high - low) or abs(low) or 1.0
        return low - room, high + room


def short(text: str, most: int) -> str:
    """Return a text cut to some characters, and seen to be."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
