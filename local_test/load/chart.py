"""The chart: requests a second over the rows of a request, a line a server, a panel a format and number of connections."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from contract.files import write_text
from local_test.load.cells import FORMATS, ROWS, Cell
from local_test.load.rounds import Figures
from local_test.load.servers import BERTH, ECHO, FASTAPI, FLASK
from local_test.load.session import SESSION
from local_test.load.table import NAMES, median

PANEL = (3.2, 2.6)
"""Inches."""
LOOKS: dict[str, dict[str, Any]] = {
    ECHO: {"color": "#777777", "linestyle": "--", "marker": "."},
    SESSION: {"color": "#777777", "linestyle": ":", "marker": "."},
    BERTH: {"color": "#0b6e4f", "linewidth": 2.2, "marker": "o"},
    FASTAPI: {"color": "#c2571a", "marker": "s"},
    FLASK: {"color": "#7b4ea3", "marker": "^"},
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "berth",
    "font.size": 8,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(figures: Figures, target: Path) -> None:
    """Write the chart as SVG."""
    formats = [name for name in FORMATS if any(cell.format == name for cell in figures)]
    connections = sorted({cell.connections for cell in figures})
    with mpl.rc_context(STYLE):
        size = PANEL[0] * len(connections), PANEL[1] * len(formats) + 0.6
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(formats), len(connections), sharex=True, sharey=True, squeeze=False)
        for name, row in zip(formats, panels, strict=True):
            for count, axes in zip(connections, row, strict=True):
                _panel(axes, figures, [cell for cell in sorted(figures) if (cell.format, cell.connections) == (name, count)])
                axes.set_title(f"{FORMATS[name][0]}, {count} connection{'' if count == 1 else 's'}")
            row[0].set_ylabel("requests/s")
        for axes in panels[-1]:
            axes.set_xlabel("rows a request")
        handles, titles = max((axes.get_legend_handles_labels() for axes in panels.flat), key=lambda found: len(found[0]))
        figure.legend(handles, titles, loc="outside lower center", ncols=3, frameon=False)
        stream = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata={"Date": None})
    write_text(target, stream.getvalue())


def _panel(axes: Axes, figures: Figures, cells: Sequence[Cell]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ROWS)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.minorticks_off()
    for server, look in LOOKS.items():
        points = [(cell.rows, median(figures[cell][server], "rate")) for cell in cells if server in figures[cell]]
        if points:
            axes.plot(*zip(*points, strict=True), label=NAMES[server].strip("*"), **look)
