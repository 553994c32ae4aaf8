"""Where a request's time goes inside `serve`, and what a thread for it costs: the figures that docs/speed.md explains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from local_test.load.cells import Cell
from local_test.load.endurance import figures_of, payload_of
from local_test.load.servers import BERTH, Given, started
from local_test.load.wrk import drive, on_cpu, two_cpus
from local_test.runners import ROOT
from local_test.soak.measured import Table

COMMAND = "make soak SECTIONS=inside"
ONE, MANY = Cell("csv", 1, 1), Cell("csv", 1_000, 16)
SLOTS = (1, 2, 4)
COLUMNS = ("requests/s", "p50: ms", "p99: ms", "longest: ms", "CPU: µs a request")
NOWHERE = -1
"""A bound that no body keeps: every one is computed in a thread."""
PARTS_PROGRAM = """
import json, os, sys, timeit
sys.path[0] = sys.argv[1]
from serving.server import App, Settings, load_predictor
settings = Settings.from_environ(os.environ)
predictor = load_predictor(settings.paths.model)
app, line, calls = App(predictor, settings), open(sys.argv[2], "rb").read(), int(sys.argv[3])
scope = {"method": "POST", "path": "/invocations", "raw_path": b"/invocations", "query_string": b"",
         "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"text/csv"), (b"content-length", b"%d" % len(line))]}
row = predictor.schema.from_plain_text(line.rstrip())
assert app.answer_at_once(scope, line).status == 200
parts = {
    "all of it": lambda: app.answer_at_once(scope, line),
    "the model": lambda: predictor.predict(row),
    "text to float32": lambda: predictor.schema.from_plain_text(line.rstrip()),
    "drift": lambda: app.service.drift.count(row),
}
took = {name: [] for name in parts}
for _ in range(9):
    for name, part in parts.items():
        took[name].append(1e6 * timeit.timeit(part, number=calls) / calls)
print(json.dumps({name: sorted(laps)[4] for name, laps in took.items()}))
"""
SLOTTED_PROGRAM = """
import sys
sys.path[0] = {root!r}
import serving.service
serving.service.SLOTS = {slots}
serving.service.INLINE_BYTES = serving.service.INLINE_BYTES if {inline} is None else {inline}
from serving.server import main
sys.exit(main())
"""


def parts(base: Path, folder: Path, calls: int = 20_000) -> Table:
    """Return how long the parts of one row's answer take in a loop: caches are warm, and no connection is there."""
    line = payload_of(ONE, base, folder).body
    own = {"SAGEMAKER_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    with on_cpu(two_cpus()[0]):
        done = subprocess.run(
            [sys.executable, "-c", PARTS_PROGRAM, str(ROOT), str(line), str(calls)],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=True,
        )
    took: dict[str, float] = json.loads(done.stdout)
    whole = took.pop("all of it")
    took["routes, limits, headers, counters, answer"] = whole - sum(took.values())
    rows = [[name, f"{micros:.1f}", f"{micros / whole:.0%}"] for name, micros in {**took, "**all of it**": whole}.items()]
    return (
        f"One row of CSV inside `serve`, medians of 9 times {calls:,} calls in a loop",
        COMMAND,
        ("part", "µs", "share"),
        rows,
    )


def by_thread(base: Path, folder: Path, seconds: int = 5) -> Table:
    """Return what a row costs that is computed where it arrives, and in a thread."""
    ways = {"on the event loop, as shipped": None, "in a thread": NOWHERE}
    rows = [[way, *_measure(ONE, base, folder, seconds, 2, inline)] for way, inline in ways.items()]
    return "One row of CSV, one connection, by where it is computed", COMMAND, ("computed", *COLUMNS), rows


def by_slots(base: Path, folder: Path, seconds: int = 10) -> Table:
    """Return what one to four threads of one worker on one CPU answer."""
    rows = [[str(count), *_measure(MANY, base, folder, seconds, count, None)] for count in SLOTS]
    return "1,000 rows of CSV, 16 connections, by inference slots of the worker", COMMAND, ("slots", *COLUMNS), rows


def _measure(cell: Cell, base: Path, folder: Path, seconds: int, slots: int, inline: int | None) -> list[str]:
    server_cpu, cpu = two_cpus()
    payload = payload_of(cell, base, folder)
    program = SLOTTED_PROGRAM.format(root=str(ROOT), slots=slots, inline=inline)
    with started(BERTH, Given(base, server_cpu, folder / "answer", program=program), payload.media_type) as server:
        before = server.cpu_s()
        run = drive(server.url, payload.body, payload.media_type, connections=cell.connections, seconds=seconds, cpu=cpu)
        server.settle()
        return [*figures_of(run), f"{1e6 * (server.cpu_s() - before) / run.answers:,.0f}"]
