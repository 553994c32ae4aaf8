"""The report's figures as inline SVG that takes the page's colors and font, so that they read in the dark and in print."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from typing import Any

# Where the home folder can't be written, matplotlib says on standard error that it makes one in /tmp: it may.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.explanation import Curve, Importance, short

WIDE, SMALL = (4.0, 2.7), (3.3, 2.2)
"""Inches; the page scales a figure to its column, so that a small one keeps its letters readable on a phone."""
INK, SOFT, LINE, ACCENT, SECOND = "#010203", "#010204", "#010205", "#010206", "#010207"
COLORS = {INK: "currentColor", SOFT: "var(--soft)", LINE: "var(--line)", ACCENT: "var(--accent)", SECOND: "var(--second)"}
"""What stands in the drawing, and the page's color that replaces it."""
LINES = [(dash, color) for dash in ("-", "--", ":", "-.") for color in (ACCENT, SECOND, INK)]
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "berth",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.parse_math": False,  # a column may be named $x
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "path.simplify": True,
}

Numbers = NDArray[np.float64]


def predicted_actual(actual: Numbers, predicted: Numbers, axis: str, half_width: float | None) -> Markup:
    """Draw predictions against what was so, the diagonal, and the band of the prediction interval if there is one."""

    def draw(axes: Axes) -> None:
        ends = np.array([min(actual.min(), predicted.min()), max(actual.max(), predicted.max())])
        if half_width is not None:
            axes.fill_between(ends, ends - half_width, ends + half_width, color=ACCENT, alpha=0.12, linewidth=0)
        axes.plot(ends, ends, color=SOFT, linewidth=1)
        axes.plot(predicted, actual, ".", color=ACCENT, alpha=0.6, markersize=4, markeredgewidth=0)
        axes.set_xlabel(f"predicted {axis}")
        axes.set_ylabel(f"actual {axis}")

    return _svg(draw, WIDE, "pa", f"Actual against predicted {axis}, {len(actual)} held-out rows; the line is where both agree")


def residuals(actual: Numbers, predicted: Numbers, axis: str) -> Markup:
    """Draw how often which error was made."""
    errors = actual - predicted

    def draw(axes: Axes) -> None:
        axes.hist(errors, bins=min(40, max(5, round(len(errors) ** 0.5) * 2)), color=ACCENT, alpha=0.75)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_xlabel(f"actual less predicted {axis}")
        axes.set_ylabel("held-out rows")

    middle, low, high = np.median(errors), *np.quantile(errors, [0.05, 0.95])
    return _svg(draw, WIDE, "re", f"Histogram of residuals: median {middle:.4g}, nine of ten between {low:.4g} and {high:.4g}")


def coverage(found: dict[float, float]) -> Markup:
    """Draw the share of rows within intervals against the share that was asked for."""

    def draw(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=SOFT, linewidth=1)
        axes.plot(list(found), list(found.values()), "o-", color=ACCENT, markersize=4)
        axes.set_xlabel("level that was asked for")
        axes.set_ylabel("share of rows within")

    told = ", ".join(f"{share:.2f} at {level:g}" for level, share in found.items())
    return _svg(draw, WIDE, "co", f"Coverage of prediction intervals: {told}")


def reliability(stated: Numbers, true: Numbers) -> Markup:
    """Draw how often the answered label was right against the probability it was answered with."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
        axes.plot(stated, true, "o-", color=ACCENT, markersize=4)
        axes.set_xlabel("probability of the answered label")
        axes.set_ylabel("share that was right")

    told = ", ".join(f"{right:.2f} at {said:.2f}" for said, right in zip(stated, true, strict=True))
    return _svg(draw, WIDE, "rl", f"Reliability of the probabilities: share right {told}")


def importances(found: Sequence[Importance], what: str) -> Markup:
    """Draw a bar a feature, the greatest on top, with its deviation over the shuffles."""
    shown = list(found[:20])[::-1]

    def draw(axes: Axes) -> None:
        axes.barh([short(item.feature.name, 18) for item in shown], [item.mean for item in shown], color=ACCENT, alpha=0.75)
        for height, item in enumerate(shown):
            axes.plot([item.mean - item.deviation, item.mean + item.deviation], [height] * 2, color=INK, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(what)

    told = ", ".join(f"{item.feature.name} {item.mean:.3g}" for item in found[:20])
    left = 0.2 + 0.075 * max(len(short(item.feature.name, 18)) for item in shown)
    return _svg(draw, (WIDE[0], max(1.6, 0.24 * len(shown) + 0.8)), "im", f"Permutation importance, {what}: {told}", left)


def curve(found: Curve, number: int, answer: str, labels: Sequence[str], bounds: tuple[float, float]) -> Markup:
    """Draw the average prediction over one feature; of several classes one line each. All curves share their bounds."""
    unit = f" ({found.feature.unit})" if found.feature.unit else ""
    names = labels if len(found.averages) > 1 else labels[-1:]

    def draw(axes: Axes) -> None:
        for index, (line, (dash, color)) in enumerate(zip(found.averages, LINES, strict=False)):
            name = short(names[index], 16) if names else None
            marker = "o" if found.feature.kind == "category" else ""
            axes.plot(found.values, line, dash, color=color, marker=marker, markersize=4, label=name)
        axes.set_ylim(*bounds)
        if found.feature.kind == "category":
            axes.set_xticks(found.values, [short(choice, 12) for choice in found.feature.choices])
        axes.set_xlabel(f"{found.feature.name}{unit}")
        axes.set_ylabel(answer)
        if names:
            axes.legend(fontsize=7)

    first, last = found.averages[0][0], found.averages[0][-1]
    told = f"Partial dependence on {found.feature.name}: from {first:.4g} at its lowest value to {last:.4g} at its highest"
    return _svg(draw, SMALL, f"pd{number}", told)


def _svg(draw: Any, size: tuple[float, float], prefix: str, about: str, left: float = 0.55) -> Markup:
    """Return what `draw` does to axes, `left` inches from the edge: laying out twice, to find the room, would cost a third."""
    with mpl.rc_context(STYLE):
        figure = Figure(size)
        width, height = size
        axes = figure.add_axes((left / width, 0.42 / height, 1 - (left + 0.1) / width, 1 - 0.52 / height))
        axes.locator_params(nbins=4)  # ticks are two thirds of the time that a drawing takes
        draw(axes)
        content = io.StringIO()
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(content, metadata={"Date": None})
    return _inline(content.getvalue(), prefix, about)


def _inline(svg: str, prefix: str, about: str) -> Markup:
    """Return a drawing to stand in a page: ids of its own, the page's colors and font, a text for who can't see it."""
    box = re.search(r'viewBox="([^"]+)"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].strip()
    body = re.sub(r"<(metadata|defs)>\s*<(rdf|style).*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r"(url\(|href=\")#", rf"\1#{prefix}-", body).replace("xlink:href", "href")
    body = re.sub(r"(font(?:-family)?:[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", body)
    for drawn, color in COLORS.items():
        body = body.replace(drawn, color)
    return Markup('<svg viewBox="{}" role="img" aria-label="{}">{}').format(box[1] if box else "", escape(about), Markup(body))  # noqa: S704  # matplotlib escapes what it writes
