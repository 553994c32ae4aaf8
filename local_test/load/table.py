"""Samples to tables: every cell, and what is asked of it; medians, and ratios that were taken within a round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from local_test.load.cells import FORMATS, Cell
from local_test.load.rounds import Figures, Sample
from local_test.load.servers import BERTH, ECHO, FASTAPI, FLASK, TITLES
from local_test.load.session import SESSION

NAMES = {**TITLES, SESSION: "the ONNX session alone"}
FIGURES = {
    "rate": ("requests/s", ",.0f"),
    "p50_ms": ("p50: ms", ",.2f"),
    "p99_ms": ("p99: ms", ",.2f"),
    "cpu_us": ("CPU: µs a request", ",.0f"),
    "memory_mb": ("MB", ",.0f"),
}
"""Field of a sample to its heading and how it is written."""
COLUMNS = ("format", "rows", "connections", "server", *(heading for heading, _ in FIGURES.values()), "of the session", "failed")
COLUMNS_OF_BARS = ("what", "asked", "measured", "holds")


MANY = 16
"""Connections from which on there is always a request that waits."""


@dataclass(frozen=True)
class Bar:
    """What is asked of Berth in one cell."""

    what: str
    cell: Cell
    figure: str
    """A field of a sample."""
    limit: float
    against: str = ""
    """The server that the figure is told in; empty for the figure as it is."""
    at_most: bool = False

    @property
    def asked(self) -> str:
        """The limit, in words."""
        heading, _ = FIGURES[self.figure]
        unit = f"times that of {NAMES[self.against].strip('*')}" if self.against else heading
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g} {unit}"


_ONE, _ALONE = Cell("csv", 1, MANY), Cell("csv", 1, 1)
BARS = (
    Bar("requests/s", _ONE, "rate", 0.5, ECHO),
    Bar("requests/s", _ONE, "rate", 2, FASTAPI),
    Bar("requests/s", _ONE, "rate", 60, FLASK),
    Bar("p50", _ALONE, "p50_ms", 1.25, ECHO, at_most=True),
    Bar("p99", _ALONE, "p99_ms", 1.5, ECHO, at_most=True),
    *(
        Bar("rows/s", Cell(name, rows, MANY), "rate", least, SESSION)
        for name, (rows, least) in product(("csv", "json"), ((1_000, 0.8), (10_000, 0.9)))
    ),
    Bar("memory of all processes", _ONE, "memory_mb", 100, at_most=True),
)


def rows_of(figures: Figures) -> list[list[str]]:
    """Return a row for every server in every cell: each figure's median, and its ratio to the bare echo's."""
    return [
        [*labels(cell), *_row(samples, name)]
        for cell, samples in figures.items()
        for name in sorted(samples, key=list(NAMES).index)
    ]


def bars_of(figures: Figures) -> list[list[str]]:
    """Return a row for everything that is asked and was measured."""
    rows = []
    for bar in BARS:
        samples = figures.get(bar.cell, {})
        if {BERTH, bar.against or BERTH} <= set(samples):
            value = median(samples[BERTH], bar.figure, samples[bar.against] if bar.against else ())
            holds = value <= bar.limit if bar.at_most else value >= bar.limit
            name, rows_text, connections = labels(bar.cell)
            cell = f"{rows_text} row{'' if bar.cell.rows == 1 else 's'} of {name}, connections: {connections}"
            rows.append([f"{cell}: {bar.what}", bar.asked, f"{value:.2f}", "yes" if holds else "**no**"])
    return rows


def shares(figures: Figures) -> tuple[float | None, float]:
    """Return how far the figures are the servers' own: their CPU was full where it was theirs, the generator's was not.

    Returns:
        The least share that a server had where requests waited for it, of medians over the rounds, None for no such cell;
        and the largest share of its own that the generator took.
    """
    served = {cell: [some for name, some in samples.items() if name != SESSION] for cell, samples in figures.items()}
    had = [median(some, "had") for cell, every in served.items() if cell.connections >= MANY for some in every]
    busy = [sample.busy for every in served.values() for some in every for sample in some]
    return min(had, default=None), max(busy)


def labels(cell: Cell) -> list[str]:
    """Return what a cell is called: format, rows, connections."""
    return [FORMATS[cell.format][0], f"{cell.rows:,}", str(cell.connections)]


def median(samples: Sequence[Sample], figure: str, floor: Sequence[Sample] = ()) -> float:
    """Return the median over the rounds of a figure, or of its ratio to that of another server in the same round."""
    values = [getattr(sample, figure) for sample in samples]
    if floor:
        values = [value / getattr(other, figure) for value, other in zip(values, floor, strict=True)]
    return float(statistics.median(values))


def _row(samples: Mapping[str, Sequence[Sample]], name: str) -> list[str]:
    figures = [_figure(samples, name, figure) for figure in FIGURES]
    return [NAMES[name], *figures, _share(samples, name), _failed(samples[name])]


def _figure(samples: Mapping[str, Sequence[Sample]], name: str, figure: str) -> str:
    value = median(samples[name], figure)
    if math.isnan(value):
        return ""
    text = format(value, FIGURES[figure][1])
    if name == ECHO or ECHO not in samples:
        return text
    return f"{text} ({_ratio(median(samples[name], figure, samples[ECHO]))})"


def _share(samples: Mapping[str, Sequence[Sample]], name: str) -> str:
    return "" if name in {ECHO, SESSION} else _ratio(median(samples[name], "rate", samples[SESSION]))


def _failed(samples: Sequence[Sample]) -> str:
    share = max(sample.failed for sample in samples)
    return f"{share:.1%}" if share else ""


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"
