"""Our results beside the paper's: the difference, row by row, and what explains it.

The paper's numbers and those of others who ran the released weights lie in `paper.json`, with the
source of each. A model is compared with the paper's size that is nearest in parameters.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptwo.errors import DataError
from gptwo.records import TaskResult
from gptwo.zeroshot.run import Subject, published, read_result

METRICS_LAST = ("top_1_percent_accuracy",)  # of parts of a set, after what is of the whole


def tasks_of_the_paper() -> tuple[str, ...]:
    """The names of the paper's tasks, in the order of its tables."""
    return tuple(published()["paper"])


def kept_results(folder: Path, tasks: Sequence[str], weights_sha256: str) -> dict[str, TaskResult]:
    """The results of these weights in a folder of scores; what is no result is passed over."""
    found = {}
    for task in tasks:
        try:
            result = read_result(folder / f"{task}.json")
        except (DataError, FileNotFoundError):
            continue
        if result.model.get("weights_sha256") == weights_sha256:
            found[task] = result
    return found


def beside_the_paper(
    model: Subject, evaluate: Callable[[], dict[str, TaskResult]], folder: Path, some_missing: bool
) -> dict[str, Any]:
    """Evaluate, then compare; with `some_missing` tasks without their data are only left out.

    `evaluate` writes into `folder`, and says itself which tasks it leaves out.
    """
    weights = str(model.description["weights_sha256"])
    try:
        results = evaluate()
    except DataError:
        results = kept_results(folder, tasks_of_the_paper(), weights) if some_missing else {}
        if not results:
            raise
    released = [n for n, s in published()["sizes"].items() if s["weights_sha256"] == weights]
    return compare_with_paper(results, int(model.description["parameters"]), *released)


def compare_with_paper(
    results: dict[str, TaskResult], parameters: int, released: str = ""
) -> dict[str, Any]:
    """The comparison of a model's results with the paper's.

    `released` is the paper's size that has these very weights, "" for another model. Returns plain
    values: `paper_size` and `same_model`, `note`, `rows` with one entry for each number that the
    paper or others give for this size, and `not_run`, the paper's tasks without a result.

    A row is `task metric n ours low high paper difference within why reproductions`; `within` is
    whether the paper's number lies in our 95% interval, None where there is no interval.
    """
    known = published()
    label = nearest_size(parameters, known["sizes"])
    size = known["sizes"][label]
    rows = [
        _row(task, metric, result, label, known)
        for task, result in results.items()
        for metric in _metrics(task, label, size["weights"], known)
        if metric in result.metrics
    ]
    return {
        "parameters": parameters,
        "paper_size": label,
        "same_model": released == label,
        "note": _note(parameters, label, size, released),
        "rows": rows,
        "not_run": [task for task in known["paper"] if task not in results],
    }


def nearest_size(parameters: int, sizes: dict[str, dict[str, Any]]) -> str:
    """The paper's label of the size nearest in parameters, by their ratio."""
    return min(sizes, key=lambda s: abs(math.log(sizes[s]["parameters"] / max(parameters, 1))))


def _note(parameters: int, label: str, size: dict[str, Any], released: str) -> str:
    if released == label:
        return f"these are the released weights of the paper's {label} ({size['released']})"
    return (
        f"this model has {parameters:,} parameters and is not one of the paper's; beside it stands "
        f"the nearest in size, {label} with {size['parameters']:,}, which read WebText: the "
        "differences are of size and data first, of protocol last"
    )


def _metrics(task: str, label: str, weights: str, known: dict[str, Any]) -> list[str]:
    """Metrics that the paper or a reproduction gives for a size, the paper's first."""
    names = list(known["paper"].get(task, {}).get(label, {}))
    for entry in _reproductions(task, known):
        names += entry["values"].get(weights, {})
    names = list(dict.fromkeys(names))
    return sorted(names, key=lambda name: name in METRICS_LAST)


def _reproductions(task: str, known: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in known["reproductions"] if entry["task"] == task]


def _row(
    task: str, metric: str, result: TaskResult, label: str, known: dict[str, Any]
) -> dict[str, Any]:
    ours, interval = result.metrics[metric], result.intervals.get(metric)
    paper = known["paper"].get(task, {}).get(label, {}).get(metric)
    weights = known["sizes"][label]["weights"]
    others = [
        {
            "value": entry["values"][weights][metric],
            "difference": ours - entry["values"][weights][metric],
            "protocol": entry["protocol"],
            "source": entry["source"],
        }
        for entry in _reproductions(task, known)
        if metric in entry["values"].get(weights, {})
    ]
    within = None
    if interval and paper is not None:
        within = interval.low <= paper <= interval.high
    return {
        "task": task,
        "metric": metric,
        "n": result.n,
        "ours": ours,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "paper": paper,
        "difference": None if paper is None else ours - paper,
        "within": within,
        "why": _why(task, result, known) if paper is not None else [],
        "reproductions": others,
    }


def _why(task: str, result: TaskResult, known: dict[str, Any]) -> list[str]:
    """What differs, or may differ, between our protocol and the paper's."""
    protocol, found = result.protocol, []
    if "mode" in protocol:
        found.append(f"ours is in another mode, {protocol['mode']}")
    if str(protocol.get("limit", "all")).startswith("the first"):
        found.append(f"ours is of {protocol['limit']} only")
    if "stride" in protocol:
        found.append(
            f"ours: windows of {protocol.get('window')} tokens, {protocol['stride']} of them new "
            "in each; a smaller stride lowers the number"
        )
    size, whole = known["whole sets"].get(task), result.n
    if size and whole < size:
        found.append(f"ours has {whole:,} of the paper's {size:,} examples")
    paper = known["protocols"].get(task, {})
    if paper.get("open"):
        found.append(f"the paper leaves open: {paper['open']}")
    return found


def table(comparison: dict[str, Any]) -> str:
    """The comparison as lines for a terminal."""
    label = comparison["paper_size"]
    lines = [comparison["note"], ""]
    form = "{:<14} {:<24} {:>10}  {:<22} {:>10} {:>11}  {}"
    lines.append(
        form.format("task", "metric", "ours", "95% interval", label, "difference", "in it")
    )
    for row in comparison["rows"]:
        interval = "" if row["low"] is None else f"{_short(row['low'])} to {_short(row['high'])}"
        within = {True: "yes", False: "no", None: ""}[row["within"]]
        numbers = (_short(row["ours"]), interval, _short(row["paper"]), _signed(row["difference"]))
        metric = row["metric"].replace("_", " ")
        lines.append(form.format(row["task"], metric, *numbers, within).rstrip())
        lines += [f"    {reason}" for reason in row["why"]]
        lines += [
            f"    others, with the released weights: {_short(other['value'])} "
            f"({_signed(other['difference'])}): {other['protocol']} [{other['source']}]"
            for other in row["reproductions"]
        ]
    if comparison["not_run"]:
        lines += ["", f"not run: {', '.join(comparison['not_run'])}"]
    return "\n".join(lines)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+,.3g}"
