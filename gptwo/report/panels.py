"""The paper's figures: scores against size, ours beside its, and what is generated from memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from gptwo.report.charts import (
    FIRST,
    HEIGHT,
    MUTED,
    PAPER,
    SECOND,
    STYLE,
    empty_axes,
    logarithmic,
    svg,
)
from gptwo.report.curves import style_of
from gptwo.report.words import is_share

PAPER_MARKS = ("o", "s")
OURS = ((SECOND, "D", "-"), (FIRST, "s", (0, (5, 1.5))))


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric in a panel: ours (letter, parameters, value, interval) and the paper's points."""

    metric: str
    label: str
    ours: Sequence[tuple[str, int, float, Any]]
    paper: Sequence[tuple[str, int, float]]
    read_off: Sequence[tuple[str, int, float]]  # approximate, from its drawing


def size_panel(
    name: str, title: str, series: Sequence[Series], levels: Mapping[str, float]
) -> Markup:
    """Score against parameters, up to two metrics of one unit; `levels` are lines across."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("parameters", title, height=HEIGHT + 0.5)
        values = [*levels.values()]
        styles = ((0, (2, 3)), (0, (1, 1.5)), (0, (6, 3)), (0, (8, 2, 1, 2)))
        for (label, value), dash in zip(levels.items(), styles, strict=False):
            label = "best before it" if label == "prior SOTA" else label
            axes.axhline(value, color=MUTED, linewidth=1, linestyle=dash, label=label)
        for place, line in enumerate(series):
            suffix = f", {line.label}" if len(series) > 1 else ""
            _paper(axes, line, PAPER_MARKS[place], suffix, names=place == 0)
            _ours(axes, line, OURS[place], suffix, 3 if place == 0 else -12)
            values += [v for *_, v in (*line.paper, *line.read_off)]
            values += [value for _, _, value, _ in line.ours]
        logarithmic(axes, "x")
        axes.margins(x=0.12, y=0.16)
        if is_share(series[0].metric):
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
            axes.set_ylim(bottom=0)
        elif "bleu" in series[0].metric or "rouge" in series[0].metric:
            axes.set_ylim(bottom=0)
        elif 0 < 10 * min(values) < max(values):
            logarithmic(axes, "y")
        figure.legend(loc="outside lower left", ncols=2, fontsize=10.5, borderaxespad=0.2)
        return svg(figure, name, f"{title}, against parameters: ours beside the paper's")


def _paper(axes: Axes, line: Series, marker: str, suffix: str, names: bool) -> None:
    style: dict[str, Any] = {"color": MUTED, "marker": marker, "markersize": 5}
    if line.paper:
        x, y = [p[1] for p in line.paper], [p[2] for p in line.paper]
        axes.plot(x, y, label=f"paper{suffix}", **style)
    if line.read_off:
        x, y = [p[1] for p in line.read_off], [p[2] for p in line.read_off]
        hollow = {"markerfacecolor": PAPER, "linestyle": (0, (3, 2)), "linewidth": 1.2}
        axes.plot(x, y, label=f"paper{suffix}, off its plot", **style, **hollow)
    for i, (label, size, value) in enumerate(line.paper or line.read_off if names else ()):
        place = {"xytext": (0, (8, -16)[i % 2]), "textcoords": "offset points", "ha": "center"}
        axes.annotate(label, (size, value), color=MUTED, fontsize=10, **place)


def _ours(axes: Axes, line: Series, look: tuple[str, str, Any], suffix: str, above: float) -> None:
    color, marker, dash = look
    ours = sorted(line.ours, key=lambda point: point[1])
    for letter, size, value, interval in ours:
        if interval:
            ends = [[max(value - interval["low"], 0)], [max(interval["high"] - value, 0)]]
            bar = {"color": color, "elinewidth": 1.6, "capsize": 4, "capthick": 1.6}
            axes.errorbar([size], [value], yerr=ends, fmt="none", **bar)
        beside = {"xytext": (9, above), "textcoords": "offset points", "fontweight": "bold"}
        axes.annotate(letter, (size, value), color=color, fontsize=11, **beside)
    if ours:
        x, y = [point[1] for point in ours], [point[2] for point in ours]
        mark = {"marker": marker, "markersize": 7, "linestyle": dash, "zorder": 3, "clip_on": False}
        axes.plot(x, y, color=color, label=f"ours{suffix}", linewidth=1.6, **mark)


def memorisation(curves: Sequence[tuple[int, str, Mapping[str, Any]]], median: float) -> Markup:
    """Cumulated share of texts by how many of their 8-grams are in the training text (figure 5).

    `curves` are (place of the run, letter, curve of overlap.json); `median` is the paper's for
    real text.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes(
            "share of 8-grams found in the training split", "share of texts", HEIGHT + 0.5
        )
        for place, letter, curve in curves:
            color, _ = style_of(place)
            for side, dash, label in (
                ("generated", "-", "what it writes"),
                ("true", (0, (4, 2)), "what really follows"),
            ):
                shares = np.sort(np.array(curve[side], float))
                x = np.concatenate([[0], shares, [1]])
                y = np.concatenate([[0], np.arange(1, len(shares) + 1) / len(shares), [1]])
                named = f"{letter} {label}".strip()
                axes.step(x, y, where="post", color=color, linestyle=dash, label=named)
        axes.axvline(median, color=MUTED, linewidth=1, linestyle=(0, (2, 3)),
                     label="paper: median of real text")  # fmt: skip
        most = max(
            float(max(c[side], default=0)) for _, _, c in curves for side in ("generated", "true")
        )
        axes.set_xlim(-0.01, max(min(1.0, 1.15 * most), 0.1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        figure.legend(loc="outside lower left", ncols=2, fontsize=10.5, borderaxespad=0.2)
        return svg(figure, "memorisation", "How much of texts stands in the training split")
