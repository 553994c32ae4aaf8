"""Fitting in a child process, round by round, so that a signal is answered inside a long call into C.

Asked to stop, the child leaves the pipeline as far as it is fitted. Where the platform keeps checkpoints it leaves one now and
then, and a job that starts again goes on from the last of them, to the same model (T-27 to T-31).
"""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
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
from training.progress import Progress
from training.read import Table
from training.rounds import Enough, Fit
from training.split import Data
from training.stop import Stop

POLL_S, TELL_S = 0.05, 0.2
LEAVE_S = 20.0
"""How long the child may take to end its round and leave the model once a stop is asked for; then it is killed. T-27 gives
120 s for all, and what comes after the fit needs its part."""
MOST_SAVING = 0.05
"""The share of the time that writing checkpoints may take: a forest's are large, and then come more seldom."""
PR_SET_PDEATHSIG = 1
"""Linux's prctl(2): die with the parent. The pipe doesn't tell of its death: a forked child holds both ends."""
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
        meanwhile: what this process may do while the child fits: the imports of what comes next.

    Raises:
        Stopped: the signal came before the first round was done.
        AlgorithmError: the fit failed, or its process was killed.
    """
    left = folder / "fitted.joblib"
    earlier = checkpoints.latest() if checkpoints else None
    done = earlier.rounds if earlier else 0
    if earlier:
        left.write_bytes(earlier.content)
        print(f"fit: goes on after {done} of {plan.rounds} rounds, from a checkpoint", flush=True)
    # fork shares the rows without a copy; elsewhere (macOS) forking after numerical libraries loaded is not safe.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    keeper = Keeper(left, sender, plan.interval_s if checkpoints else None, checkpoints)
    child = context.Process(target=_fit_rounds, args=(plan, data, done, keeper), daemon=True)
    child.start()
    sender.close()
    if meanwhile:
        threading.Thread(target=meanwhile, daemon=True).start()
    told = _watch(child, receiver, stop, Progress("fit", "rounds", plan.rounds, done), stoppable=plan.parameter is not None)
    if not left.exists():
        if stop.requested:
            raise Stopped("Stopped by a signal while fitting, before a round was done: there is no model. Start the job again.")
        raise AlgorithmError(f"The fit failed: {told.failure}")
    if told.failure and not stop.requested:
        raise AlgorithmError(f"The fit failed after its last checkpoint: {told.failure}")
    return Fitted(joblib.load(left), stop.requested and not told.fitted, done)


@dataclass
class Told:
    """What the child has said."""

    fitted: bool = False
    failure: str = ""


def _watch(child: Any, receiver: Connection, stop: Stop, progress: Progress, stoppable: bool) -> Told:
    """Print what the child reports until it ends, on its own or because a stop is asked for."""
    told, deadline = Told(), math.inf
    while True:
        if stop.requested and deadline == math.inf:
            print("fit: stopped by a signal", flush=True)
            deadline = time.monotonic() + (LEAVE_S if stoppable else 0)
            os.kill(child.pid, signal.SIGTERM)
        if time.monotonic() >= deadline:
            child.kill()
        if not receiver.poll(POLL_S):
            continue
        try:
            _hear(receiver.recv(), told, progress)
        except EOFError:
            break
    child.join()
    if child.exitcode == -signal.SIGKILL and not stop.requested:
        told.failure = (
            "its process was killed by signal 9, most likely for want of memory. Use a larger instance or fewer rows."
        )
    elif child.exitcode and not told.failure:
        told.failure = f"its process ended with exit code {child.exitcode}."
    return told


def _hear(message: tuple[str, Any], told: Told, progress: Progress) -> None:
    kind, content = message
    if kind == "rounds":
        progress.update(content)
    elif kind == "fitted":
        told.fitted = True
        progress.end(content)
    elif kind == "metric":
        report_metric(*content)
    else:
        told.failure = content


@dataclass
class Keeper:
    """In the child: what happens after each round."""

    path: Path
    sender: Connection
    interval_s: float | None
    """None leaves the pipeline at the end and at a stop only."""
    checkpoints: Checkpoints | None
    stopping: bool = False
    _told: float = field(default_factory=time.monotonic)
    _kept: float = field(default_factory=time.monotonic)
    _saving_s: float = 0.0

    def __call__(self, rounds: int, pipeline: Callable[[], Pipeline]) -> None:
        """Tell the parent, leave a checkpoint where one is due, and end the fit where a stop is asked for."""
        now = time.monotonic()
        if now - self._told >= TELL_S:
            self._told = now
            self.sender.send(("rounds", rounds))
        due = self.interval_s is not None and now - self._kept >= max(self.interval_s, self._saving_s / MOST_SAVING)
        if due or self.stopping:
            self.leave(rounds, pipeline())
        if self.stopping:
            raise Enough

    def leave(self, rounds: int, pipeline: Pipeline) -> None:
        """Leave the pipeline for the parent, and for a job that starts again."""
        started = time.monotonic()
        with replacing(self.path) as temporary:
            joblib.dump(pipeline, temporary)
        if self.checkpoints:
            self.checkpoints.save(Checkpoint(rounds, self.path.read_bytes()))
        self._kept = time.monotonic()
        self._saving_s = self._kept - started

    def stop(self, *_: object) -> None:
        """Answer SIGTERM: the round that runs is the last."""
        self.stopping = True


def _fit_rounds(plan: Plan, data: Data, done: int, keeper: Keeper) -> None:
    """Run in the child: fit round by round, leave the pipeline, then cross-validate."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, keeper.stop if plan.parameter else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    warnings.simplefilter("ignore", ConvergenceWarning)
    try:
        # A process that multiprocessing made may have no children of its own: forests grow in threads.
        with joblib.parallel_config(backend="threading"), threadpool_limits(1 if _is_small(data.train) else None):
            pipeline = joblib.load(keeper.path) if done else clone(plan.pipeline)
            keeper.leave(plan.rounds, Fit(pipeline, plan.parameter, plan.rounds, done, data.train, keeper).run())
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the model is there: what follows may be cut short
            keeper.sender.send(("fitted", plan.rounds))
            for name, value in _cross_validate(plan, data.whole).items():
                keeper.sender.send(("metric", (name, value)))
    except Enough:
        return
    except Exception as error:
        traceback.print_exc()
        keeper.sender.send(("failure", f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error


def _is_small(table: Table) -> bool:
    return table.matrix.size < SMALL_CELLS


def _cross_validate(plan: Plan, table: Table | None) -> Mapping[str, float]:
    """Return the mean of each metric over shuffled folds, as `cv:` metrics; nothing where none was asked for."""
    if table is None:
        return {}
    kind = StratifiedKFold if hasattr(plan.pipeline, "predict_proba") else KFold
    folds = kind(plan.cv_folds, shuffle=True, random_state=plan.seed).split(table.matrix, table.target)
    scores = []
    for learn, held_out in folds:
        pipeline = clone(plan.pipeline).fit(table.matrix[learn], table.target[learn])
        scores.append(measure(pipeline, table.matrix[held_out], table.target[held_out]))
    return {f"cv:{name}": float(np.mean([score[name] for score in scores])) for name in scores[0]}
