"""The part of a job up to the fitted pipeline, on one machine: read, search where that is asked for, fit."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.collector import uncollected
from contract.declaration import AUTO, Declaration
from contract.job import Job
from training.beside import Beside
from training.checkpoints import Checkpoints, job_key
from training.facts import described
from training.fit import Fitted, Plan, fit, is_small
from training.libraries import give_free_memory_back, load_lightgbm
from training.split import Data, read_data
from training.stop import Stop

if TYPE_CHECKING:  # a second of imports that only a search needs
    from training.search import Look


@dataclass(frozen=True)
class Done:
    """What a job comes to before its model is measured."""

    data: Data
    """Described: of the training rows a selection is left."""
    values: Mapping[str, Any]
    """The hyperparameters; after a search those that it chose."""
    fitted: Fitted
    searched: Mapping[str, Any] = field(default_factory=dict)
    """What a search says of itself."""

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the search, or the fit, early."""
        return self.fitted.stopped or bool(self.searched.get("stopped"))


def fit_alone(job: Job, declaration: Declaration, values: Mapping[str, Any], stop: Stop, look: Look | None = None) -> Done:
    """Return what a job comes to before its model is measured.

    Args:
        job: where the rows are, and checkpoints.
        declaration: what they are.
        values: the hyperparameters.
        stop: whether the platform asked to stop.
        look: what runs a search in place of a child of this process; who gives it cross-validates too.

    Raises:
        BerthError: the rows can't be used, the fit failed, or a stop came before there was a model.
    """
    with stop.ending("reading the data"):
        data = read_data(job, declaration, values)
    key = job_key(declaration, values, data.train) if job.checkpoints else ""
    checkpoints = Checkpoints.open(job.checkpoints, job.host, key) if job.checkpoints else None
    searched: dict[str, Any] = {}
    if values["estimator"] == AUTO:
        from training.search import search

        values, found = search(declaration, values, data.train, stop, checkpoints, look)
        searched = asdict(found)
        if checkpoints:
            checkpoints = replace(checkpoints, key=job_key(declaration, values, data.train))
    if values["estimator"] == "lightgbm":
        load_lightgbm()
    with tempfile.TemporaryDirectory(prefix="berth-") as scratch:
        plan = Plan.from_values(declaration, values)
        rows = data if look is None else replace(data, whole=None)
        give_free_memory_back()
        meanwhile = Beside(lambda: _prepare(data, declaration), idle=not is_small(data.train))
        fitted = fit(plan, rows, Path(scratch), stop, checkpoints, meanwhile.start)
    return Done(meanwhile.result(), values, fitted, searched)


def _prepare(data: Data, declaration: Declaration) -> Data:
    """Describe the rows, let go of those that the fit alone needs, and load the libraries of what comes after it."""
    told = described(data, declaration)
    if data.only_fitted:
        data.train.release()
    with uncollected():
        from training import artifacts, report  # noqa: F401
    return told
