"""Which rows are learnt from and which are held out: a validation channel, else a seeded split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from contract.declaration import Declaration
from contract.errors import BadChannel, BadData
from contract.job import TRAINING, VALIDATION, Job
from contract.metrics import ROWS_DROPPED, report_metric
from training.read import Table, read_channel

LEAST_ROWS = 10
SAMPLES = 3


@dataclass(frozen=True)
class Data:
    """The job's rows."""

    train: Table
    validation: Table
    head: Table
    """The training channel's first three rows."""
    held_out_by: str = ""
    """What chose the held-out rows: a channel, or a split and its seed."""
    rows_dropped: int = 0
    """Rows that had a fault and were left out."""
    target_out_of_range: int = 0
    """Rows whose target is outside the range declared for it; they are among the others."""
    whole: Table | None = None
    """The training channel as it came, for a cross-validation; None where there is none, since it is a copy of all rows."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest says of the rows; with several hosts, of all of them, of which these are a sample."""
    ranges: Mapping[str, Any] = field(default_factory=dict)
    """Each feature's least, median and greatest value in training, or counts of its choices; and how many are missing."""
    spread: float = 0.0
    """The standard deviation of the training target; 0 for classes."""

    @property
    def only_fitted(self) -> bool:
        """Whether nothing but the fit looks at all training rows: no cross-validation shares them."""
        return self.whole is not self.train


def read_data(job: Job, declaration: Declaration, values: Mapping[str, Any]) -> Data:
    """Return the training and the held-out rows.

    Raises:
        BadChannel: there is no training channel.
        BadData: there are too few rows, or a declared label or any value of a feature never occurs.
        SchemaMismatch: a file lacks a column.
    """
    channel = job.channel(TRAINING)
    if channel is None:
        found = ", ".join(job.channels) or "none"
        raise BadChannel(f"The job's channels are: {found}. One named 'training' (or 'train') was expected.")
    options: dict[str, Any] = {"drop": values["bad_rows"] == "drop", "hosts": len(job.hosts)}
    table, held_out = read_channel(channel, declaration, **options), job.channel(VALIDATION)
    if len(table) < LEAST_ROWS:
        raise BadData(f"Channel {channel.name!r} has {len(table)} rows; at least {LEAST_ROWS} are needed.", rows=len(table))
    if held_out:
        data = Data(table, read_channel(held_out, declaration, **options), table.take(np.arange(SAMPLES)))
        if not len(data.validation):
            raise BadData(f"Channel {held_out.name!r} has no rows; give it some, or leave it out for a split.", rows=0)
    else:
        data = _split(table, values)
    _check_labels(data.train, declaration)
    _check_columns(data.train, declaration)
    _check_folds(table, declaration, int(values["cv_folds"]))
    origin = f"the channel {held_out.name}" if held_out else f"a split with seed {values['seed']}"
    data = replace(
        data,
        held_out_by=origin,
        rows_dropped=table.dropped + data.validation.dropped,
        target_out_of_range=table.out_of_range + data.validation.out_of_range,
        whole=table if int(values["cv_folds"]) > 1 else None,
    )
    report_metric(ROWS_DROPPED, data.rows_dropped)
    print(f"data: {len(data.train):,} rows to learn from, {len(data.validation):,} held out ({origin})", flush=True)
    return data


def evenly(count: int, most: int) -> NDArray[np.intp]:
    """Return the indexes of at most `most` of `count` rows, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.intp)) if count else np.arange(0)


def _split(table: Table, values: Mapping[str, Any]) -> Data:
    # scikit-learn rounds a share up too; a sample of 20,000 tells an RMSE to half a percent, whatever the rows.
    held_out_rows = min(math.ceil(values["validation_fraction"] * len(table)), values["validation_rows"])
    _, chosen = train_test_split(
        np.arange(len(table)), test_size=held_out_rows, random_state=values["seed"], stratify=_strata(table, held_out_rows)
    )
    held_out = np.zeros(len(table), dtype=bool)  # a mask keeps the rows' order, and takes a third of a sort's time
    held_out[chosen] = True
    return Data(table.take(~held_out), table.take(held_out), table.take(np.arange(SAMPLES)))


def _strata(table: Table, held_out_rows: int) -> np.ndarray[Any, Any] | None:
    """Return the labels where each class has rows enough for both sides."""
    if table.target.dtype.kind != "U":
        return None
    counts = np.unique(table.target, return_counts=True)[1]
    enough = counts.min() >= 2 and len(counts) <= min(held_out_rows, len(table) - held_out_rows)
    return table.target if enough else None


def _check_labels(table: Table, declaration: Declaration) -> None:
    unseen = sorted(set(declaration.target.labels) - set(table.target.astype(str))) if declaration.target.labels else []
    if unseen:
        raise BadData(f"No training row has the label {', '.join(unseen)}; each declared label needs some.", labels=unseen)


def _check_columns(table: Table, declaration: Declaration) -> None:
    empty = [declaration.feature_names[index] for index in np.flatnonzero(np.isnan(table.matrix).all(axis=0))]
    if empty:
        raise BadData(
            f"No training row has a value for {', '.join(empty)}: it can teach nothing. Take it out of model/features.py.",
            columns=empty,
        )


def _check_folds(table: Table, declaration: Declaration, folds: int) -> None:
    is_class = declaration.target.kind == "class"
    most = int(np.unique(table.target, return_counts=True)[1].min()) if is_class else len(table)
    if folds > max(most, 1):
        what = "rows of the rarest label" if is_class else "rows"
        raise BadData(f"cv_folds is {folds}, but there are {most} {what}; each fold needs one. Set fewer folds.", rows=most)
