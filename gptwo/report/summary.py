"""A run in a few numbers: the sentence and the facts on top, the diagram, tiles and origins."""

import math
import shlex
from collections.abc import Iterator
from typing import Any

import numpy as np

from gptwo.progress import duration
from gptwo.report.collect import Collected, Part
from gptwo.report.words import as_json, compact, metric_value, number, percent

Fact = tuple[str, str, str]  # label, value, detail


def fact(part: Part, name: str) -> Any:
    """A fact of a part, None where there is none."""
    return (part.facts or {}).get(name)


def totals(found: Collected) -> dict[str, int | None]:
    """How much there is of everything, None for what is not there."""
    parts = found.parts
    links, pages, corpus = ((fact(parts[n], "counts") or {}) for n in ("links", "pages", "corpus"))
    documents = corpus.get("documents", {})
    splits = fact(parts["tokens"], "splits") or {}
    step = (fact(parts["training"], "train") or {}).get("step", ())
    samples = fact(parts["samples"], "groups") or {}
    results = fact(parts["scores"], "results") or []
    plan = fact(parts["training"], "plan") or {}
    scored = results[0]["model"].get("parameters") if results else None
    return {
        "links": links.get("kept"),
        "pages": pages.get("outcomes", {}).get("ok"),
        "documents": sum(documents.values()) if documents else None,
        "tokens": sum(split.get("tokens", 0) for split in splits.values()) if splits else None,
        "parameters": plan.get("parameters") or scored,
        "steps": int(step[-1]) if len(step) else None,
        "tasks": len(results) or None,
        "samples": sum(len(group) for group in samples.values()) or None,
    }


def arrow(found: Collected) -> list[dict[str, str]]:
    """The nodes of the diagram, in order: room, section, count, unit and state."""
    rows = (
        ("web", "links", "links"),
        ("pages", "pages", "pages"),
        ("corpus", "corpus", "documents"),
        ("tokens", "tokens", "tokens"),
        ("model", "training", "parameters"),
        ("training", "training", "steps"),
        ("zeroshot", "scores", "tasks"),
        ("text", "samples", "samples"),
    )
    count = totals(found)
    return [
        {
            "room": room,
            "part": part,
            "count": compact(count[unit]),
            "unit": unit,
            "state": found.parts[part].state if count[unit] is not None else "missing",
        }
        for room, part, unit in rows
        if found.crawls or part not in ("links", "pages")
    ]


def lede(found: Collected) -> str:
    """The whole run in a sentence or two."""
    count = totals(found)
    units = ("links", "pages", "documents")
    path = [f"{number(count[unit])} {unit}" for unit in units if count[unit]]
    path += [f"{compact(count['tokens'])} tokens"] if count["tokens"] else []
    sentences = [joined(path) + "."] if path else []
    if count["parameters"] and count["steps"]:
        seen = float(fact(found.parts["training"], "train")["tokens"][-1])
        train = (fact(found.parts["tokens"], "splits") or {}).get("train", {}).get("tokens")
        passes = f", {seen / train:.2g} passes over the corpus" if train else ""
        sentences.append(
            f"A GPT-2 of {compact(count['parameters'])} parameters learned from "
            f"{compact(seen)} tokens in {number(count['steps'])} steps{passes}."
        )
    return " ".join(sentences) or "Nothing is finished in this run folder yet."


def joined(parts: list[str]) -> str:
    """`joined(["3 links", "2 pages", "1 document"]) == "3 links led to 2 pages and 1 document"`"""
    first, *rest = parts
    if not rest:
        return first
    *middle, last = rest
    return f"{first} led to " + (f"{', '.join(middle)} and {last}" if middle else last)


def headline(found: Collected) -> list[Fact]:
    """What it is, how big, when, where, how long."""
    run, recipe, machine = found.run, found.run["recipe"], found.run["machine"]
    size, count = recipe.get("size", ""), totals(found)["parameters"]
    seconds = sum(stage["seconds"] for stage in stage_times(run))
    rows = [
        ("recipe", str(recipe.get("name", "")), ""),
        ("size", str(size), f"{number(count)} parameters" if count else ""),
        ("date", str(run.get("created", ""))[:10], str(run.get("created", ""))[11:16]),
        ("machine", str(machine.get("processor", "")), _machine_detail(machine)),
        ("time", duration(seconds) if seconds else "", "all stages together"),
    ]
    return [row for row in rows if row[1]]


def _machine_detail(machine: dict[str, Any]) -> str:
    known = {"cores": "cores", "memory_gb": "GB of memory"}
    return ", ".join(f"{machine[name]} {unit}" for name, unit in known.items() if name in machine)


def stage_times(run: dict[str, Any]) -> list[dict[str, Any]]:
    """(name, state, seconds, share of all) of each stage but the report, which is being made."""
    known = {name: entry for name, entry in run["stages"].items() if name != "report"}
    seconds = {
        name: float(value) if isinstance(value := entry.get("seconds"), int | float) else 0.0
        for name, entry in known.items()
    }
    total = sum(seconds.values())
    return [
        {
            "name": name,
            "state": str(entry.get("state", "")),
            "seconds": seconds[name],
            "share": seconds[name] / total if total else 0.0,
        }
        for name, entry in known.items()
    ]


def training_tiles(found: Collected) -> list[Fact]:
    """Shape, data, loss and speed of the training run."""
    part = found.parts["training"]
    if not part.facts or not len(part.facts["train"]["step"]):
        return []
    model, settings = (part.facts["plan"].get(name, {}) for name in ("model", "training"))
    return [
        tile
        for tile in (
            _shape_tile(model),
            _progress_tile(part.facts["train"], settings),
            *_loss_tiles(found),
            *_speed_tiles(part.facts["timings"]),
        )
        if tile[1]
    ]


def _shape_tile(model: dict[str, Any]) -> Fact:
    if "n_layer" not in model:
        return ("shape", "", "")
    detail = f"{model.get('n_head')} heads, context {model.get('n_ctx')}"
    return ("shape", f"{model['n_layer']} layers × {model.get('n_embd')}", detail)


def _progress_tile(train: dict[str, np.ndarray], settings: dict[str, Any]) -> Fact:
    steps = f"of {number(settings['steps'])} steps" if "steps" in settings else "steps"
    return ("step", number(int(train["step"][-1])), steps)


def _loss_tiles(found: Collected) -> Iterator[Fact]:
    valid = found.parts["training"].facts or {}
    losses = valid["valid"]["valid_loss"]
    if not len(losses) or not math.isfinite(losses[-1]):
        return
    yield ("held-out loss", f"{losses[-1]:.3f}", "nats per token")
    perplexity = math.exp(min(losses[-1], 700))
    yield ("perplexity", metric_value("perplexity", perplexity), "per token, held out")
    split = (fact(found.parts["tokens"], "splits") or {}).get("valid", {})
    if split.get("tokens") and split.get("bytes"):
        bits = losses[-1] / math.log(2) * split["tokens"] / split["bytes"]
        yield ("bits per byte", f"{bits:.3f}", "held out")


def _speed_tiles(timings: dict[str, np.ndarray]) -> Iterator[Fact]:
    if not len(timings["step"]):
        return
    yield ("speed", compact(round(float(np.nanmedian(timings["tokens_per_second"])))), "tokens/s")
    if np.isfinite(timings["mfu"]).any():
        yield ("MFU", percent(float(np.nanmedian(timings["mfu"]))), "median of the steps")
    if np.isfinite(timings["memory_mb"]).any():
        yield ("memory", f"{number(int(np.nanmax(timings['memory_mb'])))} MB", "at most")


def validation_rows(part: Part, most: int = 40) -> list[tuple[int, int, float, float]]:
    """(step, tokens, held-out loss, perplexity), evenly thinned when there are many."""
    columns = fact(part, "valid")
    if columns is None or not len(columns["step"]):
        return []
    chosen = np.unique(np.linspace(0, len(columns["step"]) - 1, most).round().astype(int))
    return [
        (
            int(columns["step"][i]),
            int(columns["tokens"][i]),
            float(columns["valid_loss"][i]),
            math.exp(min(columns["valid_loss"][i], 700)),
        )
        for i in chosen
    ]


def origin(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Commit, versions and machine."""
    machine = run["machine"]
    versions = machine.get("versions") or {}
    rows = {
        "gptwo": run.get("version", ""),
        "commit": run.get("commit", ""),
        "begun": run.get("created", ""),
        "processor": machine.get("processor", ""),
        "cores and memory": _machine_detail(machine),
        "system": machine.get("system", ""),
        "python": machine.get("python", ""),
        "packages": ", ".join(f"{k} {v}" for k, v in versions.items() if v and k != "gptwo"),
    }
    return [(label, str(value)) for label, value in rows.items() if value]


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """`[("training.lr", "0.002"), ...]`, as `--set` takes them."""
    if isinstance(value, dict) and value:
        return [pair for key in value for pair in flat(value[key], f"{prefix}.{key}".strip("."))]
    return [(prefix, value if isinstance(value, str) else as_json(value))]


def command_to_run_again(run: dict[str, Any]) -> str:
    """The command line that run.json remembers."""
    return str(
        run.get("command") or f"gptwo reproduce {shlex.quote(run['recipe'].get('name', ''))}"
    )
