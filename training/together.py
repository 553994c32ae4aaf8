"""A job of several hosts up to the fitted pipeline: LightGBM learns from all of them, other estimators on the leader.

What the other hosts do for those is to search and to cross-validate, through joblib's Dask backend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from contract.declaration import Declaration
from contract.errors import UserError
from contract.job import TRAINING, Job
from contract.metrics import report_metric
from model.metrics import measure
from training import distribute
from training.alone import Done, fit_alone
from training.child import Tell
from training.cluster import Cluster
from training.fit import Plan
from training.read import Table, concatenate
from training.rounds import Enough
from training.stop import Stop


def fit_together(cluster: Cluster, job: Job, declaration: Declaration, values: Mapping[str, Any]) -> Done:
    """Return what a job of several hosts comes to before its model is measured.

    LightGBM learns from the rows of all hosts. Another estimator learns on the leader, which then has all rows; what the others
    do is to cross-validate, and to search where `estimator=auto` asks for it.

    Raises:
        BerthError: the rows can't be used, the fit failed, a host was lost, or a stop came.
    """
    check_one_machine(job, values)
    if values["estimator"] == "lightgbm":
        spread = distribute.read_data(cluster, job, declaration, values)
        return Done(spread.data, values, distribute.fit(cluster, declaration, values, spread))
    folds = values["cv_folds"]
    done = fit_alone(job, declaration, {**values, "cv_folds": 0}, cluster.stop, partial(look, cluster))
    done = replace(done, values={**done.values, "cv_folds": folds})
    if folds > 1:
        whole = concatenate([done.data.train, done.data.validation])
        cross_validate(cluster, Plan.from_values(declaration, done.values), whole)
    return done


def check_one_machine(job: Job, values: Mapping[str, Any]) -> None:
    """Refuse what can't be done: scikit-learn's estimators fit on the leader, which then must have all rows.

    Raises:
        UserError: the training channel is sharded, or folds are asked of rows that stay where they are.
    """
    channel = job.channel(TRAINING)
    if values["estimator"] == "lightgbm":
        if values["cv_folds"] > 1:
            raise UserError("cv_folds needs all rows on one host, and lightgbm leaves them where they are. Set cv_folds to 0.")
    elif channel and channel.is_sharded:
        raise UserError(
            f"{values['estimator']} is fitted on one machine, but channel {channel.name!r} is ShardedByS3Key over "
            f"{len(job.hosts)} hosts. Make it FullyReplicated, set the instance count to 1, or set estimator=lightgbm."
        )
    else:
        print(
            f"cluster: {values['estimator']} is fitted on {job.hosts[0]} alone; the other hosts search and cross-validate",
            flush=True,
        )


def look(cluster: Cluster, arguments: tuple[Any, ...], hear: Tell, stop: Stop, seconds: float) -> str:
    """Run a search's brackets over the cluster until a stop or the end of its seconds; return why it failed.

    A host that is lost takes its candidates with it: what was found by then counts, as at the end of the time.
    """
    over = threading.Event()

    def tell(content: Any) -> None:
        if over.is_set():
            raise Enough
        hear(content)

    def search_brackets() -> None:
        from training.search import brackets

        with joblib.parallel_config(backend="dask"):  # of this thread
            brackets(tell, *arguments)

    def end() -> None:
        if stop.requested or time.monotonic() >= deadline:
            raise Enough

    deadline = time.monotonic() + seconds
    try:
        cluster.run("searching", search_brackets, end)
    except Enough:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        over.set()
    return "it ended before its time"


def cross_validate(cluster: Cluster, plan: Plan, table: Table) -> None:
    """Print the mean of each metric over shuffled folds, which the hosts share out."""
    kind = StratifiedKFold if table.target.dtype.kind == "U" else KFold
    folds = list(kind(plan.cv_folds, shuffle=True, random_state=plan.seed).split(table.matrix, table.target))

    def score_folds() -> list[dict[str, float]]:
        with joblib.parallel_config(backend="dask"):  # of this thread
            return joblib.Parallel()(joblib.delayed(score_fold)(plan.pipeline, table, *fold) for fold in folds)

    scores = cluster.run("cross-validating", score_folds)
    for name in scores[0]:
        report_metric(f"cv:{name}", float(np.mean([score[name] for score in scores])))


def score_fold(pipeline: Pipeline, table: Table, learn: Any, held_out: Any) -> dict[str, float]:
    """Return the metrics of one fold; runs in a worker."""
    fitted = clone(pipeline).fit(table.matrix[learn], table.target[learn])
    return measure(fitted, table.matrix[held_out], table.target[held_out])
