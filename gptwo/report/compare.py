"""Several runs on one page: curves overlaid, settings that differ, what each reached, and when.

Losses per token are comparable only between runs of one tokenizer. Where tokenizers differ, bits
per byte are shown if every run's tokens say how many bytes they stand for.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from gptwo.artifacts import read_manifest
from gptwo.errors import DataError, UsageError
from gptwo.progress import duration
from gptwo.report import curves
from gptwo.report.charts import VARIABLES
from gptwo.report.paired import compare_pair
from gptwo.report.paper import Scored, read_scored
from gptwo.report.reading import DAMAGE, NotThere, told
from gptwo.report.summary import flat
from gptwo.report.training import read_training
from gptwo.report.words import compact, number, percent

MOST_RUNS = len(ascii_uppercase)
SETTINGS = ("training", "model", "inputs", "world")
Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run as the comparison sees it; `facts` is None where there are no metrics."""

    letter: str
    name: str
    facts: dict[str, Any] | None
    notes: list[str]
    bits: float | None  # nats per token times this are bits per byte
    scored: Scored

    @property
    def plan(self) -> dict[str, Any]:
        return self.facts["plan"] if self.facts else {}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What the page tells."""

    runs: list[Trained]
    unit: str
    notes: list[str]
    charts: list[tuple[Any, str]]  # SVG and caption
    columns: list[str]
    rows: list[list[str]]  # one for each run, as the columns
    settings: list[tuple[str, list[str]]]  # those that differ: name, one value for each run
    pairs: list[dict[str, Any]]  # each later run against the first: see `compare_pair`

    @property
    def trained(self) -> bool:
        return any(run.facts for run in self.runs)

    @property
    def scored(self) -> bool:
        return any(run.scored.results or run.scored.overlap for run in self.runs)


def compare(folders: Sequence[Path]) -> Comparison:
    """Read the runs; raises `DataError` where a folder is none or nothing is in any of them."""
    if len(folders) > MOST_RUNS:
        raise UsageError(
            f"{len(folders)} runs to compare, {MOST_RUNS} at most", remedy="name fewer of them"
        )
    names = _names(folders)
    runs = [
        _read(folder, letter, name)
        for folder, letter, name in zip(folders, ascii_uppercase, names, strict=False)
    ]
    if not any(run.facts or run.scored.results for run in runs):
        raise DataError(
            f"there is no metrics.jsonl and no result in {', '.join(map(str, folders))}",
            remedy="name folders that gptwo train, eval or reproduce wrote",
        )
    first, *later = zip(runs, folders, strict=True)
    pairs = [
        {"first": first[0].name, "second": run.name, "letters": [first[0].letter, run.letter]}
        | compare_pair(first[1], folder)
        for run, folder in later
    ]
    unit, notes = _unit(runs)
    scale = [(run.bits or 1.0) if unit == "bits per byte" else 1.0 for run in runs]
    columns, rows = _table(runs, scale, unit)
    return Comparison(
        runs=runs,
        unit=unit,
        notes=notes,
        charts=_charts(runs, scale, unit),
        columns=columns,
        rows=rows,
        settings=_settings(runs),
        pairs=pairs,
    )


def mark_of(place: int) -> dict[str, str]:
    """CSS colour and SVG dashes of the run at `place`, for the list of runs."""
    color, dash = curves.style_of(place)
    pattern = "" if dash == "-" else " ".join(str(2 * part) for part in dash[1])
    return {"color": f"var(--{VARIABLES[color]})", "dashes": pattern}


def _names(folders: Sequence[Path]) -> list[str]:
    """Folder names, with their parent's where two are the same."""
    paths = [folder.resolve() for folder in folders]
    often = Counter(path.name for path in paths)
    return [
        path.name if often[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths
    ]


def _read(folder: Path, letter: str, name: str) -> Trained:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {found}, expected a run folder", remedy="check the path")
    notes: list[str] = []
    facts = None
    scored = read_scored(folder, ascii_uppercase.index(letter), letter, name, notes)
    try:
        facts = read_training(folder, notes)
    except NotThere:
        if not scored.results:
            notes.append("Nothing has been trained here yet: there is no metrics.jsonl.")
    except DAMAGE as error:
        notes.append(f"Damaged: {told(error)}")
    bits = None
    try:
        split = read_manifest(folder / "tokens").counts["valid"]
        bits = split["tokens"] / split["bytes"] / math.log(2)
    except (*DAMAGE, ZeroDivisionError):
        pass  # tokens lie elsewhere, or are not counted in bytes
    notes = [note.replace(f"{folder}/", "") for note in notes]
    return Trained(letter=letter, name=name, facts=facts, notes=notes, bits=bits, scored=scored)


def _unit(runs: Sequence[Trained]) -> tuple[str, list[str]]:
    """What losses are shown in, and what is to be said about it."""
    drawn = [run for run in runs if run.facts]
    inputs = [run.plan["inputs"] for run in drawn]
    notes = []
    tokenizers = {str(found["tokenizer"]) for found in inputs if "tokenizer" in found}
    unit = "nats per token"
    if len(tokenizers) > 1:
        if all(run.bits for run in drawn):
            unit = "bits per byte"
            notes.append("The tokenizers differ, so losses are given per byte of held-out text.")
        else:
            notes.append(
                "The tokenizers differ: a token of one is not a token of another, and their losses "
                "per token cannot be compared."
            )
    if len({str(found["tokens"]) for found in inputs if "tokens" in found}) > 1:
        notes.append("The tokens differ, and with them perhaps the held-out text.")
    return unit, notes


def seconds_at(facts: dict[str, Any], steps: np.ndarray) -> np.ndarray:
    """Seconds spent in steps up to each of `steps`; NaN where none were timed."""
    timings = facts["timings"]
    known = np.isfinite(timings["seconds"])
    if not known.any():
        return np.full(len(steps), np.nan)
    spent = np.cumsum(timings["seconds"][known])
    return np.interp(
        steps, np.append(0, timings["step"][known]), np.append(0, spent), right=float(spent[-1])
    )


def _charts(runs: Sequence[Trained], scale: Sequence[float], unit: str) -> list[tuple[Any, str]]:
    pairs = [(run, factor) for run, factor in zip(runs, scale, strict=True)]
    drawn = []
    for by, axis in (("tokens", "tokens"), ("step", "steps"), ("seconds", "seconds in steps")):
        lines = []
        for run, factor in pairs:
            train, valid = (run.facts or _NONE)["train"], (run.facts or _NONE)["valid"]
            x = [
                seconds_at(run.facts or _NONE, side["step"]) if by == "seconds" else side[by]
                for side in (valid, train)
            ]
            y = (factor * valid["valid_loss"], factor * train["loss"])
            lines.append(curves.pale_and_bold(run.letter, (x[0], x[1]), y))
        chart = curves.overlaid(
            f"loss-{by}", lines, x=axis, y=f"held-out loss, {unit}", title=f"Losses against {axis}"
        )
        drawn.append((chart, f"Against {axis}. Pale: training loss, averaged."))
    none = np.array([])
    for name, label in (("lr", "learning rate"), ("grad_norm", "gradient norm before clipping")):
        lines = [
            curves.pale_and_bold(
                run.letter, (train["step"], none), (_steady(name, train[name]), none)
            )
            for run in runs
            for train in [(run.facts or _NONE)["train"]]
        ]
        chart = curves.overlaid(
            name, lines, x="steps", y=label, title=f"{label} against steps", from_zero=True
        )
        drawn.append((chart, f"{label.capitalize()}{', averaged' if name != 'lr' else ''}."))
    return [(chart, caption) for chart, caption in drawn if chart]


def _steady(name: str, values: np.ndarray) -> np.ndarray:
    """A rate as it is; what jumps from step to step as an average."""
    finite = values[np.isfinite(values)]
    return values if name == "lr" or len(finite) < len(values) else curves.smoothed(values)


_NONE: dict[str, Any] = {
    "train": {name: np.array([]) for name in ("step", "tokens", "loss", "lr", "grad_norm")},
    "valid": {name: np.array([]) for name in ("step", "tokens", "valid_loss")},
    "timings": {name: np.array([]) for name in ("step", "seconds")},
    "events": [],
}


def _table(
    runs: Sequence[Trained], scale: Sequence[float], unit: str
) -> tuple[list[str], list[list[str]]]:
    """What each run is, reached and cost. The target is the loss that all reach."""
    last = [
        factor * float(run.facts["valid"]["valid_loss"][-1])
        for run, factor in zip(runs, scale, strict=True)
        if run.facts and np.any(run.facts["valid"]["step"] > 0)  # not just begun
    ]
    target = max(last) if len(last) > 1 else None
    columns = ["parameters", "steps", "tokens", "held-out loss", "lowest", "train loss"]
    columns += [f"time to {target:.3f}", f"tokens to {target:.3f}"] if target is not None else []
    columns += ["time in steps", "tokens/s", "MFU", "memory, MB", "odd steps"]
    rows = []
    for run, factor in zip(runs, scale, strict=True):
        facts = run.facts or _NONE
        reached = _reached(facts, factor, target) if target is not None else []
        rows.append(
            [compact(run.plan.get("parameters")), *_result(facts, factor), *reached, *_cost(facts)]
        )
    return columns, rows


def _result(facts: dict[str, Any], factor: float) -> list[str]:
    train, valid = facts["train"], factor * facts["valid"]["valid_loss"]
    asked = facts.get("plan", {}).get("training", {}).get("steps")
    steps = number(int(train["step"][-1])) if len(train["step"]) else "–"
    return [
        steps + (f" of {number(asked)}" if asked and steps != number(asked) else ""),
        compact(float(train["tokens"][-1])) if len(train["step"]) else "–",
        f"{valid[-1]:.4f}" if len(valid) else "–",
        f"{valid.min():.4f}" if len(valid) else "–",
        f"{factor * curves.smoothed(train['loss'])[-1]:.4f}" if len(train["step"]) else "–",
    ]


def _reached(facts: dict[str, Any], factor: float, target: float) -> list[str]:
    """When a held-out loss was first no higher than the target."""
    valid = facts["valid"]
    found = np.flatnonzero(factor * valid["valid_loss"] <= target + 1e-12)
    if not len(found):
        return ["–", "–"]
    first = found[0]
    seconds = seconds_at(facts, valid["step"][first : first + 1])[0]
    return [
        duration(seconds) if math.isfinite(seconds) else "–",
        compact(float(valid["tokens"][first])),
    ]


def _cost(facts: dict[str, Any]) -> list[str]:
    timings, kinds = facts["timings"], Counter(event["kind"] for event in facts["events"])
    odd = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()) or "none"
    if not len(timings["step"]):
        return ["–", "–", "–", "–", odd]
    spent = float(np.nansum(timings["seconds"]))

    def middle(name: str) -> float:
        known = timings[name][np.isfinite(timings[name])]
        return float(np.median(known)) if len(known) else math.nan

    memory = timings["memory_mb"][np.isfinite(timings["memory_mb"])]
    return [
        duration(spent) if spent else "–",
        compact(round(middle("tokens_per_second"))) if spent else "–",
        percent(middle("mfu")),
        number(int(memory.max())) if len(memory) else "–",
        odd,
    ]


def _settings(runs: Sequence[Trained]) -> list[tuple[str, list[str]]]:
    """Settings whose values differ; a dash where a run does not say."""
    known = [
        dict(flat({part: run.plan[part] for part in SETTINGS if run.plan.get(part)}))
        if run.plan
        else {}
        for run in runs
    ]
    names = dict.fromkeys(name for values in known for name in values if name)
    told_by = [values for values in known if values]
    found = []
    for name in names:
        if len({values.get(name) for values in told_by}) > 1:
            values = [values.get(name, "–") for values in known]
            short = name.startswith("inputs.")  # fingerprints: their beginning tells them apart
            found.append((name, [value[:12] if short else value for value in values]))
    return found
