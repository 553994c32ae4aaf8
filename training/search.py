"""`estimator=auto`: which estimator and which of its knobs, by successive halving until the time is spent.

The search sees training rows alone, at most 100,000 of them, and is scored by folds of these: what is held out stays unseen.
It runs in a child that is killed when its time is over; what it had found by then is the answer. Each bracket follows from the
seed, but how many brackets there are is a matter of the machine: the same job may choose otherwise on another.
"""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import numpy as np
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # makes the next import possible
from sklearn.model_selection import HalvingGridSearchCV, HalvingRandomSearchCV, KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from contract.cgroup import cpus
from contract.declaration import Declaration
from contract.errors import AlgorithmError, BadHyperparameters, Stopped
from contract.files import write_text
from contract.hyperparameters import parse_hyperparameters
from contract.tuning import text
from model.metrics import metrics_of
from training.champion import FOLDS, Contest, Rung
from training.checkpoints import Checkpoints
from training.child import Tell, run
from training.fit import SMALL_CELLS, is_small
from training.read import Table
from training.space import Candidate, Space, toward
from training.stop import Stop

MAX_ROWS = 100_000
FACTOR = 3
"""Each rung of a bracket keeps a third of the candidates and gives them three times the rows."""
LEAST_RUNG = 100
"""Rows below which folds tell little of a candidate, and a fit costs no less."""
LEAST_OF_A_LABEL = 10
MOST_RUNGS = 4
Look = Callable[[tuple[Any, ...], Tell, Stop, float], str]
"""Runs `brackets(tell, *arguments)` until a stop, or the last argument's seconds; returns why it failed."""
GRACE_S, LEAST_GRACE_S = 45, 2
"""After a SIGTERM, for the fit of what was found: of the platform's 120 s (T-27) the rest is for its last round, export and
upload. Fewer than a million cells get their share of it: on 506 rows all is to be over within 5 s."""


@dataclass(frozen=True)
class Found:
    """What the search says of itself in the manifest."""

    metric: str
    score: float | None
    """Mean of the metric over the folds; None where no candidate came to its end."""
    rows: int
    """Rows that the folds were cut from."""
    candidates: int
    seconds: float
    stopped: bool
    """Whether a signal ended the search before its time."""


def search(
    declaration: Declaration,
    values: Mapping[str, Any],
    table: Table,
    stop: Stop,
    kept: Checkpoints | None,
    look: Look | None = None,
) -> tuple[dict[str, Any], Found]:
    """Return the values to fit with, their estimator among them, and how they were found.

    Args:
        declaration: what may be chosen.
        values: the job's; `search_seconds` of them is the time there is, and `seed` what the draws come from.
        table: the rows to learn from.
        stop: whether the platform asked to stop; what was found by then is taken, and there is a grace to fit it in.
        kept: where a job that starts again finds what was chosen; None keeps nothing.
        look: what runs `brackets`; by default a child of this process.

    Raises:
        Stopped: the signal came before any candidate was scored.
        AlgorithmError: the search failed before any candidate was scored.
    """
    earlier = _recall(declaration, kept)
    if earlier:
        return earlier
    started, watch = time.monotonic(), _Watch(declaration, values["search_seconds"])
    failure = (look or run_in_child)((declaration, values, table), watch.hear, stop, values["search_seconds"])
    best = watch.best
    if best is None and stop.requested:
        raise Stopped("Stopped by a signal while searching, before any candidate was scored. Start the job again.")
    if best is None and failure:
        raise AlgorithmError(f"The search failed: {failure}")
    if failure:
        print(f"search: ended early, what was found so far is taken: {failure}", flush=True)
    space = Space(declaration, values)
    chosen = dict(best.values) if best else space.default(_default_estimator(declaration))
    found = watch.found(round(time.monotonic() - started, 1), stop.requested)
    print(f"search: {_told(declaration, chosen, found)}", flush=True)
    _keep(kept, chosen, found)
    if stop.requested:
        stop.put_off(max(LEAST_GRACE_S, min(GRACE_S, GRACE_S * table.matrix.size // SMALL_CELLS)))
    return chosen, found


def brackets(tell: Tell, declaration: Declaration, values: Mapping[str, Any], table: Table) -> None:
    """Search bracket after bracket, without end; every rung, contest and bracket is told of when it ends.

    How many fits run at once, and where, is joblib's context: threads, processes or a cluster's workers give the same.
    """
    warnings.simplefilter("ignore")  # a candidate that fails or doesn't converge has its score to say so
    rows = _sample(table, values["seed"])
    space = Space(declaration, values)
    contest = Contest(declaration, space.default(_default_estimator(declaration)), rows, values["seed"])
    for number in itertools.count():
        bracket = _bracket(number, declaration, space, rows, values["seed"])
        bracket.tell = tell
        bracket.fit(rows.matrix, rows.target)
        tell(contest.meet(bracket.best_params_["values"]))
        tell((number, bracket.n_candidates_, bracket.n_resources_))


def run_in_child(arguments: tuple[Any, ...], hear: Tell, stop: Stop, seconds: float) -> str:
    """Run `brackets` in a child that is killed when its time is over."""
    return run(_in_threads, arguments, hear, stop, seconds)


def _in_threads(tell: Tell, declaration: Declaration, values: Mapping[str, Any], table: Table) -> None:
    """Run in the child, which may have no children of its own: candidates are fitted in threads, each by one.

    On few rows Python's lock makes two threads slower than one: a bracket on 404 rows took 1.5 CPU seconds and 4.1.
    """
    # scikit-learn's imputer imports pandas when it first fits; another thread would see half of it, and fail.
    import pandas  # noqa: F401, ICN001

    backend, jobs = ("sequential", 1) if is_small(table) else ("threading", cpus())
    with joblib.parallel_config(backend=backend, n_jobs=jobs), threadpool_limits(1):
        brackets(tell, declaration, values, table)


class _Telling:
    """A halving search that tells of each rung: a bracket may well be killed before its last."""

    tell: Callable[[Any], None]

    def __getstate__(self) -> dict[str, Any]:
        """Leave `tell` here: a search goes along with each fit that another host is to do."""
        state: Any = super().__getstate__()
        return {name: value for name, value in state.items() if name != "tell"}

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any) -> None:
        def evaluate(*arguments: Any, **options: Any) -> Any:
            results = evaluate_candidates(*arguments, **options)
            last = np.flatnonzero(np.asarray(results["iter"]) == max(results["iter"]))
            scores = np.asarray(results["mean_test_score"], dtype=np.float64)[last]
            if np.isfinite(scores).any():
                best = last[int(np.nanargmax(np.where(np.isfinite(scores), scores, np.nan)))]
                new = len(last) if not max(results["iter"]) else 0
                score, rows = float(results["mean_test_score"][best]), int(results["n_resources"][best])
                self.tell(Rung(results["params"][best]["values"], score, rows, new))
            return results

        super()._run_search(evaluate, callback_ctx=callback_ctx)  # type: ignore[misc]


class _Known(_Telling, HalvingGridSearchCV):  # type: ignore[misc]
    """The defaults of every estimator."""


class _Drawn(_Telling, HalvingRandomSearchCV):  # type: ignore[misc]
    """What the space gives."""


def _bracket(number: int, declaration: Declaration, space: Space, table: Table, seed: int) -> Any:
    """Return the search of one bracket: the first is over the defaults, so that no search ends worse than none."""
    rungs, kind = _rungs(table), StratifiedKFold if declaration.target.kind == "class" else KFold
    options = {
        "factor": FACTOR,
        "cv": kind(FOLDS, shuffle=True, random_state=seed),
        "random_state": (seed + number) % 2**32,
        "refit": False,
        "return_train_score": False,
    }
    if number == 0:
        defaults = [space.default(estimator) for estimator in declaration.estimators]
        least = len(table) // FACTOR if rungs > 1 and len(defaults) >= FACTOR else len(table)
        return _Known(Candidate(declaration), {"values": defaults}, min_resources=least, **options)
    least = len(table) // FACTOR ** (rungs - 1)
    return _Drawn(Candidate(declaration), {"values": space}, n_candidates=FACTOR**rungs, min_resources=least, **options)


def _rungs(table: Table) -> int:
    """Return how often a bracket gives more rows to fewer candidates, the first time included."""
    rows = len(table)
    if table.target.dtype.kind == "U":  # the fewest rows must still hold some of the rarest label
        rows = min(rows, LEAST_RUNG // LEAST_OF_A_LABEL * int(np.unique(table.target, return_counts=True)[1].min()))
    return max(1, min(MOST_RUNGS, 1 + int(math.log(max(rows / LEAST_RUNG, 1), FACTOR))))


def _sample(table: Table, seed: int) -> Table:
    """Return the rows to search on, so many that every bracket's last rung has them all and scores compare."""
    order = np.random.default_rng(seed).permutation(len(table))[:MAX_ROWS]
    step = FACTOR ** (_rungs(table.take(order)) - 1)
    rows = len(order) // step * step
    return table if rows == len(table) else table.take(np.sort(order[:rows]))


class _Watch:
    """The best so far, in the parent."""

    def __init__(self, declaration: Declaration, seconds: int) -> None:
        self.best: Rung | None = None
        self._objective = metrics_of(declaration.target)[0]
        self._candidates, self._seconds, self._started = 0, seconds, time.monotonic()

    def hear(self, told: Any) -> None:
        """Take what the child tells: a rung, or a bracket that has ended."""
        if not isinstance(told, Rung):
            return self._print(*told)
        self._candidates += told.new
        if self.best is None or told.rank > self.best.rank:
            self.best = told
        return None

    def found(self, seconds: float, stopped: bool) -> Found:
        """Return what there is to say of the search."""
        score = self._score(self.best) if self.best else None
        return Found(self._objective.name, score, self.best.rows if self.best else 0, self._candidates, seconds, stopped)

    def _print(self, number: int, candidates: list[int], rows: list[int]) -> None:
        steps = ", ".join(f"{count} on {size:,} rows" for count, size in zip(candidates, rows, strict=True))
        spent = time.monotonic() - self._started
        best = f"{self.best.values['estimator']}, {self._objective.name} {self._score(self.best):.6g}" if self.best else "none"
        print(f"search: bracket {number}: {steps}; best so far {best} ({spent:.0f} of {self._seconds} s)", flush=True)

    def _score(self, rung: Rung) -> float:
        return toward(self._objective.goal) * rung.score


def _default_estimator(declaration: Declaration) -> str:
    return next(str(knob.default) for knob in declaration.hyperparameters if knob.name == "estimator")


def _told(declaration: Declaration, chosen: Mapping[str, Any], found: Found) -> str:
    knobs = ", ".join(f"{knob.name}={text(chosen[knob.name])}" for knob in declaration.tunable(chosen["estimator"]))
    if found.score is None:
        return f"no candidate was scored in {found.seconds:.0f} s, so the defaults are taken: {chosen['estimator']}, {knobs}"
    scored = f"{found.metric} {found.score:.6g} in {FOLDS} folds of {found.rows:,} rows"
    return f"{found.candidates} candidates in {found.seconds:.0f} s; chosen is {chosen['estimator']}, {knobs}: {scored}"


def _recall(declaration: Declaration, kept: Checkpoints | None) -> tuple[dict[str, Any], Found] | None:
    """Return what an earlier run of the same job chose; what can't be used is said and passed over."""
    if kept is None or not (path := kept.folder / f"{kept.host}-search.json").exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["key"] != kept.key:
            print(f"search: {path.name} is of other data, hyperparameters or libraries and passed over", flush=True)
            return None
        raw = {name: text(value) for name, value in document["values"].items()}
        chosen, found = dict(parse_hyperparameters(raw, declaration.hyperparameters)), Found(**document["found"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, BadHyperparameters):
        print(f"search: {path.name} is damaged and passed over", flush=True)
        return None
    print(f"search: goes on with what an earlier run chose: {_told(declaration, chosen, found)}", flush=True)
    return chosen, found


def _keep(kept: Checkpoints | None, chosen: Mapping[str, Any], found: Found) -> None:
    """Leave the choice beside the checkpoints; a full disk is said, and the training goes on."""
    if kept is None:
        return
    path = kept.folder / f"{kept.host}-search.json"
    try:
        write_text(path, json.dumps({"key": kept.key, "values": dict(chosen), "found": asdict(found)}, indent=2) + "\n")
    except OSError as error:
        print(f"search: {path} can't be written, training goes on: {error}", flush=True)
