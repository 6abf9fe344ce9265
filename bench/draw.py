"""Growth as drawings: one SVG an axis, a panel a measure, both scales logarithmic; legible on light and on dark ground."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
from growth import MEASURES, exponents
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullLocator

GREY, BLUE = "#7a7f87", "#3b82f6"  # at least 3.7 to 1 on white and on GitHub's dark ground
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "growth",  # the same results make the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "axes.titlesize": 11,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def draw(axes: dict[str, list[dict]], directory: Path) -> list[Path]:
    """growth-{axis}.svg of every axis, in ``directory``."""
    matplotlib.use("svg")
    with matplotlib.rc_context(STYLE):
        return [_draw(axis, points, directory / f"growth-{axis}.svg") for axis, points in axes.items()]


def _draw(axis: str, points: list[dict], path: Path) -> Path:
    names = list(exponents(points))
    figure, panels = pyplot.subplots(1, len(names), figsize=(3 * len(names), 2.8), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        pairs = [(point["size"], point[name]) for point in points if point[name]]
        panel.loglog(*zip(*pairs, strict=True), color=BLUE, marker="o", markersize=4)
        lowest, highest = (math.log10(edge(y for _, y in pairs)) for edge in (min, max))
        # Whole decades: what hardly changes shall look like it.
        panel.set_ylim(10 ** math.floor(lowest), 10 ** max(math.ceil(highest), math.floor(lowest) + 1))
        panel.set_title(MEASURES[name])
        panel.set_xlabel("payload in bytes" if axis == "payload" else axis)
        for scale in (panel.xaxis, panel.yaxis):
            scale.set_major_formatter(FuncFormatter(_number))
            scale.set_minor_locator(NullLocator())
        panel.grid(color=GREY, alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _number(value: float, _: int) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
