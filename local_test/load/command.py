"""`make load`: train a model, measure the servers of it, write docs/measured.md and the chart."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from local_test.arguments import pair
from local_test.emulator import lay_out, train
from local_test.load.cells import cells_of
from local_test.load.chart import draw
from local_test.load.rounds import Figures, Plan, measure
from local_test.load.servers import BERTH, OTHERS, OTHERS_PYTHON, TITLES
from local_test.load.table import COLUMNS, COLUMNS_OF_BARS, MANY, bars_of, rows_of, shares
from local_test.runners import ROOT, Processes
from local_test.soak.measured import put, table, told

ROUNDS, SECONDS = 5, 2
FOREST = {"estimator": "random_forest", "n_estimators": "200"}
"""What is served where nobody says: it is large, as models are, and slow in scikit-learn, one row at a time."""
NOTE = """Medians of {rounds} rounds of {seconds} s, in each of which every server has its turn. Servers on one CPU{had}; the
generator, wrk, on another, of which it took at most {busy:.0%}. A connection sends its next request once the last is answered.
In brackets: the ratio to the bare echo, which runs on the server and the settings that `serve` starts and answers what Berth
answers; each is the median of the ratios within a round. Latencies are as wrk corrects them: a slow answer counts for those too
that would have been asked for meanwhile. Memory is that of all processes, each page counted once; the echo's holds Berth's
libraries, unused. "Of the session": answers a second beside runs a second of the ONNX session on the ready matrix. "Failed":
the largest share of a round's requests that were not answered with success."""
CHART = "load.svg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `load` takes."""
    parser.add_argument("--data", type=Path, default=ROOT / "model" / "sample", help="folder of the training channel")
    parser.add_argument(
        "--hyperparameter",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=VALUE",
        help="of the model, which is a forest of 200 trees without any",
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"times that each server is measured in a cell; {ROUNDS}")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"that a round takes a server, whole ones; {SECONDS}")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CELL", help="FORMAT-ROWS-CONNECTIONS, such as csv-1-16 or 'json-*-1'"
    )
    parser.add_argument("--servers", nargs="+", default=list(TITLES), choices=list(TITLES), help="Berth is always among them")
    parser.add_argument("--write", type=Path, help="docs/measured.md, or another file; without it figures are only printed")


def load(arguments: argparse.Namespace) -> int:
    """Measure, print the tables, write them where that was asked for; return an exit code."""
    if arguments.rounds < 1 or arguments.seconds < 1:
        raise RuntimeError(f"--rounds {arguments.rounds} --seconds {arguments.seconds}: both take 1 or more")
    plan = Plan(cells_of(arguments.only), [BERTH, *arguments.servers], arguments.rounds, arguments.seconds)
    if set(OTHERS) & set(plan.servers):
        prepare()
    with tempfile.TemporaryDirectory(prefix="berth-load-") as folder:
        base = trained(Path(folder), arguments.data, dict(arguments.hyperparameter) or FOREST)
        figures = measure(plan, base, Path(folder), lambda line: print(line, flush=True))
    if len(figures) < len(plan.cells):
        plan = replace(plan, cells=list(figures))
    sections = sections_of(figures, plan)
    print("\n" + "\n".join(sections))
    if arguments.write:
        put(arguments.write, sections)
        draw(figures, arguments.write.with_name(CHART))
    return 0


def load_sections(data: Path, target: Path) -> str:
    """Measure every cell; return Markdown, and draw the chart beside the target."""
    prepare()
    plan = Plan(cells_of([]), list(TITLES), ROUNDS, SECONDS)
    with tempfile.TemporaryDirectory(prefix="berth-load-") as folder:
        figures = measure(plan, trained(Path(folder), data, FOREST), Path(folder))
    draw(figures, target.with_name(CHART))
    return "\n".join(sections_of(figures, plan))


def trained(folder: Path, data: Path, hyperparameters: dict[str, str]) -> Path:
    """Return an /opt/ml with a model; raises RuntimeError where it could not be trained."""
    base = folder / "ml"
    lay_out(base, {"training": data}, hyperparameters)
    outcome = train(Processes(), base)
    if outcome.exit_code:
        raise RuntimeError(f"train ended with exit code {outcome.exit_code}\n{outcome.output}")
    return base


def prepare() -> None:
    """Bring the environment of the other servers up to the lock.

    Raises:
        RuntimeError: it could not be made.
    """
    folder = OTHERS_PYTHON.parent.parent
    done = subprocess.run([sys.executable, ROOT / ".ci" / "venv", folder, "load"], check=False)
    if done.returncode:
        raise RuntimeError(f"{folder} could not be made; the other servers run in it. Without them: --servers berth echo")


def sections_of(figures: Figures, plan: Plan) -> list[str]:
    """Return both tables as sections of docs/measured.md."""
    had, busy = shares(figures)
    had_text = "" if had is None else f", of which they had at least {had:.0%} with {MANY} connections or more"
    note = " ".join(NOTE.format(rounds=plan.rounds, seconds=plan.seconds, had=had_text, busy=busy).split())
    command = command_of(plan)
    return [
        told("Load on one core: what is asked", command, table(COLUMNS_OF_BARS, bars_of(figures))),
        told("Load on one core: its cells", command, f"{note}\n\n![]({CHART})\n\n{table(COLUMNS, rows_of(figures))}"),
    ]


def command_of(plan: Plan) -> str:
    """Return the command that measures what a plan says."""
    options = []
    if plan.cells != cells_of([]):
        options.append(f"--only {' '.join(map(str, plan.cells))}")
    if (plan.rounds, plan.seconds) != (ROUNDS, SECONDS):
        options.append(f"--rounds {plan.rounds} --seconds {plan.seconds}")
    if set(plan.servers) != set(TITLES):
        options.append(f"--servers {' '.join(name for name in TITLES if name in plan.servers)}")
    return f'make load ARGS="{" ".join(options)}"' if options else "make load"
