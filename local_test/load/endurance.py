"""What `make load` does not tell: ten minutes of load on one server, and what further workers cost."""

from __future__ import annotations

import json
from pathlib import Path

from local_test.load.cells import Cell, Payload, payloads_of
from local_test.load.servers import BERTH, Given, Server, started
from local_test.load.wrk import Run, drive, two_cpus
from local_test.soak.measured import Table

CELL = Cell("csv", 1, 16)
SLICE_S = 30
WORKERS = (1, 2, 4)


def endure(base: Path, folder: Path, slices: int, seconds: int = SLICE_S) -> Table:
    """Return rates, latencies and memory of one server under load, by slices of some seconds."""
    server_cpu, cpu = two_cpus()
    payload = payload_of(CELL, base, folder)
    rows = []
    with started(BERTH, Given(base, server_cpu, folder / "answer"), payload.media_type) as server:
        at_first = server.memory_mb()
        for number in range(1, slices + 1):
            run = _drive(server, payload, seconds, cpu)
            rows.append([f"{number * seconds / 60:g}", *figures_of(run), f"{server.memory_mb():.1f}", f"{run.failures}"])
    columns = ("minutes", "requests/s", "p50: ms", "p99: ms", "longest: ms", f"MB ({at_first:.1f} before)", "failed")
    return "One row of CSV on 16 connections, without a pause", "make soak SECTIONS=endurance", columns, rows


def by_workers(base: Path, folder: Path, seconds: int = 5) -> Table:
    """Return what one to four workers on one CPU answer and hold."""
    server_cpu, cpu = two_cpus()
    payload = payload_of(CELL, base, folder)
    rows: list[list[str]] = []
    before: tuple[int, float] | None = None
    for count in WORKERS:
        given = Given(base, server_cpu, folder / "answer", environ={"SAGEMAKER_MODEL_SERVER_WORKERS": str(count)})
        with started(BERTH, given, payload.media_type) as server:
            run = _drive(server, payload, seconds, cpu)
            memory = server.memory_mb()
        further = f"{(memory - before[1]) / (count - before[0]):.1f}" if before else ""
        rows.append([str(count), *figures_of(run), f"{memory:.1f}", further])
        before = count, memory
    columns = ("workers", "requests/s", "p50: ms", "p99: ms", "longest: ms", "MB", "MB a further worker")
    return "Workers on one CPU, one row of CSV on 16 connections", "make soak SECTIONS=endurance", columns, rows


def payload_of(cell: Cell, base: Path, folder: Path) -> Payload:
    """Write a cell's payload for the model of an /opt/ml, and return it."""
    manifest = json.loads((base / "model" / "manifest.json").read_text())
    return next(payloads_of([cell], manifest, folder))


def _drive(server: Server, payload: Payload, seconds: int, cpu: int) -> Run:
    return drive(server.url, payload.body, payload.media_type, connections=CELL.connections, seconds=seconds, cpu=cpu)


def figures_of(run: Run) -> list[str]:
    """Return rate and latencies as the tables have them."""
    return [f"{run.answers / run.seconds:,.0f}", f"{run.p50_ms:.2f}", f"{run.p99_ms:.2f}", f"{run.max_ms:.0f}"]
