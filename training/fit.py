"""Fitting in a child process, round by round, so that a signal is answered inside a long call into C.

After each step the child leaves the pipeline as a checkpoint; whoever stops it keeps the last one. Where the platform keeps
checkpoints too, a job that starts again goes on from the last of them, by the same steps and so to the same model.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
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
from training.read import Table
from training.split import Data
from training.stop import Stop

STEPS = 10
POLL_S = 0.05
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

    @classmethod
    def from_values(cls, declaration: Declaration, values: Mapping[str, Any]) -> Plan:
        """Return the plan that the hyperparameters ask for."""
        parameter, knob = ESTIMATORS[values["estimator"]].rounds or (None, "")
        rounds = int(values[knob]) if parameter else 1
        return cls(build_pipeline(declaration, values), parameter, rounds, values["cv_folds"], values["seed"])

    def steps(self) -> list[int]:
        """Return the number of rounds done after each step; a fit that can't be carried on has one step."""
        if self.parameter is None:
            return [1]
        return sorted({max(1, round(self.rounds * step / STEPS)) for step in range(1, STEPS + 1)})


def fit(plan: Plan, data: Data, folder: Path, stop: Stop, checkpoints: Checkpoints | None = None) -> Fitted:
    """Return the fitted pipeline, or the last checkpoint when a stop was asked for.

    Args:
        plan: what to fit.
        data: the job's rows.
        folder: where the child leaves its last pipeline.
        stop: whether the platform asked to stop.
        checkpoints: where to go on from, and to leave a file after each step; None keeps nothing for another run.

    Raises:
        Stopped: the signal came before the first checkpoint.
        AlgorithmError: the fit failed, or its process was killed.
    """
    checkpoint = folder / "checkpoint.joblib"
    earlier = checkpoints.latest() if checkpoints else None
    if earlier:
        checkpoint.write_bytes(earlier.content)
        print(f"fit: goes on after {earlier.rounds} of {plan.rounds} rounds, from a checkpoint", flush=True)
    resumed_after = earlier.rounds if earlier else 0
    # fork shares the rows without a copy; elsewhere (macOS) forking after numerical libraries loaded is not safe.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_fit_rounds, args=(plan, data, checkpoint, sender, resumed_after, checkpoints), daemon=True)
    child.start()
    sender.close()
    failure = _watch(child, receiver, stop)
    if not checkpoint.exists():
        if stop.requested:
            raise Stopped(
                "Stopped by a signal while fitting, before the first checkpoint: there is no model. Start the job again."
            )
        raise AlgorithmError(f"The fit failed: {failure}")
    if failure and not stop.requested:
        raise AlgorithmError(f"The fit failed after its last checkpoint: {failure}")
    return Fitted(joblib.load(checkpoint), stop.requested, resumed_after)


def _watch(child: Any, receiver: Connection, stop: Stop) -> str:
    """Print what the child reports until it ends or a stop is asked for; return why it failed, if it did."""
    failure = ""
    while not stop.requested:
        if not receiver.poll(POLL_S):
            continue
        try:
            kind, content = receiver.recv()
        except EOFError:
            break
        if kind == "progress":
            print(f"fit: {content}", flush=True)
        elif kind == "metric":
            report_metric(*content)
        else:
            failure = content
    if stop.requested:
        child.kill()
        print("fit: stopped by a signal", flush=True)
    child.join()
    if child.exitcode == -signal.SIGKILL and not stop.requested:
        failure = "its process was killed by signal 9, most likely for want of memory. Use a larger instance or fewer rows."
    return failure or ("" if child.exitcode == 0 else f"its process ended with exit code {child.exitcode}.")


def _fit_rounds(
    plan: Plan, data: Data, path: Path, sender: Connection, resumed_after: int, checkpoints: Checkpoints | None
) -> None:
    """Run in the child: fit step by step, leave a checkpoint after each, then cross-validate."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    warnings.simplefilter("ignore", ConvergenceWarning)
    try:
        # A process that multiprocessing made may have no children of its own: forests grow in threads.
        with joblib.parallel_config(backend="threading"), threadpool_limits(1 if _is_small(data.train) else None):
            pipeline = joblib.load(path) if resumed_after else plan.pipeline
            for rounds in [rounds for rounds in plan.steps() if rounds > resumed_after]:
                _fit_until(pipeline, plan.parameter, rounds, data.train)
                _leave(pipeline, path, rounds, checkpoints)
                sender.send(("progress", f"{rounds} of {plan.rounds} rounds"))
            for name, value in _cross_validate(plan, data.whole).items():
                sender.send(("metric", (name, value)))
    except Exception as error:
        traceback.print_exc()
        sender.send(("failure", f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error


def _is_small(table: Table) -> bool:
    return table.matrix.size < SMALL_CELLS


def _fit_until(pipeline: Pipeline, parameter: str | None, rounds: int, table: Table) -> None:
    """Carry the fit on to a number of rounds."""
    if parameter:
        pipeline.set_params(**{f"estimator__{parameter}": rounds, "estimator__warm_start": True})
    pipeline.fit(table.matrix, table.target)
    if parameter:
        pipeline.set_params(estimator__warm_start=False)  # who fits the saved pipeline again means to start anew


def _leave(pipeline: Pipeline, path: Path, rounds: int, checkpoints: Checkpoints | None) -> None:
    """Leave the pipeline for the parent, and for a job that starts again."""
    with replacing(path) as temporary:
        joblib.dump(pipeline, temporary)
    if checkpoints:
        checkpoints.save(Checkpoint(rounds, path.read_bytes()))


def _cross_validate(plan: Plan, table: Table) -> Mapping[str, float]:
    """Return the mean of each metric over shuffled folds, as `cv:` metrics; nothing below two folds."""
    if plan.cv_folds < 2:
        return {}
    kind = StratifiedKFold if hasattr(plan.pipeline, "predict_proba") else KFold
    folds = kind(plan.cv_folds, shuffle=True, random_state=plan.seed).split(table.matrix, table.target)
    scores = []
    for learn, held_out in folds:
        pipeline = clone(plan.pipeline).fit(table.matrix[learn], table.target[learn])
        scores.append(measure(pipeline, table.matrix[held_out], table.target[held_out]))
    return {f"cv:{name}": float(np.mean([score[name] for score in scores])) for name in scores[0]}
