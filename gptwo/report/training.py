"""A training as its folder tells it: curves, what went wrong, samples, the search for a rate."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import read_json
from gptwo.report.reading import NotThere, columns, is_number, json_lines, or_note

EVENTS = {  # of our lines -> in words; what became of a step
    "spike": "spike, applied",
    "skipped": "not applied",
    "rolled_back_to": "rolled back",
    "diverged": "diverged",
}
EVENTS_SHOWN = 20
SAMPLES_SHOWN = 8
SAMPLE_CHARACTERS = 600


def read_training(run: Path, notes: list[str]) -> dict[str, Any]:
    """The plan, each measure as columns of numbers by step, and what happened on the way."""
    if not (run / "metrics.jsonl").exists():
        raise NotThere
    metrics = json_lines(run / "metrics.jsonl", notes)
    timings = json_lines(run / "timings.jsonl", notes)
    train = columns(metrics, "loss", "lr", "grad_norm")
    if not any("loss" in line for line in metrics):
        notes.append("No step has been logged yet.")
    lost = sum("loss" in line for line in metrics) - len(train["step"])
    if lost:
        notes.append(f"{lost:,} of the steps have a loss that is no finite number; not drawn.")
    return {
        "plan": plan_of(run, notes),
        "train": train,
        "valid": columns(metrics, "valid_loss"),
        "timings": columns(timings, "tokens_per_second", "mfu", "memory_mb", "seconds"),
        "events": events(metrics),
        "watched": watched(run, notes),
        "trials": trials(run, notes),
        "choice": choice(run, notes),
    }


def plan_of(run: Path, notes: list[str]) -> dict[str, Any]:
    """training.json, its parts mappings whatever the file holds."""
    found = or_note(notes, lambda: read_json(run / "training.json"), {})
    found = found if isinstance(found, dict) else {}
    parts = {name: found.get(name) for name in ("training", "model", "inputs", "world")}
    return found | {k: v if isinstance(v, dict) else {} for k, v in parts.items()}


def events(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps that went wrong: {"step", "tokens", "kind", "why"} in their order."""
    found = []
    for line in metrics:
        for name, kind in EVENTS.items():
            if name in line and is_number(line.get("step")):
                told = line[name]
                why = str(told.get("why", "")) if isinstance(told, dict) else ""
                why = f"to the weights of step {told}" if name == "rolled_back_to" else why
                tokens = line["tokens"] if is_number(line.get("tokens")) else 0
                entry = {"step": int(line["step"]), "tokens": tokens, "kind": kind, "why": why}
                found.append(entry)
    return found


def watched(run: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Samples made while it was trained, of its first prompt, at steps spread over the run."""
    lines = [
        {
            "step": int(line["step"]),
            "prompt": str(line.get("prompt", "")),
            "text": str(line.get("text", ""))[:SAMPLE_CHARACTERS],
        }
        for line in json_lines(run / "samples.jsonl", notes)
        if is_number(line.get("step"))
    ]
    lines = [line for line in lines if line["prompt"] == lines[0]["prompt"]]
    if len(lines) <= SAMPLES_SHOWN:
        return lines
    chosen = np.unique(np.linspace(0, len(lines) - 1, SAMPLES_SHOWN).round().astype(int))
    return [lines[i] for i in chosen]


def trials(run: Path, notes: list[str]) -> list[dict[str, Any]]:
    """tune.json: {"lr", "steps", "valid_loss", "round"}; the loss None where a trial diverged."""
    path = run / "tune.json"
    found = or_note(notes, lambda: read_json(path)["trials"], []) if path.exists() else []
    return [
        {
            "lr": float(trial["lr"]),
            "steps": int(trial["steps"]),
            "round": int(trial.get("round") or 1),
            "valid_loss": trial["valid_loss"] if is_number(trial.get("valid_loss")) else None,
        }
        for trial in (found if isinstance(found, list) else [])
        if isinstance(trial, dict)
        and all(is_number(trial.get(name)) for name in ("lr", "steps"))
        and trial["lr"] > 0
    ]


def choice(run: Path, notes: list[str]) -> str:
    """Why size and steps are what they are, where a budget of time chose them."""
    for path in (run / "budget.json", run / "run.json"):
        if path.exists():
            found = or_note(notes, partial(_sentence, path), "")
            if found:
                return found
    return ""


def _sentence(path: Path) -> str:
    return str((read_json(path).get("choice") or {}).get("sentence", ""))
