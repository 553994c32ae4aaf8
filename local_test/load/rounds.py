"""The measurement: every server in every round, one after another, each cell in turn; medians come later."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from local_test.load.cells import Cell, Payload, numbers_of, payloads_of
from local_test.load.servers import BERTH, Given, Server, started
from local_test.load.session import SESSION, Session, loaded
from local_test.load.wrk import drive, find_wrk, two_cpus

MIN_ANSWERS, MIN_ANSWERS_OF_EACH = 10, 4
"""How often all connections, and each of them, are answered in a round: one of a slow server takes longer."""
LONGEST_S = 300


@dataclass(frozen=True)
class Sample:
    """What one server did in one round."""

    rate: float
    """Answers of success a second."""
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    cpu_us: float = math.nan
    """CPU time of the server, an answer of success."""
    memory_mb: float = math.nan
    had: float = math.nan
    """Share of the CPU that the server had."""
    busy: float = math.nan
    """Share of its own that the generator took."""
    failed: float = 0.0
    """Share of requests that were not answered with success."""


Say = Callable[[str], None]
Figures = dict[Cell, Mapping[str, Sequence[Sample]]]
"""Cell, then server, then a sample a round; the session alone is there as a server that has a rate and costs CPU time."""


@dataclass(frozen=True)
class Plan:
    """What is measured and for how long."""

    cells: Sequence[Cell]
    servers: Sequence[str]
    rounds: int
    seconds: int


def measure(plan: Plan, base: Path, folder: Path, say: Say = print) -> Figures:
    """Measure every cell; Ctrl-C ends it, and those that are measured are returned.

    Args:
        plan: what to measure.
        base: an /opt/ml with a model.
        folder: where payloads may be written.
        say: is told how far it is.

    Raises:
        RuntimeError: the generator or a second CPU is missing, a server can't be started, answers something else than the
            model's predictions, or fails under load.
    """
    find_wrk()
    cpus = two_cpus()
    manifest = json.loads((base / "model" / "manifest.json").read_text())
    given = Given(base, cpus[0], folder / "answer")
    figures: Figures = {}
    try:
        for payload in payloads_of(plan.cells, manifest, folder):
            _measure_payload(plan, payload, given, cpus[1], figures=figures, bound=10 * manifest["parity"]["bound"], say=say)
    except KeyboardInterrupt:
        if not figures:
            raise
        say(f"Stopped; {len(figures)} of {len(plan.cells)} cells are measured, and these are told.")
    return figures


def _measure_payload(plan: Plan, payload: Payload, given: Given, cpu: int, *, figures: Figures, bound: float, say: Say) -> None:
    """Put the samples of a payload's cells to the others."""
    with ExitStack() as stack:
        session = stack.enter_context(loaded(given.model, payload.matrix, given.cpu))
        servers = _start(plan.servers, given, payload, stack)
        took = {server: check(server, payload, session.predictions, bound) for server in servers}
        for connections in payload.connections:
            cell = Cell(payload.format, payload.rows, connections)
            figures[cell] = _measure_cell(plan, payload, connections, took, session, cpu)
            say(f"{cell}: " + ", ".join(f"{name} {samples[-1].rate:,.0f}/s" for name, samples in figures[cell].items()))


def check(server: Server, payload: Payload, expected: Sequence[float], bound: float) -> float:
    """Ask once, compare with what the model predicts, and return how long it took: the speed of wrong answers is nobody's.

    Raises:
        RuntimeError: it answers something else, by more than the bound.
    """
    began = time.monotonic()
    answer = server.ask(payload.body.read_bytes(), payload.media_type)
    took = time.monotonic() - began
    try:
        numbers = numbers_of(answer, payload.format)
    except (ValueError, KeyError, TypeError):
        raise server.failure(f"answers {answer[:200]!r}; {payload.media_type} with predictions was expected") from None
    if len(numbers) != len(expected):
        raise server.failure(f"answers {len(numbers):,} predictions to {payload.rows:,} rows of {payload.media_type}")
    wrong = np.flatnonzero(~np.isclose(numbers, expected, rtol=1e-5, atol=bound))
    if len(wrong):
        row = int(wrong[0])
        raise server.failure(
            f"predicts {numbers[row]} for row {row + 1} of {payload.media_type}, where the model says {expected[row]}; "
            f"{len(wrong):,} of {len(numbers):,} rows differ"
        )
    return took


def _start(names: Sequence[str], given: Given, payload: Payload, stack: ExitStack) -> list[Server]:
    """Start the servers, Berth first: the echo answers what Berth did."""
    berth = stack.enter_context(started(BERTH, given, payload.media_type))
    given.answer.write_bytes(berth.ask(payload.body.read_bytes(), payload.media_type))
    others = [name for name in names if name != BERTH]
    return [berth, *(stack.enter_context(started(name, given, payload.media_type)) for name in others)]


def _seconds(plan: Plan, connections: int, request_s: float) -> int:
    """Return how long a round of a server is, of which one request takes so long.

    An event loop that computes in place sends nothing until it has an answer for every connection, and then all at once.
    """
    return max(plan.seconds, math.ceil(max(MIN_ANSWERS, MIN_ANSWERS_OF_EACH * connections) * request_s))


def _measure_cell(
    plan: Plan, payload: Payload, connections: int, took: Mapping[Server, float], session: Session, cpu: int
) -> Mapping[str, Sequence[Sample]]:
    """Return each server's samples; every round begins with another server, and one before them is not counted."""
    servers = list(took)
    samples: dict[str, list[Sample]] = {name: [] for name in [*(server.name for server in servers), SESSION]}
    for number in range(-1, plan.rounds):
        first = number % len(servers)
        for server in [*servers[first:], *servers[:first]]:
            sample = _drive(server, payload, connections, _seconds(plan, connections, took[server]), cpu)
            samples[server.name] += [sample] if number >= 0 else []
        if number >= 0:
            rate, cpu_us = session.run(plan.seconds / 2)
            samples[SESSION].append(Sample(rate, cpu_us=cpu_us))
    return samples


def _drive(server: Server, payload: Payload, connections: int, seconds: int, cpu: int) -> Sample:
    before = server.cpu_s()
    try:
        run = drive(server.url, payload.body, payload.media_type, connections=connections, seconds=seconds, cpu=cpu)
    except RuntimeError as error:
        server.settle()  # which tells of a server that has ended
        raise server.failure(str(error)) from error
    if not run.answers:
        server.settle()
        if seconds >= LONGEST_S:
            raise server.failure(f"answers none of {connections} requests in {seconds} s")
        return _drive(server, payload, connections, 2 * seconds, cpu)
    cpu_s, memory_mb = server.cpu_s() - before, server.memory_mb()
    server.settle()
    return Sample(
        rate=run.answers / run.seconds,
        p50_ms=run.p50_ms,
        p99_ms=run.p99_ms,
        cpu_us=1e6 * cpu_s / run.answers,
        memory_mb=memory_mb,
        had=cpu_s / run.seconds,
        busy=run.busy,
        failed=run.failures / (run.answers + run.failures),
    )
