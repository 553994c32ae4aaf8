"""How good answers are: against the target on held-out rows, and against other answers on every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.export.teacher import Answers

LEAST = 1e-15
"""Of a probability, for its logarithm; scikit-learn's log_loss has float64's step, twice as much."""


def score(answers: Answers, target: NDArray[Any], labels: Sequence[str]) -> dict[str, float]:
    """Return `r2` and `mae` of numbers, `accuracy` and `log_loss` of probabilities.

    Args:
        answers: (n_rows, 1) numbers or (n_rows, n_labels) probabilities.
        target: (n_rows,) float64, or labels as text.
        labels: of the probabilities' columns; none for numbers.
    """
    if not labels:
        off = answers[:, 0] - target
        spread = float(np.square(target - target.mean()).sum())
        r2 = 1 - float(np.square(off).sum()) / spread if spread else 0.0
        return {"r2": r2, "mae": float(np.abs(off).mean())}
    right = np.array([list(labels).index(label) for label in target.tolist()])
    chosen = np.maximum(answers[np.arange(len(right)), right], LEAST)
    return {"accuracy": float((answers.argmax(axis=1) == right).mean()), "log_loss": float(-np.log(chosen).mean())}


def grade(figures: dict[str, float]) -> float:
    """Return the one figure that tolerances are about: R2, or accuracy."""
    return figures["r2"] if "r2" in figures else figures["accuracy"]


def difference(answers: Answers, others: Answers) -> float:
    """Return how far two sets of answers are apart at most, in the target's unit or of a probability."""
    return float(np.nan_to_num(np.abs(answers - others), nan=np.inf).max())


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with the digits that mean something, differences a little up: they are bounds."""
    return {name: float(f"{value * (1 + 1e-5 * name.endswith('_difference')):.6g}") for name, value in figures.items()}


def spell(figures: dict[str, Any]) -> str:
    """Return figures for a line on the terminal."""
    return ", ".join(f"{name} {figures[name]:.4g}" for name in ("r2", "mae", "accuracy", "log_loss") if name in figures)
