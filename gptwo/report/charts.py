"""The report's charts: matplotlib draws them, CSS colours them.

Each function returns an inline SVG whose colours are the page's CSS variables, so that it follows
light and dark, and whose text is text. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from gptwo.report.words import compact, metric_value

WIDTH, HEIGHT = 5.5, 3.4  # inches; the page scales the drawing to its column
MOST_POINTS = 600  # of a line; longer ones are averaged

# Drawn in colours that stand for names, which become CSS variables in the SVG.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
FIRST, SECOND, THIRD = "#040404", "#050505", "#060606"
PAPER = "#080808"  # the ground
RUNS = tuple(f"#07070{place}" for place in range(1, 9))  # of several in one chart
VARIABLES = {
    PAPER: "paper",
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    FIRST: "first",
    SECOND: "second",
    THIRD: "third",
    **{color: f"run{place + 1}" for place, color in enumerate(RUNS)},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gptwo",
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "font.size": 12,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}


def loss_curves(
    train: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    mark: Callable[[Axes], None] = lambda axes: None,
) -> Markup:
    """Training and held-out loss against tokens, with the steps along the top.

    `mark` adds what else there is to see.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("tokens", "loss, nats per token", height=HEIGHT + 0.2)
        axes.plot(*thinned(train["tokens"], train["loss"]), color=FIRST, alpha=0.25, linewidth=1)
        if len(train["loss"]):
            x, y = thinned(train["tokens"], smoothed(train["loss"]))
            axes.plot(x, y, color=FIRST, label=f"train, averaged: {y[-1]:.3f}")
        if len(valid["valid_loss"]):
            label = f"held out: {valid['valid_loss'][-1]:.3f}"
            style = {"color": SECOND, "marker": "o", "markersize": 4, "label": label}
            axes.plot(*thinned(valid["tokens"], valid["valid_loss"]), **style)
        mark(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper right")
        if len(train["step"]) > 1 and train["tokens"][-1] > 0:
            per_step = train["tokens"][-1] / train["step"][-1]
            top = axes.secondary_xaxis("top", functions=(_divided(per_step), _times(per_step)))
            top.spines["top"].set_visible(False)
            top.set_xlabel("steps", loc="right")
            top.xaxis.set_major_formatter(_short_numbers())
        return svg(figure, "loss", "Loss on training batches and on held-out text against tokens")


def line(
    name: str, x: np.ndarray, y: np.ndarray, *, label: str, title: str, percent: bool = False
) -> Markup:
    """One measure against the step."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("step", label)
        axes.plot(*thinned(x, y), color=THIRD)
        axes.set_ylim(0, 1.12 * float(np.nanmax(np.append(y, 0.0))) or 1)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        return svg(figure, name, title)


def length_histogram(counts: np.ndarray, edges: np.ndarray) -> Markup:
    """How many documents are how long, on a logarithmic axis."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("characters", "documents")
        axes.grid(axis="x", visible=False)
        used = np.flatnonzero(counts)
        shown = slice(used[0], used[-1] + 1) if len(used) else slice(0, 1)
        left, right = edges[:-1][shown], edges[1:][shown]
        axes.bar(left, counts[shown], right - left, align="edge", color=FIRST, edgecolor="none")
        logarithmic(axes, "x")
        ticks = [
            a * 10**b for b in range(9) for a in (1, 2, 3, 5) if left[0] < a * 10**b < right[-1]
        ]
        axes.set_xticks(ticks if len(ticks) < 7 else [t for t in ticks if str(t)[0] == "1"])
        return svg(figure, "lengths", "Number of kept documents by length in characters")


def accuracies(rows: Sequence[tuple[str, float, Any, Mapping[str, float]]]) -> Markup:
    """(task, accuracy, interval, baselines) from top to bottom."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("share right", "", height=1.3 + 0.75 * len(rows))
        axes.grid(axis="y", visible=False)
        for place, (_, value, interval, baselines) in enumerate(reversed(rows)):
            for baseline in baselines.values():
                axes.plot([baseline] * 2, [place - 0.22, place + 0.22], color=MUTED, linewidth=2.5)
            if interval:
                axes.plot([interval["low"], interval["high"]], [place] * 2, color=SECOND)
            axes.plot([value], [place], color=SECOND, marker="D", markersize=8, clip_on=False)
        axes.plot([], [], color=SECOND, marker="D", markersize=8, label="this run")
        axes.plot([], [], color=MUTED, linewidth=2.5, label="baselines")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)
        axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlim(left=-0.03 * axes.get_xlim()[1])
        return svg(figure, "accuracies", "Accuracy of this run on each task beside baselines")


def perplexities(rows: Sequence[tuple[str, float, Any]]) -> Markup:
    """(split, perplexity, interval): text trained on beside text not seen (Figure 4)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("", "perplexity per token")
        axes.grid(axis="x", visible=False)
        for place, (split, value, interval) in enumerate(rows):
            color = FIRST if split == "train" else SECOND
            if interval:
                axes.plot([place] * 2, [interval["low"], interval["high"]], color=color)
            axes.plot([place], [value], color=color, marker="D", markersize=8)
            beside = {"xytext": (14, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(metric_value("perplexity", value), (place, value), **beside)
        names = {"train": "train: seen", "valid": "valid: held out", "test": "test: held out"}
        axes.set_xticks(range(len(rows)), [names[row[0]] for row in rows])
        axes.set_xlim(-0.6, len(rows) - 0.2)
        axes.margins(y=0.35)
        return svg(figure, "perplexities", "Perplexity on text of the train, valid and test split")


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_POINTS points, each the mean of its neighbours."""
    if len(x) <= MOST_POINTS:
        return x, y
    groups = zip(np.array_split(x, MOST_POINTS), np.array_split(y, MOST_POINTS), strict=True)
    means = np.array([(a.mean(), b.mean()) for a, b in groups])
    return means[:, 0], means[:, 1]


def smoothed(y: np.ndarray) -> np.ndarray:
    """The mean of each point and those before it, over a fiftieth of the line."""
    width = max(1, len(y) // 50)
    total = np.cumsum(np.insert(y, 0, 0.0))
    last = np.arange(1, len(y) + 1)
    first = np.maximum(last - width, 0)
    return (total[last] - total[first]) / (last - first)


def empty_axes(x: str, y: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x, loc="right")
    if y:
        axes.set_title(y, loc="left", fontsize=12, color=INK, pad=10)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_short_numbers())
    return figure, axes


def logarithmic(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(_short_numbers())


def _short_numbers() -> FuncFormatter:
    return FuncFormatter(lambda value, _: compact(float(value)))


def _times(factor: float) -> Any:
    return lambda value: value * factor


def _divided(factor: float) -> Any:
    return lambda value: value / factor


def svg(figure: Figure, name: str, label: str) -> Markup:
    """The figure as inline SVG: no fixed size, colours by name, ids of its own, a label."""
    for part in (figure, *figure.axes, *(child for a in figure.axes for child in a.child_axes)):
        part.patch.set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None  # matplotlib always writes one
    body = text[text.index(">", box.end()) + 1 :]
    for pattern, replacement in (
        (r"(?s)<metadata>.*?</metadata>", ""),
        (r"(?s)<style.*?</style>", ""),  # it would reach beyond the chart
        ("|".join(VARIABLES), lambda found: f"var(--{VARIABLES[found.group()]})"),
        (r"font-family: [^;\"]*;? ?", ""),  # the page's own
        (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
        (r"xlink:href", "href"),
        (r' transform="rotate\(-0 [^)]*\)"', ""),
        (r'(id="|url\(#|href="#)', rf"\g<1>{re.sub('[^a-z0-9-]', '-', name.lower())}-"),
        (r"\s*\n\s*", "\n"),
    ):
        body = re.sub(pattern, replacement, body)
    head = f'<svg class="chart" role="img" aria-label="{escape(label)}" {box.group()}>'
    return Markup(head + body.strip())
