"""A job of several hosts up to the fitted pipeline: LightGBM learns from all of them, other estimators on the leader.

What the other hosts do for those is to search and to cross-validate, through joblib's Dask backend.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import joblib
from joblib._dask import DaskDistributedBackend
from joblib._utils import _TracebackCapturingWrapper

from contract.declaration import Declaration
from contract.errors import UserError
from contract.job import TRAINING, Job
from contract.metrics import report_metric
from training import distribute
from training.alone import Done, fit_alone
from training.child import Tell
from training.cluster import Cluster
from training.facts import described
from training.fit import Plan, cross_validate
from training.rounds import Enough
from training.stop import Stop

T = TypeVar("T")


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
        return Done(described(spread.data, declaration), values, distribute.fit(cluster, declaration, values, spread))
    done = fit_alone(job, declaration, values, cluster.stop, partial(look, cluster))
    if done.data.whole is not None:
        score = partial(_on_workers, cross_validate, Plan.from_values(declaration, done.values), done.data.whole)
        for name, value in cluster.run("cross-validating", score).items():
            report_metric(name, value)
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
    from training.search import brackets

    over = threading.Event()

    def tell(content: Any) -> None:
        if over.is_set():
            raise Enough
        hear(content)

    def end() -> None:
        if stop.requested or time.monotonic() >= deadline:
            raise Enough

    deadline = time.monotonic() + seconds
    try:
        cluster.run("searching", partial(_on_workers, brackets, tell, *arguments), end)
    except Enough:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        over.set()
    return "it ended before its time"


def _on_workers(work: Callable[..., T], *arguments: Any) -> T:
    """Return what work comes to whose parallel parts joblib gives to the cluster; the context is of this thread alone."""
    with joblib.parallel_config(backend=_Backend()):
        return work(*arguments)


class _Backend(DaskDistributedBackend):  # type: ignore[misc]  # joblib has no types
    """joblib's own, which (1.6) waits for ever for calls that can't be sent, and for a task that fails outside of its calls."""

    def submit(self, func: Any, callback: Callable[[Any], None]) -> Any:
        """Send some calls to a worker; `callback` hears what came of them, an error too, which joblib then raises."""
        answer: Future[Any] = Future()
        answer.add_done_callback(lambda done: callback(error) if (error := done.exception()) else None)

        async def send() -> None:
            try:
                batch, calls = await self._to_func_args(func)
                task = self.client.submit(_TracebackCapturingWrapper(batch), tasks=calls, pure=False)
            except Exception as error:
                answer.set_exception(error.__cause__ or error)  # Dask's own names no more than the class of its graph
            else:
                self._callbacks[task], self._results[task] = callback, answer
                self.waiting_futures.add(task)

        self.client.loop.add_callback(send)
        return answer
