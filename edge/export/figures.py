"""How good answers are: against the target on held-out rows, and against other answers on every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.errors import BadData
from contract.manifest import Manifest
from edge.export.teacher import Answers

LEAST = float(np.finfo(np.float64).eps)
"""Of a probability, for its logarithm; it is that of scikit-learn's log_loss."""

SAME = 1e-4
"""How far a figure may be off the one of training, in shares of it: by float32's rounding, which no other row hides in."""


def check_held_out(answers: Answers, target: NDArray[Any], manifest: Manifest) -> None:
    """Raise BadData where the model is worth another thing on these rows than on those that its training held out.

    Of the rows to learn from the manifest has the sha256, of these only their number and the model's figures on them.
    """
    found = score(answers, target, manifest.labels)
    if manifest.labels and "validation:log_loss" in manifest.metrics:
        del found["accuracy"]  # of two classes as likely as each other either may have been taken
    if not manifest.labels and not np.ptp(target):
        del found["r2"]  # there is none
    told = {name: float(manifest.metrics.get(f"validation:{name}", value)) for name, value in found.items()}
    rounding = float(manifest.parity["bound"])  # of one answer
    units = {name: abs(value) if name == "mae" else max(abs(value), 1) for name, value in told.items()}
    off = {name: value for name, value in found.items() if not abs(value - told[name]) <= SAME * units[name] + rounding}
    if off:
        name, value = next(iter(off.items()))
        raise BadData(
            f"The rows held out aren't those of this model's training: its {name} on them is {value:.6g}, where training had "
            f"{told[name]:.6g}. Give the channels of its training job: --data DIR, and --validation DIR if it had one.",
            found=value,
            expected=told[name],
        )


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
