"""Who wins a search: the default until a challenger is better by more than noise, on folds that no search has chosen by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import RepeatedKFold, RepeatedStratifiedKFold, cross_validate

from contract.declaration import Declaration
from training.read import Table
from training.space import Candidate

FOLDS, REPEATS = 3, 3
TESTED_BY_LEARNT = 1 / (FOLDS - 1)


@dataclass(frozen=True)
class Rung:
    """One step of a search: the best of its candidates, and how many were drawn for it."""

    values: Mapping[str, Any]
    score: float
    """More is better."""
    rows: int
    new: int = 0
    is_champion: bool = False

    @property
    def rank(self) -> tuple[bool, int, float]:
        """What rungs compare by: champions first, then the more rows, since few rows flatter the simple."""
        return self.is_champion, self.rows, self.score


class Contest:
    """Holds the champion against one challenger after another.

    The best of many scores is too good by luck: a search that took it as it came chose lightgbm for an RMSE of 3.81 that was
    4.12 on other folds, where a forest had 3.88 (`docs/decisions.md`).
    """

    def __init__(self, declaration: Declaration, default: Mapping[str, Any], table: Table, seed: int) -> None:
        self._declaration, self._table = declaration, table
        kind = RepeatedStratifiedKFold if declaration.target.kind == "class" else RepeatedKFold
        self._folds = kind(n_splits=FOLDS, n_repeats=REPEATS, random_state=(seed + 1) % 2**32)
        self._values = default
        self._scores: NDArray[np.float64] | None = None

    def meet(self, challenger: Mapping[str, Any]) -> Rung:
        """Return who is champion once the challenger came."""
        if self._scores is None:
            self._scores = self._score(self._values)
        if challenger != self._values:
            scores = self._score(challenger)
            if is_better(scores, self._scores):
                self._values, self._scores = challenger, scores
        score = float(self._scores.mean())
        return Rung(self._values, score, len(self._table), is_champion=bool(np.isfinite(score)))

    def _score(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return (n_folds,) scores, -inf where a fit failed. How many run at once, and where, is joblib's context."""
        candidate = Candidate(self._declaration, values)
        try:
            found = cross_validate(candidate, self._table.matrix, self._table.target, cv=self._folds)["test_score"]
        except ValueError:  # all fits failed
            return np.full(FOLDS * REPEATS, -np.inf)
        return np.nan_to_num(np.asarray(found, dtype=np.float64), nan=-np.inf)


def is_better(challenger: NDArray[np.float64], champion: NDArray[np.float64]) -> bool:
    """Say whether scores of the same folds are better on average by more than one standard error of the difference.

    Folds share rows, so their differences vary less than new data would make them: the error is corrected for it. Source:
    Nadeau and Bengio (2003), doi 10.1023/A:1024068626366.
    """
    if not np.isfinite([challenger, champion]).all():
        return bool(challenger.min() > champion.min())
    difference = challenger - champion
    error = difference.std(ddof=1) * (1 / len(difference) + TESTED_BY_LEARNT) ** 0.5
    return bool(difference.mean() > error)
