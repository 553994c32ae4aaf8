"""The rows of several hosts, and fits over them: each host reads its own, and no training row is moved but a bounded sample.

Where a channel is replicated every host takes each n-th row of it; where it is sharded (T-23) a host's rows are its part, which
may be empty. Held-out rows are a seeded split of every host's rows, or the validation channel's, likewise.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import joblib
import numpy as np
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from contract.declaration import Declaration
from contract.errors import AlgorithmError, BadData, BerthError, UserError
from contract.job import TRAINING, VALIDATION, Channel, Job, read_job
from contract.metrics import report_metric
from contract.paths import Paths
from model.metrics import measure
from model.pipeline import build_pipeline
from training.cluster import LIGHTGBM_PORT, Cluster
from training.fit import Fitted, Plan
from training.read import Table, read_channel
from training.split import LEAST_ROWS, Data

GATHERED_ROWS = 50_000
"""What the leader takes of the held-out rows, and of the training rows: for metrics, parity and the manifest's ranges."""


@dataclass(frozen=True)
class Shard:
    """One host's rows; it stays in that host's worker."""

    train: Table
    validation: Table


@dataclass(frozen=True)
class Spread:
    """The rows of all hosts: where they are, and the leader's sample of them."""

    shards: Mapping[str, Any]
    """Host to the future of its Shard, of those that have training rows."""
    rows: Mapping[str, int]
    data: Data


def read_data(cluster: Cluster, job: Job, declaration: Declaration, values: Mapping[str, Any]) -> Spread:
    """Let every host read its rows; return where they are, and a sample.

    Raises:
        BerthError: a host's rows can't be used; the message names the host.
        BadData: all hosts' rows together are too few, or lack a label or any value of a feature.
    """
    read = partial(read_shard, hosts=job.hosts, values=dict(values))
    futures = {host: _on(cluster, host, read, host) for host in job.hosts}
    facts = _gather(cluster, {host: _on(cluster, host, describe, future) for host, future in futures.items()})
    _check(facts, declaration)
    rows = {host: fact["rows"] for host, fact in facts.items()}
    held_out = {host: fact["held_out"] for host, fact in facts.items()}
    train = _sample(cluster, futures, "train", rows)
    validation = _sample(cluster, futures, "validation", held_out)
    total = {"train_rows": sum(rows.values()), "validation_rows": sum(held_out.values())}
    counts = ", ".join(f"{host} {rows[host]:,} and {held_out[host]:,}" for host in job.hosts)
    print(f"data: {total['train_rows']:,} rows to learn from, {total['validation_rows']:,} held out ({counts})", flush=True)
    combined = hashlib.sha256("".join(fact["sha256"] for fact in facts.values()).encode()).hexdigest()
    about = {**total, "sha256": combined, "hosts": rows, "measured_rows": [len(train), len(validation)]}
    shards = {host: future for host, future in futures.items() if rows[host]}
    return Spread(shards, rows, Data(train, validation, train, about))


def read_shard(host: str, hosts: Sequence[str], values: Mapping[str, Any]) -> Shard:
    """Return this host's rows; runs in its worker.

    Raises:
        BerthError: they can't be used; the message names the host.
    """
    from model import DECLARATION

    job, index = read_job(Paths.from_environ(os.environ), os.environ), hosts.index(host)
    try:
        table = _own_rows(job.channel(TRAINING), DECLARATION, index, len(hosts))
        if job.channel(VALIDATION):
            return Shard(table, _own_rows(job.channel(VALIDATION), DECLARATION, index, len(hosts)))
    except BerthError as error:
        raise type(error)(f"Host {host}: {error.message}", **error.facts) from error
    order = np.random.default_rng([values["seed"], index]).permutation(len(table))
    held_out = round(len(table) * values["validation_fraction"])
    return Shard(table.take(np.sort(order[held_out:])), table.take(np.sort(order[:held_out])))


def describe(shard: Shard) -> dict[str, Any]:
    """Return what the leader must know of a shard; runs in its worker."""
    return {
        "rows": len(shard.train),
        "held_out": len(shard.validation),
        "labels": sorted(set(shard.train.target.tolist())) if shard.train.target.dtype.kind == "U" else [],
        "empty": np.isnan(shard.train.matrix).all(axis=0),
        "sha256": shard.train.fingerprint(),
    }


def fit(cluster: Cluster, declaration: Declaration, values: Mapping[str, Any], spread: Spread) -> Fitted:
    """Return LightGBM's pipeline, fitted over the rows of all hosts, each of which keeps its own.

    A classifier is fitted as the booster within it, over indexes of labels: LightGBM's own distributed classifier takes each
    host's labels for all there are.

    Raises:
        AlgorithmError: the fit failed, or a host was lost.
    """
    from lightgbm import DaskLGBMRegressor

    labels = sorted(declaration.target.labels)
    pipeline = build_pipeline(declaration, values)
    # The order of this list ranks the hosts: left to who is first, the same job would end in another model.
    machines = ",".join(f"{urlsplit(cluster.workers[host]).hostname}:{LIGHTGBM_PORT}" for host in spread.shards)
    parameters = {**pipeline[-1].get_params(), "machines": machines, "tree_learner": "data"}
    if labels:
        several = {"objective": "multiclass", "num_class": len(labels)}
        parameters.update(several if len(labels) > 2 else {"objective": "binary"})
    matrix, target = _arrays(cluster, spread, labels)
    # Each host's worker has as many threads as its container grants, and LightGBM says that it passes over ours.
    warnings.filterwarnings("ignore", "Parameter n_jobs will be ignored")
    distributed = DaskLGBMRegressor(client=cluster.client, **parameters)
    try:
        cluster.run("fitting", lambda: distributed.fit(matrix, target))
    except BerthError:
        raise
    except Exception as error:
        raise AlgorithmError(f"The fit over {len(spread.shards)} hosts failed: {type(error).__name__}: {error}") from error
    # A fit of a row a label makes the pipeline know what it needs; its trees are then exchanged for those of all hosts.
    known: Any = labels or [0.0, 0.0]
    pipeline.fit(np.zeros((len(known), matrix.shape[1]), np.float32), np.array(known))
    pipeline[-1]._Booster = distributed.booster_
    print(f"fit: {values['max_iter']} of {values['max_iter']} rounds, on {len(spread.shards)} hosts", flush=True)
    return Fitted(pipeline, False, 0)


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
        print(f"cluster: {values['estimator']} is fitted on {job.hosts[0]} alone; the other hosts cross-validate", flush=True)


def cross_validate(cluster: Cluster, plan: Plan, table: Table) -> None:
    """Print the mean of each metric over shuffled folds, which the hosts share out; nothing below two folds."""
    if plan.cv_folds < 2:
        return
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


def _own_rows(channel: Channel | None, declaration: Declaration, index: int, hosts: int) -> Table:
    if channel is None:
        raise UserError("The job has no channel named 'training' (or 'train').")
    if not any(path.is_file() for path in channel.path.rglob("*")):  # T-23: fewer objects than hosts
        kind = np.float64 if declaration.target.kind == "number" else np.str_
        return Table(np.empty((0, len(declaration.features)), np.float32), np.empty(0, kind))
    table = read_channel(channel, declaration)
    return table if channel.is_sharded else table.take(np.arange(index, len(table), hosts))


def _on(cluster: Cluster, host: str, function: Any, *arguments: Any) -> Any:
    """Return the future of a call in a host's worker and nowhere else."""
    return cluster.client.submit(function, *arguments, workers=[cluster.workers[host]], allow_other_workers=False, pure=False)


def _gather(cluster: Cluster, futures: Mapping[str, Any]) -> dict[str, Any]:
    return dict(cluster.run("reading the data", lambda: cluster.client.gather(dict(futures))))


def _check(facts: Mapping[str, Mapping[str, Any]], declaration: Declaration) -> None:
    rows, held_out = (sum(fact[part] for fact in facts.values()) for part in ("rows", "held_out"))
    if rows < LEAST_ROWS or not held_out:
        raise BadData(
            f"All hosts have {rows} rows to learn from and {held_out} held out; at least {LEAST_ROWS} and 1 are needed."
        )
    unseen = sorted(set(declaration.target.labels).difference(*(fact["labels"] for fact in facts.values())))
    if unseen:
        raise BadData(f"No training row has the label {', '.join(unseen)}; each declared label needs some.", labels=unseen)
    nowhere = np.all([fact["empty"] for fact in facts.values()], axis=0)
    empty = [declaration.feature_names[index] for index in np.flatnonzero(nowhere)]
    if empty:
        raise BadData(f"No training row has a value for {', '.join(empty)}. Take it out of model/features.py.", columns=empty)


def _sample(cluster: Cluster, shards: Mapping[str, Any], part: str, counts: Mapping[str, int]) -> Table:
    """Return all rows of a part where they are at most 50,000, else each host's share of that, evenly chosen."""
    share = min(1.0, GATHERED_ROWS / max(1, sum(counts.values())))
    futures = {host: _on(cluster, host, choose, shard, part, int(counts[host] * share)) for host, shard in shards.items()}
    tables = list(_gather(cluster, futures).values())
    return Table(np.concatenate([table.matrix for table in tables]), np.concatenate([table.target for table in tables]))


def choose(shard: Shard, part: str, count: int) -> Table:
    """Return an even selection of a shard's rows; runs in its worker."""
    table: Table = getattr(shard, part)
    return table.take(np.linspace(0, max(0, len(table) - 1), count).astype(np.intp))


def _arrays(cluster: Cluster, spread: Spread, labels: Sequence[str]) -> tuple[Any, Any]:
    """Return Dask arrays of features and targets, one block a host, each where it lies."""
    da: Any = importlib.import_module("dask.array")  # with it comes what only this needs
    delayed = importlib.import_module("dask").delayed

    width = spread.data.train.matrix.shape[1]
    blocks = []
    for host, shard in spread.shards.items():
        matrix, target = (_on(cluster, host, pick, shard, part, labels) for part in ("matrix", "target"))
        rows = spread.rows[host]
        blocks.append(
            (da.from_delayed(delayed(matrix), (rows, width), np.float32), da.from_delayed(delayed(target), (rows,), np.float64))
        )
    matrices, targets = zip(*blocks, strict=True)
    return da.concatenate(matrices), da.concatenate(targets)


def pick(shard: Shard, part: str, labels: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return a shard's matrix or target, labels by index; runs in its worker."""
    values: np.ndarray[Any, Any] = getattr(shard.train, part)
    return values if part == "matrix" or not labels else np.searchsorted(labels, values).astype(np.float64)
