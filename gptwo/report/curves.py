"""Charts of trainings: one with what happened to it, several laid over each other.

A run's line has a colour, a dash and a letter at its end, so that no two are told apart by colour
alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from gptwo.report.charts import (
    FIRST,
    HEIGHT,
    MUTED,
    PAPER,
    RUNS,
    SECOND,
    STYLE,
    THIRD,
    empty_axes,
    logarithmic,
    smoothed,
    svg,
    thinned,
)

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (7, 1.5, 1.5, 1.5)))  # in turn
LABEL_SIZE = (0.055, 0.028)  # of a letter at the end of a line, as shares of the chart
JUST_BEGUN = 0.1  # of the longest run
TALL = HEIGHT + 0.5
EVENT_MARKS = {"spike, applied": "^", "not applied": "x", "rolled back": "v", "diverged": "X"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One run in a chart of several: x and y of what is drawn boldly, and of what is pale."""

    letter: str
    x: np.ndarray
    y: np.ndarray
    pale_x: np.ndarray
    pale_y: np.ndarray


def style_of(place: int) -> tuple[str, Any]:
    """Colour and dash of the run at `place`: eight colours, four dashes, no pair twice in 32."""
    return RUNS[place % len(RUNS)], DASHES[(place + place // len(RUNS)) % len(DASHES)]


def overlaid(
    name: str, lines: Sequence[Line], *, x: str, y: str, title: str, from_zero: bool = False
) -> Markup | None:
    """The lines of several runs; None where no run has a number for it."""
    drawn = [(i, line) for i, line in enumerate(lines) if len(line.x) or len(line.pale_x)]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes(x, y, height=TALL)
        ends: list[tuple[float, float, str, str]] = []
        for place, line in drawn:
            color, dash = style_of(place)
            if len(line.pale_x):
                axes.plot(*thinned(line.pale_x, line.pale_y), color=color, alpha=0.5, linewidth=1)
            if len(line.x):
                mark = {"marker": "o", "markersize": 3.5} if len(line.x) < 40 else {}
                axes.plot(*thinned(line.x, line.y), color=color, linestyle=dash, **mark)
            end_x, end_y = (line.x, line.y) if len(line.x) else (line.pale_x, line.pale_y)
            ends.append((float(end_x[-1]), float(end_y[-1]), line.letter, color))
        if from_zero:
            axes.set_ylim(0, 1.06 * _usual_height([line for _, line in drawn]) or 1)
        else:
            _look_at_the_end(axes, [line for _, line in drawn])
        _letters(axes, ends)
        return svg(figure, name, title)


def _look_at_the_end(axes: Axes, lines: Sequence[Line]) -> None:
    """Leave out the first fall, beside which all later differences vanish.

    A run that has only just begun does not set the scale.
    """
    longest = max(float(x[-1]) for line in lines for x in (line.x, line.pale_x) if len(x))
    values = [
        y
        for line in lines
        for x, y in ((line.x, line.y), (line.pale_x, line.pale_y))
        if len(y) and x[-1] >= JUST_BEGUN * longest
    ]
    lowest, highest = min(float(y.min()) for y in values), max(float(y[-1]) for y in values)
    late = max(float(y[len(y) // 12 :].max()) for y in values)
    highest = max(highest, min(late, lowest + 4 * (highest - lowest + 0.25)))
    room = 0.06 * (highest - lowest) or 0.5
    axes.set_ylim(lowest - room, highest + room)


def _usual_height(lines: Sequence[Line]) -> float:
    """The highest value, or twice what nearly all are below if that is less."""
    usual = max(float(np.percentile(line.y, 98)) for line in lines if len(line.y))
    return min(max(float(line.y.max()) for line in lines if len(line.y)), 2 * usual)


def _letters(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Each line's letter beside its end, moved up where two would meet."""
    (low, high), (left, right) = axes.get_ylim(), axes.get_xlim()
    tall, wide = LABEL_SIZE[0] * (high - low), LABEL_SIZE[1] * (right - left)
    placed: list[tuple[float, float]] = []
    for x, y, letter, color in sorted(ends, key=lambda end: end[1]):
        height = min(max(y, low), high)
        for other_x, other in placed:  # from the lowest up
            if abs(other_x - x) < wide and abs(other - height) < tall:
                height = other + tall
        placed = sorted([*placed, (x, height)], key=lambda place: place[1])
        ground = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        style = {"color": color, "fontsize": 12, "fontweight": "bold", "va": "center"}
        axes.annotate(
            letter,
            (x, height),
            xytext=(7, 0),
            textcoords="offset points",
            annotation_clip=False,
            bbox=ground,
            **style,
        )
    axes.set_xlim(left, right + 0.02 * (right - left))


def mark_events(axes: Axes, found: Sequence[Mapping[str, Any]]) -> None:
    """Where a step was not applied, jumped or was undone: marks along the bottom."""
    kinds = [kind for kind in EVENT_MARKS if any(event["kind"] == kind for event in found)]
    low, _ = axes.get_ylim()
    for kind in kinds:
        x = [event["tokens"] for event in found if event["kind"] == kind]
        axes.plot(
            *(x, [low] * len(x)),
            linestyle="none",
            marker=EVENT_MARKS[kind],
            markersize=8,
            color=THIRD,
            clip_on=False,
            label=f"{kind}: {len(x):,}",
        )
    axes.set_ylim(bottom=low)


def search_for_a_rate(found: Sequence[Mapping[str, Any]]) -> Markup:
    """Held-out loss of short trainings against their peak rate, a line for each round."""
    with matplotlib.rc_context(STYLE):
        figure, axes = empty_axes("learning rate", "held-out loss of short trainings")
        finished = [trial for trial in found if trial["valid_loss"] is not None]
        rounds = sorted({(trial["round"], trial["steps"]) for trial in finished})
        for place, key in enumerate(rounds):
            of_round = sorted(
                (trial["lr"], trial["valid_loss"])
                for trial in finished
                if (trial["round"], trial["steps"]) == key
            )
            rates, losses = zip(*of_round, strict=True)
            color = (FIRST, SECOND, THIRD)[place % 3]
            style = {"color": color, "marker": "os^"[place % 3], "markersize": 6}
            axes.plot(rates, losses, label=f"{key[1]:,} steps", **style)
        lost = [trial["lr"] for trial in found if trial["valid_loss"] is None]
        if lost:
            top = axes.get_ylim()[1]
            style = {"linestyle": "none", "marker": "x", "markersize": 8, "color": MUTED}
            axes.plot(lost, [top] * len(lost), label="diverged", clip_on=False, **style)
        logarithmic(axes, "x")
        rates = sorted({trial["lr"] for trial in found})
        shown = rates if len(rates) <= 6 else rates[:: math.ceil(len(rates) / 6)]
        axes.xaxis.set_major_locator(FixedLocator(shown))
        axes.legend(loc="best")
        return svg(figure, "trials", "Held-out loss of short trainings against the learning rate")


def pale_and_bold(
    letter: str,
    x: tuple[np.ndarray, np.ndarray],
    y: tuple[np.ndarray, np.ndarray],
) -> Line:
    """Held-out (bold) and training (pale, averaged) numbers of a run; what is no number goes."""
    bold, pale = (
        tuple(column[np.isfinite(a) & np.isfinite(b)] for column in (a, b))
        for a, b in zip(x, y, strict=True)
    )
    averaged = smoothed(pale[1]) if len(pale[1]) else pale[1]
    return Line(letter=letter, x=bold[0], y=bold[1], pale_x=pale[0], pale_y=averaged)
