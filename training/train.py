"""`train`: from /opt/ml/input to a verified model directory, one straight path.

Only the standard library is imported before the signal handler is in place (T-4).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contract.cgroup import cpus
from contract.collector import uncollected
from contract.errors import AlgorithmError, BerthError, UserError
from contract.files import write_text
from contract.hyperparameters import ignored_hyperparameters, parse_hyperparameters
from contract.job import Job, read_job
from training.settings import Settings
from training.stop import Stop

if TYPE_CHECKING:  # the libraries behind it load after the signal handler is in place
    from training.cluster import Cluster

FAILURE_CHARACTERS = 1024  # T-26: of the file, what reaches the user


def main(arguments: Sequence[str] = ()) -> int:
    """Train as the platform asks, and return the exit code (T-25): 0, 1 the user's fault, 2 ours, 143 stopped.

    With arguments nothing is trained: they ask for help or for a description.
    """
    stop = Stop()
    stop.install()
    if arguments:
        return _answer(arguments)
    # Every CPU that the cgroup grants, not every CPU of the host; read by the libraries when they load.
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus()))
    # Threads that wait spin for some microseconds, then sleep: always spinning starves a shared machine (a script of
    # 9 s took 167), never spinning costs a third of the fit.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    settings = Settings.from_environ(os.environ)
    try:
        return _run(settings, read_job(settings.paths, os.environ), stop)
    except BerthError as error:
        return _fail(settings, error)
    except Exception as error:
        traceback.print_exc()
        return _fail(settings, AlgorithmError(f"{type(error).__name__}: {error}. The log has the traceback."))
    finally:
        stop.ignore()


def _run(settings: Settings, job: Job, stop: Stop) -> int:
    """Train on this host alone, or lead the job's others, or follow their leader."""
    if len(job.hosts) == 1:
        train(settings, job, stop)
        return 0
    from training.cluster import follow, lead

    if job.host != job.hosts[0]:
        return follow(job, stop)
    with lead(job, stop) as cluster:
        train(settings, job, stop, cluster)
    return 0


def train(settings: Settings, job: Job, stop: Stop, cluster: Cluster | None = None) -> None:
    """Read, fit, measure, export, write.

    Raises:
        BerthError: the job can't be done; nothing of this run is left in the model directory.
    """
    started = datetime.now(UTC)
    from model import DECLARATION

    values = parse_hyperparameters(job.hyperparameters, DECLARATION.hyperparameters)
    for name in ignored_hyperparameters(job.hyperparameters, DECLARATION.hyperparameters, str(values["estimator"])):
        print(f"train: {name} is ignored: it is no hyperparameter of {values['estimator']}", flush=True)
    print(f"train: {DECLARATION.name}, {values['estimator']}, {_job_name(job)}", flush=True)
    from training.drawing import Drawer

    drawer = Drawer()
    drawer.start()

    if cluster:
        from training.together import fit_together

        done = fit_together(cluster, job, DECLARATION, values)
    else:
        with stop.ending("loading its libraries"), uncollected():
            from training import libraries  # noqa: F401  # first of all
            from training.alone import fit_alone

        done = fit_alone(job, DECLARATION, values, stop)

    from training import artifacts
    from training.evaluate import evaluate

    evaluation = evaluate(DECLARATION, done.fitted.model, done.data, done.values, done.stopped or stop.requested)
    rounds = done.fitted.resumed_after
    origin = {**_origin(settings, job, started), "stopped_early": done.stopped, "resumed_after_rounds": rounds}
    artifacts.write(settings.paths.model, artifacts.Trained(DECLARATION, done, evaluation, origin), drawer)


def _answer(arguments: Sequence[str]) -> int:
    from training.command import answer

    try:
        return answer(arguments)
    except BerthError as error:  # the declaration's faults
        print(f"train: {error.message}", file=sys.stderr, flush=True)
        return error.exit_code


def _job_name(job: Job) -> str:
    return f"job {job.name}" if job.name else "no job name"


def _origin(settings: Settings, job: Job, started: datetime) -> Mapping[str, Any]:
    return {
        "training_job_name": job.name,
        "training_job_arn": job.arn,
        "image_version": settings.image_version,
        "image_revision": settings.image_revision,
        "started": started.isoformat(timespec="seconds"),
    }


def _fail(settings: Settings, error: BerthError) -> int:
    """Leave the failure file, its useful line first (T-26), and return the exit code."""
    kind = "UserError" if isinstance(error, UserError) else type(error).__name__
    text = f"{kind}: {error.message}"
    print(f"train: failed: {text}", file=sys.stderr, flush=True)
    failure = settings.paths.failure
    try:
        failure.parent.mkdir(parents=True, exist_ok=True)
        if not failure.exists():  # another host may have been first, and its reason is the one to keep
            text = text.encode("utf-8", "replace").decode()  # a job's names may hold half a character
            write_text(failure, text[: FAILURE_CHARACTERS - 1] + "\n")
    except OSError as problem:
        print(f"train: {failure} can't be written: {problem}", file=sys.stderr, flush=True)
    return error.exit_code
