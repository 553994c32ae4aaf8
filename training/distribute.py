"""The rows of several hosts, and fits over them: each host reads its own, and no training row is moved but a bounded sample.

Where a channel is replicated every host takes each n-th row of it; where it is sharded (T-23) a host's rows are its part, which
may be empty. Held-out rows are a seeded split of every host's rows, or the validation channel's, likewise.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from contract.declaration import Declaration
from contract.errors import AlgorithmError, BadData, BerthError, UserError
from contract.job import TRAINING, VALIDATION, Channel, Job, read_job
from contract.metrics import ROWS_DROPPED, report_metric
from contract.paths import Paths
from model.pipeline import build_pipeline
from training.cluster import LIGHTGBM_PORT, Cluster
from training.fit import Fitted
from training.read import Table, concatenate, read_channel
from training.split import LEAST_ROWS, SAMPLES, Data

GATHERED_ROWS = 50_000
"""What the leader takes of the held-out rows, and of the training rows: for metrics, parity and the manifest's ranges."""


@dataclass(frozen=True)
class Shard:
    """One host's rows; it stays in that host's worker."""

    train: Table
    validation: Table
    dropped: int
    """Rows left out for a fault; of a replicated channel the first host counts them."""
    out_of_range: int
    """Rows whose target is outside its declared range, counted likewise."""


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
    dropped, outside = (sum(fact[name] for fact in facts.values()) for name in ("dropped", "out_of_range"))
    report_metric(ROWS_DROPPED, dropped)
    about = {
        **total,
        "held_out_by": "the channel validation"
        if job.channel(VALIDATION)
        else f"a split on each host with seed {values['seed']}",
        "rows_dropped": dropped,
        "target_out_of_range": outside,
        "sha256": combined,
        "hosts": rows,
        "measured_rows": [len(train), len(validation)],
    }
    shards = {host: future for host, future in futures.items() if rows[host]}
    head = train.take(np.arange(min(SAMPLES, len(train))))
    return Spread(shards, rows, Data(train, validation, head, about["held_out_by"], dropped, outside, about=about))


def read_shard(host: str, hosts: Sequence[str], values: Mapping[str, Any]) -> Shard:
    """Return this host's rows; runs in its worker.

    Raises:
        BerthError: they can't be used; the message names the host.
    """
    from model import DECLARATION

    job, index = read_job(Paths.from_environ(os.environ), os.environ), hosts.index(host)
    own = partial(_own_rows, declaration=DECLARATION, drop=values["bad_rows"] == "drop", index=index, hosts=len(hosts))
    try:
        table = own(job.channel(TRAINING))
        if job.channel(VALIDATION):
            held_out = own(job.channel(VALIDATION))
            return Shard(table, held_out, table.dropped + held_out.dropped, table.out_of_range + held_out.out_of_range)
    except BerthError as error:
        raise type(error)(f"Host {host}: {error.message}", **error.facts) from error
    order = np.random.default_rng([values["seed"], index]).permutation(len(table))
    rows = min(round(len(table) * values["validation_fraction"]), values["validation_rows"] // len(hosts))
    learn, held_out = table.take(np.sort(order[rows:])), table.take(np.sort(order[:rows]))
    return Shard(learn, held_out, table.dropped, table.out_of_range)


def describe(shard: Shard) -> dict[str, Any]:
    """Return what the leader must know of a shard; runs in its worker."""
    return {
        "rows": len(shard.train),
        "dropped": shard.dropped,
        "out_of_range": shard.out_of_range,
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
    started = time.monotonic()
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
    rounds, seconds = values["max_iter"], time.monotonic() - started
    print(f"fit: {rounds} of {rounds} rounds on {len(spread.shards)} hosts in {seconds:.1f} s", flush=True)
    return Fitted(pipeline, False, 0)


def _own_rows(channel: Channel | None, declaration: Declaration, drop: bool, index: int, hosts: int) -> Table:
    if channel is None:
        raise UserError("The job has no channel named 'training' (or 'train').")
    table = read_channel(channel, declaration, drop=drop, hosts=hosts)  # T-23: empty, where other hosts have its files
    if channel.is_sharded:
        return table
    own = table.take(np.arange(index, len(table), hosts))
    return replace(own, dropped=table.dropped, out_of_range=table.out_of_range) if index == 0 else own


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
    return concatenate(tables)


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
