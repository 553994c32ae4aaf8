"""Fitting in a child process, round by round, so that a signal is answered inside a long call into C.

Asked to stop, the child leaves the pipeline as far as it is fitted. Where the platform keeps checkpoints it leaves one now and
then, and a job that starts again goes on from the last of them, to the same model (T-27 to T-31).
"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.ensemble._forest import BaseForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from threadpoolctl import threadpool_limits

from contract.declaration import Declaration
from contract.errors import AlgorithmError, Stopped
from contract.files import replacing
from contract.metrics import report_metric
from model.metrics import measure
from model.pipeline import ESTIMATORS, build_pipeline
from training.checkpoints import Checkpoint, Checkpoints
from training.child import Tell, run
from training.progress import Progress
from training.read import Table
from training.rounds import Enough, Fit
from training.split import Data
from training.stop import Stop
from training.thresholds import last_step

TELL_S = 0.2
LEAVE_S = 20.0
"""How long the child may take to end its round and leave the model once a stop is asked for; then it is killed. T-27 gives
120 s for all, and what comes after the fit needs its part."""
SLOW_S = 5.0
"""A round that takes this long may be too long to wait for at a stop: what the one before came to is then left beforehand."""
MOST_NODES = 3_000_000
"""Of a forest's trees, that a stopped job exports: skl2onnx takes 9 s for a million."""
MOST_SAVING = 0.05
"""The share of the time that writing checkpoints may take: a forest's are large, and then come more seldom."""
SMALL_CELLS = 1_000_000
"""Below this many cells OpenMP's threads cost more than they give: boosting 500 rows took 0.13 s on one thread and 0.45 s on
two, 100,000 rows of 6 features 0.77 and 1.25 s (two shared cores)."""


@dataclass(frozen=True)
class Fitted:
    """What came out of the child."""

    model: Pipeline
    stopped: bool
    """Whether a signal ended the fit before its last round."""
    resumed_after: int
    """The rounds that a checkpoint of an earlier run had done; 0 without one."""


@dataclass(frozen=True)
class Plan:
    """How one fit goes: the pipeline, the parameter that counts its rounds (if any), and how many in all."""

    pipeline: Pipeline
    parameter: str | None
    rounds: int
    cv_folds: int
    seed: int
    interval_s: float
    """Seconds from one checkpoint to the next."""

    @classmethod
    def from_values(cls, declaration: Declaration, values: Mapping[str, Any]) -> Plan:
        """Return the plan that the hyperparameters ask for."""
        parameter, knob = ESTIMATORS[values["estimator"]].rounds or (None, "")
        rounds = int(values[knob]) if parameter else 1
        pipeline = build_pipeline(declaration, values)
        return cls(pipeline, parameter, rounds, values["cv_folds"], values["seed"], values["checkpoint_interval_s"])


def fit(
    plan: Plan,
    data: Data,
    folder: Path,
    stop: Stop,
    checkpoints: Checkpoints | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Fitted:
    """Return the fitted pipeline, as far as it is when a stop is asked for.

    Args:
        plan: what to fit.
        data: the job's rows.
        folder: where the child leaves the pipeline.
        stop: whether the platform asked to stop.
        checkpoints: where to go on from, and to leave a file now and then; None keeps nothing for another run.
        meanwhile: called once the child fits; begins what this process may do beside it.

    Raises:
        Stopped: the signal came before the first round was done, or what is done can't be exported in time.
        AlgorithmError: the fit failed, or its process was killed.
    """
    left = folder / "fitted.joblib"
    earlier = checkpoints.latest() if checkpoints else None
    done = earlier.rounds if earlier else 0
    if earlier:
        left.write_bytes(earlier.content)
        print(f"fit: goes on after {done} of {plan.rounds} rounds, from a checkpoint", flush=True)
    else:
        print(f"fit: begins, {plan.rounds} round{'s' if plan.rounds > 1 else ''}", flush=True)
    listener = Listener(Progress("fit", "rounds", plan.rounds, done))
    arguments = (plan, data, done, left, checkpoints)
    grace_s = LEAVE_S if plan.parameter else 0.0  # a fit that knows no rounds leaves nothing before its end
    failure = run(_fit_rounds, arguments, listener.hear, stop, grace_s=grace_s, meanwhile=meanwhile)
    if stop.requested and not listener.fitted:
        print("fit: stopped by a signal", flush=True)
    if not left.exists():
        if stop.requested:
            raise Stopped("Stopped by a signal while fitting, before a round was done: there is no model. Start the job again.")
        raise AlgorithmError(f"The fit failed: {failure}")
    if failure and not stop.requested:
        raise AlgorithmError(f"The fit failed after its last checkpoint: {failure}")
    model = joblib.load(left)
    is_thinned = stop.requested and _thin(model)
    return Fitted(model, is_thinned or (stop.requested and not listener.fitted), done)


def _thin(model: Pipeline) -> bool:
    """Leave a stopped job's forest no more trees than can be exported in the time that is left; say whether it had more.

    Raises:
        Stopped: one tree is too large.
    """
    forest = last_step(model)
    if not isinstance(forest, BaseForest):
        return False
    nodes = np.cumsum([tree.tree_.node_count for tree in forest.estimators_])
    most = int(np.searchsorted(nodes, MOST_NODES, side="right"))
    if not most:
        raise Stopped(
            f"Stopped by a signal while fitting trees of {nodes[0]:,} nodes, too large to be exported in the time that is "
            "left. Start the job again, with a max_depth if it may be stopped."
        )
    if most < len(nodes):
        print(f"fit: {most:,} of {len(nodes):,} trees are kept: no more can be exported in the time left", flush=True)
        forest.estimators_ = forest.estimators_[:most]
        forest.set_params(n_estimators=most)
    return most < len(nodes)


@dataclass
class Listener:
    """In the parent: prints what the child tells."""

    progress: Progress
    fitted: bool = False

    def hear(self, message: tuple[str, Any]) -> None:
        """Take one message: how many rounds are done, that all are, or a metric."""
        kind, content = message
        if kind == "rounds":
            self.progress.update(content)
        elif kind == "fitted":
            self.fitted = True
            self.progress.end(content)
        else:
            report_metric(*content)


@dataclass
class Keeper:
    """In the child: what happens after each round."""

    path: Path
    tell: Tell
    interval_s: float | None
    """None leaves the pipeline at the end and at a stop only."""
    checkpoints: Checkpoints | None
    stopping: bool = False
    _ended: float = field(default_factory=time.monotonic)
    _told: float = field(default_factory=time.monotonic)
    _left: float = field(default_factory=time.monotonic)
    _kept: float = field(default_factory=time.monotonic)
    _saving_s: float = 0.0

    def __call__(self, rounds: int, pipeline: Callable[[], Pipeline]) -> None:
        """Tell the parent, leave a checkpoint where one is due, and end the fit where a stop is asked for."""
        now = time.monotonic()
        is_slow = now - self._ended >= SLOW_S
        if now - self._told >= TELL_S:
            self._told = now
            self.tell(("rounds", rounds))
        is_due = self.interval_s is not None and now - self._kept >= self.interval_s
        is_cheap = now - self._left >= self._saving_s / MOST_SAVING
        if self.stopping or (is_cheap and (is_due or is_slow)):
            self.leave(rounds, pipeline(), keep=self.stopping or is_due)
        if self.stopping:
            raise Enough
        self._ended = time.monotonic()

    def leave(self, rounds: int, pipeline: Pipeline, keep: bool = True) -> None:
        """Leave the pipeline for the parent, and for a job that starts again where it is to be kept."""
        started = time.monotonic()
        with replacing(self.path) as temporary:
            joblib.dump(pipeline, temporary)
        if self.checkpoints and keep:
            self.checkpoints.save(Checkpoint(rounds, self.path.read_bytes()))
            self._kept = time.monotonic()
        self._left = time.monotonic()
        self._saving_s = self._left - started

    def stop(self, *_: object) -> None:
        """Answer SIGTERM: the round that runs is the last."""
        self.stopping = True


def _fit_rounds(tell: Tell, plan: Plan, data: Data, done: int, left: Path, checkpoints: Checkpoints | None) -> None:
    """Run in the child: fit round by round, leave the pipeline, then cross-validate."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    keeper = Keeper(left, tell, plan.interval_s if checkpoints else None, checkpoints)
    if plan.parameter:
        signal.signal(signal.SIGTERM, keeper.stop)
    # A process that multiprocessing made may have no children of its own: forests grow in threads.
    with joblib.parallel_config(backend="threading"), threadpool_limits(1 if is_small(data.train) else None):
        pipeline = joblib.load(left) if done else clone(plan.pipeline)
        try:
            fitting = Fit(pipeline, plan.parameter, plan.rounds, done, data.train, keeper, spends=data.only_fitted)
            keeper.leave(plan.rounds, fitting.run())
        except Enough:
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the model is there: what follows may be cut short
        tell(("fitted", plan.rounds))
        if data.whole is not None:
            for metric in cross_validate(plan, data.whole).items():
                tell(("metric", metric))


def is_small(table: Table) -> bool:
    """Say whether one thread fits these rows faster than several."""
    return table.matrix.size < SMALL_CELLS


def cross_validate(plan: Plan, table: Table) -> Mapping[str, float]:
    """Return the mean of each metric over shuffled folds, as `cv:` metrics.

    How many are fitted at once, and where, is joblib's context: one after another, or a cluster's workers.
    """
    kind = StratifiedKFold if hasattr(plan.pipeline, "predict_proba") else KFold
    folds = kind(plan.cv_folds, shuffle=True, random_state=plan.seed).split(table.matrix, table.target)
    scores = joblib.Parallel()(joblib.delayed(_score_fold)(plan.pipeline, table, *fold) for fold in folds)
    return {f"cv:{name}": float(np.mean([score[name] for score in scores])) for name in scores[0]}


def _score_fold(unfitted: Pipeline, table: Table, learn: Any, held_out: Any) -> dict[str, float]:
    pipeline = clone(unfitted).fit(table.matrix[learn], table.target[learn])
    return measure(pipeline, table.matrix[held_out], table.target[held_out])
