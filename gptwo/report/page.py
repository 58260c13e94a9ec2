"""One self-contained page from a run folder, `report.html`, or about several trainings."""

from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gptwo.artifacts import atomic_write
from gptwo.progress import SILENT, Reporter, duration
from gptwo.report import charts, curves, summary, words
from gptwo.report.collect import Collected, collect
from gptwo.report.compare import Comparison, mark_of
from gptwo.report.paper import on_page, read_scored
from gptwo.report.training import EVENTS_SHOWN

HERE = Path(__file__).parent
TITLES = {
    "links": "Links",
    "pages": "Pages",
    "corpus": "Corpus",
    "truth": "Against the truth",
    "tokens": "Tokens",
    "training": "Training",
    "scores": "Zero-shot scores",
    "samples": "Text",
}
CHARTS = ("loss", "rate", "pace", "mfu", "trials", "lengths", "accuracies", "perplexities")


def write_report(run: Path, out: Path | None = None, reporter: Reporter = SILENT) -> Path:
    """Write the page of the run folder `run` to `out` (`run/report.html`) and return its path.

    The same folder gives the same bytes. Stages that have not run and files that are damaged are
    said on the page; a folder that holds no run is a `DataError`.
    """
    out = out or run / "report.html"
    found = collect(run)
    reporter.check()
    scored = read_scored(run, 0, "", found.name, [])  # damage is said where scores are told
    return _write(out, render(found, on_page([scored])), reporter)


def write_comparison(found: Comparison, out: Path, reporter: Reporter = SILENT) -> Path:
    """Write the page of several runs, as `compare` has read them; the same runs, the same bytes."""
    text = (
        _environment()
        .get_template("compare.html")
        .render(
            found=found,
            runs=found.runs,
            title=", ".join(run.name for run in found.runs[:3])
            + (f" and {len(found.runs) - 3} more" if len(found.runs) > 3 else ""),
            style=_style(),
            mark_of=mark_of,
            paper=on_page([run.scored for run in found.runs]),
        )
    )
    return _write(out, text.strip() + "\n", reporter)


def _write(out: Path, text: str, reporter: Reporter) -> Path:
    with atomic_write(out, "w") as handle:
        handle.write(text)
    reporter.say(f"report: {out} ({words.size_of(len(text.encode()))})")
    return out


def _style() -> Markup:
    return Markup((HERE / "style.css").read_text(encoding="utf-8"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": words.number,
        "compact": words.compact,
        "size": words.size_of,
        "duration": duration,
        "metric": lambda value, name: words.metric_value(name, value),
        "plain": words.plain,
        "p_value": words.p_value,
    }
    environment.globals |= {
        "percent": words.percent,
        "paper_size": words.paper_size,
        "titles": TITLES,
        "tasks": words.TASKS,
        "named_rows": lambda rows: [{"": name} | row for name, row in rows.items()],
        "events_shown": EVENTS_SHOWN,
    }
    return environment


def render(found: Collected, paper: dict[str, Any]) -> str:
    """The page as HTML; `paper` is what `on_page` says of its scores."""
    stages = summary.stage_times(found.run)
    page = (
        _environment()
        .get_template("page.html")
        .render(
            found=found,
            parts=found.parts,
            run=found.run,
            style=_style(),
            charts=draw(found),
            paper=paper,
            lede=summary.lede(found),
            headline=summary.headline(found),
            arrow=summary.arrow(found),
            stages=stages,
            total=sum(stage["seconds"] for stage in stages),
            training=summary.training_tiles(found),
            valid_rows=summary.validation_rows(found.parts["training"]),
            settings=summary.flat(found.run["recipe"]) if found.run["recipe"] else [],
            origin=summary.origin(found.run),
            again=summary.command_to_run_again(found.run),
        )
    )
    return page.strip() + "\n"


def draw(found: Collected) -> dict[str, Any]:
    """All charts by name; None where there are no numbers for one."""
    drawn: dict[str, Any] = dict.fromkeys(CHARTS)
    training = found.parts["training"].facts
    if training and len(training["train"]["step"]):
        train, timings = training["train"], training["timings"]
        mark = partial(curves.mark_events, found=training["events"])
        drawn["loss"] = charts.loss_curves(train, training["valid"], mark)
        step, pace = timings["step"], timings["tokens_per_second"]
        drawn["rate"] = charts.line(
            "rate", train["step"], train["lr"], label="learning rate", title="Learning rate by step"
        )
        drawn["pace"] = charts.line(
            "pace", step, pace, label="tokens per second", title="Tokens per second by step"
        )
        drawn["mfu"] = charts.line(
            "mfu",
            step,
            timings["mfu"],
            label="share of the machine's arithmetic (MFU)",
            title="Model FLOPs utilisation by step",
            percent=True,
        )
    if training and training["trials"]:
        drawn["trials"] = curves.search_for_a_rate(training["trials"])
    corpus = found.parts["corpus"].facts
    if corpus and corpus["lengths"].sum():
        drawn["lengths"] = charts.length_histogram(corpus["lengths"], corpus["edges"])
    results = summary.fact(found.parts["scores"], "results") or []
    if rows := accuracy_rows(results):
        drawn["accuracies"] = charts.accuracies(rows)
    if rows := perplexity_rows(results):
        drawn["perplexities"] = charts.perplexities(rows)
    return drawn


def accuracy_rows(results: list[dict[str, Any]]) -> list[tuple[str, float, Any, Any]]:
    """The first accuracy of each task, with the baselines for it."""
    rows = []
    for result in results:
        metric = next((name for name in result["metrics"] if "accuracy" in name), None)
        if metric:
            beside = {k: v[metric] for k, v in result["baselines"].items() if metric in v}
            interval = result["intervals"].get(metric)
            title = words.TASKS.get(result["task"], (result["task"],))[0]
            rows.append((title, result["metrics"][metric], interval, beside))
    return rows


def perplexity_rows(results: list[dict[str, Any]]) -> list[tuple[str, float, Any]]:
    """Perplexity on each split, from the task `heldout`."""
    for result in results:
        if result["task"] == "heldout":
            names = [(split, f"{split}_perplexity") for split in ("train", "valid", "test")]
            return [
                (split, result["metrics"][name], result["intervals"].get(name))
                for split, name in names
                if name in result["metrics"]
            ]
    return []
