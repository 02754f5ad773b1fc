"""Draws the charts of docs/performance.md from docs/performance/charts.json, as SVG for light and dark pages."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

DIRECTORY = Path(__file__).parents[3] / "docs" / "performance"
GRAY = "#868e96"
# The color, marker, line style and width of each line. `bare` and `null` are lower bounds, so they are thin.
STYLES: dict[str, tuple[str, str, str, float]] = {
    "ours": ("#e8590c", "o", "-", 3.0),
    "python": ("#1c7ed6", "s", "-", 1.5),
    "node": ("#37b24d", "^", "-", 1.5),
    "bare": (GRAY, "D", "--", 1.0),
    "null": (GRAY, "D", "--", 1.0),
    "Meta's limit": ("#f03e3e", "", ":", 1.5),
    "hash": ("#1c7ed6", "s", "-", 1.5),
    "split": ("#37b24d", "^", "-", 1.5),
    "build": ("#e8590c", "o", "-", 1.5),
}
LABEL_HEIGHT = 14.0

matplotlib.use("svg")
plt.rcParams.update(
    {
        # Makes the output reproducible: no random ids, and text instead of glyphs of an installed font.
        "svg.hashsalt": "charts",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": GRAY,
        "xtick.color": GRAY,
        "ytick.color": GRAY,
        "axes.edgecolor": GRAY,
        "axes.labelcolor": GRAY,
        "axes.titlecolor": GRAY,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)


def draw(chart: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4), dpi=72)
    figure.subplots_adjust(left=0.09, right=0.8, top=0.9, bottom=0.13)
    axes.set_title(chart["title"], loc="left")
    axes.set_xlabel(chart["x_label"])
    axes.grid(axis="y", color=GRAY, alpha=0.25)
    if chart["is_logarithmic"]:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    lines = [line for line in chart["lines"] if any(value is not None for value in line["values"])]
    for line in lines:
        color, marker, style, width = STYLES[line["name"]]
        positions = range(len(chart["ticks"]))
        order = 3 if line["name"] == "ours" else 2
        axes.plot(positions, line["values"], color=color, marker=marker, linestyle=style, linewidth=width, zorder=order)
    if not chart["is_logarithmic"]:
        axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(chart["ticks"])), chart["ticks"])
    label(axes, lines)
    figure.savefig(DIRECTORY / f"{chart['file']}.svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def label(axes: Axes, lines: list[dict[str, Any]]) -> None:
    """Writes the name and the last value at the end of each line. Moves a label up if it would overlap another."""
    ends = []
    for line in lines:
        value = next(value for value in reversed(line["values"]) if value is not None)
        _, y = axes.transData.transform((0, value))
        ends.append((y, line["name"], value))
    next_y = float("-inf")
    for y, name, value in sorted(ends):
        next_y = max(y, next_y)
        axes.annotate(
            f"{name} {value:.3g}",
            xy=(1.02, axes.transAxes.inverted().transform((0, next_y))[1]),
            xycoords="axes fraction",
            color=STYLES[name][0],
            weight="bold" if name == "ours" else "normal",
            va="center",
        )
        next_y += LABEL_HEIGHT


if __name__ == "__main__":
    for chart in json.loads((DIRECTORY / "charts.json").read_text()):
        draw(chart)
