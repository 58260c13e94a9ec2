"""The facts of a run, read from its folder alone.

Every part is read for itself. One that is not there yet, or is damaged, becomes a note in its place
and takes nothing away from the others.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import Manifest, damage, read_json, read_manifest
from gptwo.errors import DataError
from gptwo.report.pieces import packed_sample
from gptwo.report.reading import DAMAGE, NotThere, is_number, json_lines, or_note, told
from gptwo.report.tables import examples
from gptwo.report.training import read_training
from gptwo.report.truth import judge
from gptwo.report.words import TASKS

SPLITS = ("train", "valid", "test")
TOP_DOMAINS = 10
SAMPLES = 12
SAMPLE_CHARACTERS = 2_000


@dataclass
class Part:
    """What is known of one stage of the arrow; `facts` is None where there is nothing to tell."""

    name: str
    facts: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    state: str = ""  # done, running, failed or, where run.json does not know the stage, empty
    seconds: float | None = None


@dataclass
class Collected:
    """Everything the page tells: run.json, the stages in order, and what proves them."""

    name: str
    run: dict[str, Any]
    parts: dict[str, Part]
    manifests: dict[str, Manifest]
    notes: list[str]
    crawls: bool  # whether it begins at links; a run that begins with texts has none

    @property
    def is_demo(self) -> bool:
        return bool(self.run["recipe"].get("demo")) or "demoweb" in self.manifests


def collect(run: Path) -> Collected:
    """Read the run folder `run`; raises `DataError` when there is no run in it."""
    if not run.is_dir():
        found = "is a file" if run.exists() else "does not exist"
        raise DataError(f"{run} {found}, expected a run folder", remedy="check the path")
    if not any((run / name).exists() for name in ("run.json", *FOLDERS, "metrics.jsonl")):
        raise DataError(
            f"{run} is not a run folder: none of run.json, {', '.join(FOLDERS)} is in it",
            remedy="name the folder that gptwo reproduce wrote",
        )
    notes: list[str] = []
    state = _run_json(run, notes)
    manifests = {name: found for name in FOLDERS if (found := _manifest_or_none(run, name))}
    checkpoint = _newest_checkpoint(run)
    if checkpoint:
        manifests["checkpoint"] = checkpoint
    parts = {name: _read_part(run, name, read) for name, read in READERS.items()}
    for name, part in parts.items():
        part.notes = [note.replace(f"{run}/", "") for note in part.notes]
        _add_state(part, [state["stages"].get(stage, {}) for stage in STAGES_OF.get(name, (name,))])
    name = str(state.get("name") or run.resolve().name)
    recipe = state["recipe"]
    asked = not recipe or recipe.get("demo") or recipe.get("link_files")
    crawls = bool(asked) or (run / "links").exists()
    return Collected(name, state, parts, manifests, notes, crawls)


def _run_json(run: Path, notes: list[str]) -> dict[str, Any]:
    """run.json as far as it can be read, its "stages" always there."""
    state: Any = {}
    if not (run / "run.json").exists():
        notes.append("There is no run.json: the stages were run one by one, or it is lost.")
    else:
        try:
            state = read_json(run / "run.json")
        except DAMAGE as error:
            notes.append(f"Damaged: {told(error)}".replace(f"{run}/", ""))
    state = state if isinstance(state, dict) else {}
    for name in ("stages", "recipe", "machine"):
        if not isinstance(state.get(name), dict):
            state[name] = {}
    state["stages"] = {k: v for k, v in state["stages"].items() if isinstance(v, dict)}
    return state


def _manifest_or_none(run: Path, name: str) -> Manifest | None:
    try:
        manifest = read_manifest(run / name)
        damage(run / name, manifest, hashes=False)  # fails where its list of files is none
        inputs = {key.removeprefix(f"{run}/"): value for key, value in manifest.inputs.items()}
        return replace(manifest, inputs=inputs)
    except DAMAGE:
        return None  # the part that needs it says why


def _newest_checkpoint(run: Path) -> Manifest | None:
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        if found := _manifest_or_none(run, f"checkpoints/{folder.name}"):
            return found
    return None


def _read_part(run: Path, name: str, read: Callable[[Path, list[str]], Any]) -> Part:
    part = Part(name)
    try:
        part.facts = read(run, part.notes)
    except NotThere:
        part.notes.append("Not there yet: this stage has not run.")
    except DAMAGE as error:
        part.notes.append(f"Damaged: {told(error)}")
    return part


def _add_state(part: Part, entries: list[dict[str, Any]]) -> None:
    """What run.json knows of the stages behind a part."""
    states = [str(entry["state"]) for entry in entries if "state" in entry]
    part.state = next((state for state in states if state != "done"), "done" if states else "")
    seconds = [entry["seconds"] for entry in entries if is_number(entry.get("seconds"))]
    part.seconds = sum(seconds) if seconds else None
    if part.state == "failed":
        part.notes.append("The last attempt at this stage failed; what is shown is what there is.")
    if part.state == "running":
        part.notes.append("This stage was under way or interrupted when the report was written.")


def _finished(run: Path, name: str, notes: list[str], *counts: str) -> Manifest:
    """The manifest of a part's folder, with the named counts in it.

    Files that are gone or of another size become notes.
    """
    if not (run / name).exists():
        raise NotThere
    manifest = read_manifest(run / name)
    for count in counts:
        if count not in manifest.counts:
            raise DataError(f"{run / name} counts no {count!r}", remedy="make the folder again")
    notes += [f"Damaged: {line}" for line in damage(run / name, manifest, hashes=False)[:3]]
    return manifest


def _read_links(run: Path, notes: list[str]) -> dict[str, Any]:
    """Counts, and links that were dropped by reason."""
    counts = _finished(run, "links", notes, "read", "kept", "dropped").counts
    file = run / "links/dropped.parquet"
    found = or_note(notes, lambda: examples([file], ["reason"], ["url", "score"]), {})
    return {"counts": counts, "examples": {reason: rows for (reason,), rows in found.items()}}


def _read_pages(run: Path, notes: list[str]) -> dict[str, Any]:
    """Counts, and links by what became of them."""
    counts = _finished(run, "pages", notes, "links", "outcomes", "bytes").counts
    file = run / "pages/fetched.parquet"
    shown = ["url", "final_url", "status", "detail"]
    found = or_note(notes, lambda: examples([file], ["outcome"], shown), {})
    return {"counts": counts, "examples": {outcome: rows for (outcome,), rows in found.items()}}


def _read_corpus(run: Path, notes: list[str]) -> dict[str, Any]:
    """Counts per stage, and what the datasheet tells of the kept and the dropped documents."""
    manifest = _finished(run, "corpus", notes, "stages", "documents", "characters")
    counts, names = manifest.counts, ("stage", "in", "out", "dropped")
    sheet = or_note(notes, lambda: _datasheet(run / "corpus/datasheet.json"), _NO_DATASHEET)
    counts |= {"stages": [{n: stage[n] for n in names} for stage in counts["stages"]]}
    return {"counts": counts, "overlap": manifest.details.get("overlap", []), **sheet}


_NO_DATASHEET: dict[str, Any] = {
    "sources": [],
    "languages": [],
    "domains": None,
    "examples": {},
    "lengths": np.zeros(1, np.int64),
    "edges": np.ones(2),
}


def _datasheet(path: Path) -> dict[str, Any]:
    """What datasheet.json says, as the page needs it."""
    sheet = read_json(path)
    lengths = np.array(sheet["lengths"]["documents"], np.int64)
    domains = sheet["domains"]
    return {
        "sources": sheet["sources"],
        "languages": sheet["languages"],
        "domains": domains | {name: domains[name][:TOP_DOMAINS] for name in ("top", "webtext")},
        "examples": {
            (stage["stage"], reason): found["examples"]
            for stage in sheet["stages"]
            for reason, found in stage["dropped"].items()
        },
        "lengths": lengths,
        "edges": 10 ** (np.arange(len(lengths) + 1) / sheet["lengths"]["bins_per_decade"]),
    }


def _read_truth(run: Path, notes: list[str]) -> dict[str, Any]:
    """How the pipeline did against the demo web's truth."""
    if not (run / "demoweb").exists():
        raise NotThere
    return judge(run)


def _read_tokens(run: Path, notes: list[str]) -> dict[str, Any]:
    """Vocabulary, tokens and bytes per split, and a stretch of packed text."""
    tokenizer = _finished(run, "tokenizer", notes)
    vocabulary = {"details": tokenizer.details, "counts": tokenizer.counts, "sample": []}
    try:
        packed = _finished(run, "tokens", notes)
    except NotThere:
        notes.append("The corpus is not packed into tokens yet.")
        return vocabulary | {"splits": {}}
    sample = or_note(notes, lambda: packed_sample(run, packed.details), [])
    splits = {
        split: {name: packed.counts[split][name] for name in ("documents", "tokens", "bytes")}
        for split in SPLITS
        if split in packed.counts
    }
    return vocabulary | {"splits": splits, "sample": sample, "dtype": packed.details.get("dtype")}


def read_scores(run: Path, notes: list[str]) -> dict[str, Any]:
    """The results of the tasks: those of the paper first, others by name at the end."""
    if not (run / "scores").is_dir():
        raise NotThere
    results = []
    for path in sorted((run / "scores").glob("*.json")):
        if path.name == "manifest.json":
            continue
        result = or_note(notes, lambda path=path: _result(path), None)
        results += [result] if result else []
    order = list(TASKS)
    results.sort(key=lambda r: order.index(r["task"]) if r["task"] in TASKS else len(order))
    if not results:
        notes.append("No task has been scored yet.")
    return {"results": results}


def _result(path: Path) -> dict[str, Any]:
    """A TaskResult as plain values."""
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(value.get("metrics"), dict):
        raise DataError(f"{path} is not a task's result", remedy="run the evaluation again")
    kept = {"task": str(value.get("task", path.stem)), "n": value.get("n")}
    kept |= {name: dict(value.get(name) or {}) for name in ("protocol", "data", "model")}
    kept["metrics"] = _numbers(value["metrics"])
    kept["intervals"] = {
        name: interval
        for name, interval in (value.get("intervals") or {}).items()
        if is_number(interval["low"]) and is_number(interval["high"])
    }
    for name in ("baselines", "paper"):
        kept[name] = {label: _numbers(row) for label, row in (value.get(name) or {}).items()}
    return kept


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in values.items() if is_number(value)}


def _read_samples(run: Path, notes: list[str]) -> dict[str, Any]:
    """Prompts and continuations by prompt; long ones and runs of empty lines are shortened."""
    if not (run / "samples").exists():
        raise NotThere
    manifest = _finished(run, "samples", notes)
    lines = json_lines(run / "samples/samples.jsonl", notes)
    groups: dict[str, list[dict[str, Any]]] = {}
    for line in lines[:SAMPLES]:
        text = str(line.get("text", ""))
        cut = " …" if len(text) > SAMPLE_CHARACTERS else ""
        shown = re.sub(r"\n{3,}", "\n\n", text[:SAMPLE_CHARACTERS])
        entry = line | {"text": shown + cut}
        groups.setdefault(str(line.get("prompt", "")), []).append(entry)
    return {"groups": groups, "config": manifest.config, "left_out": len(lines[SAMPLES:])}


FOLDERS = ("demoweb", "links", "pages", "corpus", "tokenizer", "tokens", "scores", "samples")
STAGES_OF = {"tokens": ("tokenizer", "tokens"), "truth": ("demoweb",)}
READERS: dict[str, Callable[[Path, list[str]], Any]] = {
    "links": _read_links,
    "pages": _read_pages,
    "corpus": _read_corpus,
    "truth": _read_truth,
    "tokens": _read_tokens,
    "training": read_training,
    "scores": read_scores,
    "samples": _read_samples,
}
