"""How a fit goes round by round: it is watched after each, may be left between two, and goes on later to the same model.

Each kind of estimator has its own way; one that knows no rounds is fitted whole. Estimators are reached into by names that
are private in scikit-learn 1.9 and LightGBM 4.7: both versions are pinned, and tests/test_checkpoints.py holds each way.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline

from training.libraries import use_large_arrays_again
from training.lightgbm import is_lightgbm
from training.read import Table

STEPS = 20
"""Into how many calls a fit with `warm_start` is cut, at least: each costs a check of all rows, about 3 ms on small data."""
ROUND_S = 3.0
"""Which a call aims at where rows are many: a stop waits for the end of one."""

Watch = Callable[[int, Callable[[], Pipeline]], None]
"""Called after a round with the number of rounds done and a function that gives the pipeline as it is; may raise Enough."""


class Enough(Exception):
    """No more rounds are wanted; whoever raises it has kept the model."""


@dataclass(frozen=True)
class Fit:
    """One fit: the pipeline, the parameter that counts its estimator's rounds (if any), and how many are wanted and done."""

    pipeline: Pipeline
    parameter: str | None
    rounds: int
    done: int
    table: Table
    watch: Watch
    spends: bool = False
    """Whether the rows go, here, once the estimator has made its own of them: nobody looks at them again."""

    @property
    def estimator(self) -> Any:
        """The last step."""
        return self.pipeline.steps[-1][1]

    def run(self) -> Pipeline:
        """Return the pipeline, fitted to the last round.

        Raises:
            Enough: the watch wanted no more.
        """
        if self.done < self.rounds:
            _way(self)(self)
        return self.pipeline


def _way(fit: Fit) -> Callable[[Fit], None]:
    if isinstance(fit.estimator, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
        return _boost
    if isinstance(fit.estimator, (MLPClassifier, MLPRegressor)):
        return _pass_over
    if is_lightgbm(fit.estimator):
        return _boost_light
    return _warm_start if fit.parameter else _whole


def _whole(fit: Fit) -> None:
    fit.pipeline.fit(fit.table.matrix, fit.table.target)


def _warm_start(fit: Fit) -> None:
    """Fit some rounds a call, as many as the last call's rate lets hope for; however they are cut, a forest is the same."""
    most = math.ceil(fit.rounds / STEPS)
    least = size = min(most, joblib.effective_n_jobs(fit.estimator.get_params().get("n_jobs")))  # one tree for each thread
    rounds = fit.done
    while rounds < fit.rounds:
        started, before = time.monotonic(), rounds
        rounds = min(fit.rounds, rounds + size)
        fit.estimator.set_params(**{str(fit.parameter): rounds, "warm_start": True})
        _whole(fit)
        fit.estimator.set_params(warm_start=False)  # who fits the saved pipeline again means to start anew
        rate = (rounds - before) / max(time.monotonic() - started, 1e-9)
        fit.watch(rounds, lambda: fit.pipeline)
        size = max(least, min(most, int(rate * ROUND_S)))


def _boost(fit: Fit) -> None:
    """Fit histogram boosting in one call: it bins all rows at the start of each, which is a tenth of a fit's time."""
    estimator, plain = fit.estimator, type(fit.estimator)
    estimator.set_params(max_iter=fit.rounds, warm_start=fit.done > 0)

    def look() -> None:
        done = len(estimator._predictors)
        if done > fit.done:
            if fit.spends:
                fit.table.release(target=False)  # the target's array is the loss's
            fit.watch(done, lambda: _with_estimator(fit.pipeline, _boosted_so_far(estimator, plain)))

    with _observed(estimator, plain, look):
        _whole(fit)
    estimator.set_params(warm_start=False)
    fit.watch(fit.rounds, lambda: fit.pipeline)


@contextmanager
def _observed(estimator: Any, plain: type[Any], look: Callable[[], None]) -> Iterator[None]:
    """Have `look` called at the start of each round: that is when boosting asks its loss for the gradient."""

    class Observed(plain):  # type: ignore[misc]  # scikit-learn has no types
        def _bin_data(self, rows: Any, *args: Any, **kwargs: Any) -> Any:
            binned = super()._bin_data(rows, *args, **kwargs)
            if rows.flags.owndata:  # boosting's own float64 copy, which it keeps to its end and never looks at again
                rows.resize((0, rows.shape[1]), refcheck=False)
            use_large_arrays_again()
            return binned

        def _get_loss(self, sample_weight: Any) -> Any:
            loss = super()._get_loss(sample_weight)
            for name in ("gradient", "gradient_hessian"):
                setattr(loss, name, _after(look, getattr(loss, name)))
            return loss

    estimator.__class__ = Observed
    try:
        yield
    finally:
        estimator.__class__ = plain
        _unobserve(estimator._loss)


def _after(look: Callable[[], None], call: Callable[..., Any]) -> Callable[..., Any]:
    def looked_at(*args: Any, **kwargs: Any) -> Any:
        look()
        return call(*args, **kwargs)

    return looked_at


def _unobserve(loss: Any) -> None:
    for name in ("gradient", "gradient_hessian"):
        loss.__dict__.pop(name, None)


def _boosted_so_far(estimator: Any, plain: type[Any]) -> Any:
    """Return what the estimator would be if its fit had ended with the last whole round."""
    kept = copy.copy(estimator)
    kept.__class__ = plain
    kept._loss = copy.copy(estimator._loss)
    _unobserve(kept._loss)
    kept._predictors = list(estimator._predictors)
    kept.train_score_, kept.validation_score_ = np.asarray(kept.train_score_), np.asarray(kept.validation_score_)
    kept.__dict__.pop("_in_fit", None)
    return kept.set_params(max_iter=len(kept._predictors), warm_start=False)


def _boost_light(fit: Fit) -> None:
    """Fit LightGBM in one call, on top of the trees that are there."""
    import lightgbm

    estimator = fit.estimator
    earlier = lightgbm.Booster(model_str=estimator.booster_.model_to_string()) if fit.done else None

    def look(state: Any) -> None:
        if fit.spends:
            fit.table.release()
        rounds = state.iteration + 1
        fit.watch(rounds, lambda: _with_estimator(fit.pipeline, _boosted_lightly_so_far(estimator, state.model, rounds)))

    estimator.set_params(n_estimators=fit.rounds - fit.done)
    name = fit.pipeline.steps[-1][0]
    options = {f"{name}__callbacks": [look], f"{name}__init_model": earlier}
    fit.pipeline.fit(fit.table.matrix, fit.table.target, **options)
    estimator.set_params(n_estimators=fit.rounds)


def _boosted_lightly_so_far(estimator: Any, booster: Any, rounds: int) -> Any:
    import lightgbm

    kept = copy.copy(estimator)
    kept._Booster = lightgbm.Booster(model_str=booster.model_to_string())
    kept._n_features = kept._n_features_in = kept._Booster.num_feature()
    kept._best_iteration, kept._best_score, kept._evals_result = kept._Booster.best_iteration, {}, {}
    kept.fitted_ = True
    return kept.set_params(n_estimators=rounds)


def _pass_over(fit: Fit) -> None:
    """Fit a network a pass over the rows at a time, until scikit-learn's own rule says that it has converged."""
    network, prepare = fit.estimator, Pipeline(fit.pipeline.steps[:-1])
    if not fit.done:
        prepare.fit(fit.table.matrix, fit.table.target)
        # A generator, not its seed: with a seed, each pass would shuffle the rows alike.
        network.random_state = np.random.RandomState(network.random_state)
    rows = prepare.transform(fit.table.matrix)
    classes = {"classes": np.unique(fit.table.target)} if isinstance(network, MLPClassifier) else {}
    for done in range(fit.done, fit.rounds):
        if getattr(network, "_no_improvement_count", 0) > network.n_iter_no_change:
            break
        network.partial_fit(rows, fit.table.target, **classes)
        fit.watch(done + 1, lambda: fit.pipeline)


def _with_estimator(pipeline: Pipeline, estimator: Any) -> Pipeline:
    return Pipeline([*pipeline.steps[:-1], (pipeline.steps[-1][0], estimator)])
