"""The paper's figures and tables, drawn from a set of runs: ours beside its rows.

What no run has scored leaves a place that says what to run.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from gptwo.artifacts import read_json
from gptwo.report import panels
from gptwo.report.collect import read_scores
from gptwo.report.published import levels, points, published
from gptwo.report.reading import DAMAGE, NotThere, is_number, or_note, told
from gptwo.report.words import is_share, metric_value
from gptwo.streams import decompressed

ANSWERS = 30  # of table 5
LM_COLUMNS = (  # of table 3: heading, task, metrics of which the first that is there counts
    ("LAMBADA ppl", "lambada", "perplexity"),
    ("LAMBADA acc", "lambada", "filtered_accuracy"),
    ("CBT-CN", "cbt-cn", "accuracy"),
    ("CBT-NE", "cbt-ne", "accuracy"),
    ("WikiText-2", "wikitext2", "perplexity"),
    ("PTB", "ptb", "perplexity"),
    ("enwik8 bpb", "enwik8", "bits_per_byte"),
    ("text8 bpc", "text8", "bits_per_character"),
    ("WikiText-103", "wikitext103", "perplexity"),
    ("1BW", "1bw", "perplexity"),
)
ROUGE = (("R-1", "rouge_1"), ("R-2", "rouge_2"), ("R-L", "rouge_l"), ("mean", "rouge_mean"))
FIGURES: tuple[tuple[int, str, tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]], ...] = (
    (
        1,
        "Four tasks against size",
        (
            ("coqa", "CoQA, F1", (("f1", ""),)),
            ("wmt14-fr-en", "WMT14 French to English, BLEU", (("bleu", ""),)),
            ("cnn-dailymail", "CNN/Daily Mail, mean ROUGE", (("rouge_mean", ""),)),
            ("nq", "Natural Questions, exact match", (("exact_match", ""),)),
        ),
    ),
    (
        2,
        "The Children's Book Test against size",
        (
            ("cbt-cn", "Common nouns, accuracy", (("accuracy", ""),)),
            ("cbt-ne", "Named entities, accuracy", (("accuracy", ""),)),
        ),
    ),
    (
        3,
        "Winograd schemas against size",
        (
            (
                "wsc273",
                "Accuracy of both scorings",
                (("partial_accuracy", "partial"), ("full_accuracy", "full")),
            ),
        ),
    ),
    (
        4,
        "Text it has read and text it has not",
        (
            (
                "heldout",
                "Perplexity per token",
                (("train_perplexity", "train"), ("test_perplexity", "test")),
            ),
        ),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a run has scored: task -> result, its surest answers, overlap.json; any may be empty."""

    place: int
    letter: str  # "" where it is alone
    name: str
    results: dict[str, dict[str, Any]]
    answers: list[dict[str, Any]]
    overlap: dict[str, Any]

    def value(self, task: str, metric: str) -> tuple[int, float, Any] | None:
        """(parameters, value, interval) of a metric, None where it is not there."""
        result = self.results.get(task)
        if not result or metric not in result["metrics"]:
            return None
        size = result["model"].get("parameters")
        return (size, result["metrics"][metric], result["intervals"].get(metric)) if size else None


def read_scored(run: Path, place: int, letter: str, name: str, notes: list[str]) -> Scored:
    """The scores of a run folder; damage becomes notes."""
    try:
        found = read_scores(run, notes)["results"]
    except NotThere:
        found = []
    except DAMAGE as error:
        notes.append(f"Damaged: {told(error)}")
        found = []
    overlap = run / "overlap" / "overlap.json"
    return Scored(
        place=place,
        letter=letter,
        name=name,
        results={result["task"]: result for result in found},
        answers=or_note(notes, lambda: surest_answers(run), []),
        overlap=or_note(notes, lambda: _overlap(overlap), {}) if overlap.exists() else {},
    )


def surest_answers(run: Path) -> list[dict[str, Any]]:
    """The answers to Natural Questions that the model is surest of, surest first (table 5)."""
    path = run / "scores" / "nq.samples.jsonl.zst"
    if not path.exists():
        return []
    with decompressed(path) as lines:
        records = [json.loads(line) for line in lines][1:]
    records.sort(key=lambda record: -float(record["confidence"]))
    kept = ("question", "answer", "confidence", "exact_match")
    return [{name: record[name] for name in kept} for record in records[:ANSWERS]]


def _overlap(path: Path) -> dict[str, Any]:
    found = read_json(path)
    for row in found["table"]:
        assert is_number(row["share"]) or row["share"] is None, row
    return found


@dataclass(frozen=True, kw_only=True)
class Place:
    """A drawing, or the words that say what to run for it."""

    title: str
    chart: Markup | None
    caption: str
    run: str = ""


def figures(runs: Sequence[Scored]) -> list[tuple[str, list[Place]]]:
    """(heading, its panels) of figures 1 to 5."""
    drawn = [
        (f"Figure {number}. {title}", [_panel(runs, *panel) for panel in of_it])
        for number, title, of_it in FIGURES
    ]
    return [*drawn, ("Figure 5. What it writes from memory", [_memorisation(runs)])]


def curves_of_table_3(runs: Sequence[Scored]) -> list[Place]:
    """The columns of table 3 against size, where a run has a score; CBT is figure 2."""
    places = [
        _panel(runs, task, heading, ((metric, ""),))
        for heading, task, metric in LM_COLUMNS
        if not task.startswith("cbt")
    ]
    return [place for place in places if place.chart]


def _panel(
    runs: Sequence[Scored], task: str, title: str, metrics: Sequence[tuple[str, str]]
) -> Place:
    series, lines = [], {}
    for metric, label in metrics:
        ours = [(r.letter, *v) for r in runs if (v := r.value(task, metric)) is not None]
        series.append(
            panels.Series(
                metric=metric,
                label=label,
                ours=ours,
                paper=points(task, metric),
                read_off=points(task, metric, "plots"),
            )
        )
        lines |= levels(task, metric)
    if not any(line.ours for line in series):
        needs = "--corpus CORPUS" if task == "heldout" else "--data DIR"
        return Place(title=title, chart=None, caption="", run=f"gptwo eval RUN {task} {needs}")
    chart = panels.size_panel(f"size-{task}-{metrics[0][0]}", title, series, lines)
    return Place(title=title, chart=chart, caption=_caption(runs, task))


def _caption(runs: Sequence[Scored], task: str) -> str:
    results = [r.results[task] for r in runs if task in r.results]
    counts = sorted({result["n"] for result in results if result["n"]})
    of = " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "?"
    limits = {str(result["protocol"].get("limit", "")) for result in results}
    part = next((limit for limit in sorted(limits) if limit.startswith("the first")), "")
    said = published()["sources"]["where"].get(task, "")
    return (
        f"n = {of}{f' ({part} only)' if part else ''}; bars are 95% intervals. "
        f"{f'The paper: {said}.' if said else ''}".strip()
    )


def _memorisation(runs: Sequence[Scored]) -> Place:
    title = "Overlap of continuations"
    curves = [(r.place, r.letter, c) for r in runs if (c := r.overlap.get("curve"))]
    if not curves:
        return Place(title=title, chart=None, caption="", run="gptwo overlap RUN --data DIR")
    first = curves[0][2]
    chart = panels.memorisation(curves, median=published()["overlap"]["figure 5"]["median"])
    return Place(
        title=title,
        chart=chart,
        caption=f"{len(first['generated']):,} documents of the {first['split']} split, the model "
        f"continuing each, top-k {first['top_k']}. "
        f"The paper: {published()['overlap']['statements']['generation']}.",
    )


Cell = dict[str, Any]  # text, interval
Row = dict[str, Any]  # label, kind: ours, paper or baseline, cells


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the paper with our rows in it."""

    title: str
    columns: list[str]
    rows: list[Row]
    note: str = ""


def _cell(metric: str, value: Any, interval: Any = None) -> Cell:
    if value is None:
        return {"text": "", "interval": ""}
    ends = ""
    if interval:
        ends = (
            f"{metric_value(metric, interval['low'])} to {metric_value(metric, interval['high'])}"
        )
    return {"text": metric_value(metric, value), "interval": ends}


def _printed(metric: str, value: Any) -> Cell:
    """A number of the paper with the digits that it prints."""
    if value is None:
        return _cell(metric, None)
    share = is_share(metric)
    text = f"{100 * value:.5g}%" if share else f"{value:.5g}"
    return {"text": text, "interval": ""}


def _label(run: Scored) -> str:
    return f"{run.letter} {run.name}".strip()


def table_3(runs: Sequence[Scored]) -> Table:
    """Language modelling: the paper's best before it and four sizes, then ours."""
    rows: list[Row] = []
    known = published()["paper"]
    for label in ("prior SOTA", *published()["sizes"]):
        cells = [_printed(m, known.get(t, {}).get(label, {}).get(m)) for _, t, m in LM_COLUMNS]
        rows.append({"label": label, "kind": "paper", "cells": cells})
    for run in runs:
        values = [(m, run.value(task, m)) for _, task, m in LM_COLUMNS]
        if any(value for _, value in values):
            cells = [_cell(m, v[1], v[2]) if v else _cell(m, None) for m, v in values]
            rows.append({"label": _label(run), "kind": "ours", "cells": cells})
    missing = [t for _, t, m in LM_COLUMNS if not any(r.value(t, m) for r in runs)]
    return Table(
        title="Table 3. Language modelling",
        columns=[heading for heading, _, _ in LM_COLUMNS],
        rows=rows,
        note=_to_run(list(dict.fromkeys(missing))),
    )


def _to_run(tasks: Sequence[str]) -> str:
    return f"gptwo eval RUN {' '.join(tasks)} --data DIR" if tasks else ""


def table_4(runs: Sequence[Scored]) -> Table:
    """Summaries: the paper's rows, ours with and without the hint, baselines on our articles."""
    rows: list[Row] = []
    for label, row in published()["paper"]["cnn-dailymail"].items():
        name = label.replace("1542M", "1542M TL;DR:") if label == "1542M" else label
        cells = [_printed(m, row.get(m)) for _, m in ROUGE]
        rows.append({"label": name, "kind": "paper", "cells": cells})
    scored = [run for run in runs if "cnn-dailymail" in run.results]
    for run in scored:
        for prefix, name in (("", "TL;DR:"), ("no_hint_", "no hint")):
            values = [run.value("cnn-dailymail", prefix + m) for _, m in ROUGE]
            cells = [_cell("rouge", v[1], v[2]) if v else _cell("", None) for v in values]
            rows.append({"label": f"{_label(run)}, {name}", "kind": "ours", "cells": cells})
    for label, row in scored[0].results["cnn-dailymail"]["baselines"].items() if scored else ():
        cells = [_cell("rouge", row.get(m)) for _, m in ROUGE]
        rows.append({"label": f"{label}, our articles", "kind": "baseline", "cells": cells})
    return Table(
        title="Table 4. Summaries",
        columns=[heading for heading, _ in ROUGE],
        rows=rows,
        note="" if scored else _to_run(["cnn-dailymail"]),
    )


def table_6(runs: Sequence[Scored]) -> Table:
    """Overlap: the share of test 8-grams in the sets' own training split, WebText, our corpora."""
    known = published()["overlap"]
    tasks = list(known["WebText"])
    ours = [run for run in runs if run.overlap.get("table")]
    others = [row["task"] for run in ours for row in run.overlap["table"]]
    tasks = list(dict.fromkeys([*tasks, *others]))
    rows: list[Row] = []
    for label in ("own training split", "WebText"):
        cells = [_printed("share", known[label].get(task)) for task in tasks]
        rows.append({"label": label, "kind": "paper", "cells": cells})
    for run in ours:
        found = {row["task"]: row for row in run.overlap["table"]}
        cells = [
            _cell("share", found[t]["share"], found[t].get("interval"))
            if t in found
            else _cell("", None)
            for t in tasks
        ]
        rows.append({"label": f"{_label(run)}'s corpus", "kind": "ours", "cells": cells})
    return Table(
        title="Table 6. Test sets in the training text",
        columns=tasks,
        rows=rows,
        note="" if ours else "gptwo overlap RUN --data DIR",
    )


def on_page(runs: Sequence[Scored]) -> dict[str, Any]:
    """All of it, as the template `paper.html` takes it."""
    return {
        "figures": figures(runs),
        "curves": curves_of_table_3(runs),
        "tables": [table_3(runs), table_4(runs), table_6(runs)],
        "answers": [run for run in runs if run.answers],
        "table_5": published()["table 5"],
    }
