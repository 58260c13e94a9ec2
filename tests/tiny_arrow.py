"""The arrow small enough for a test: a demo web of 100 articles, a model of 0.15M parameters."""

import json
import shutil
from pathlib import Path
from typing import Any

from gptwo.artifacts import read_json, read_manifest
from gptwo.cli import main

SIZE = "femto"
SETTINGS = {
    "demo.pages": 100,
    "crawl.page_seconds": 3,  # its slow pages take half of one, its silent pages all of them
    "crawl.retries": 0,
    "corpus.valid_share": 0.1,
    "corpus.test_share": 0.2,
    "tokenizer.vocab_size": 600,
    "training.steps": 6,
    "training.batch_tokens": 512,
    "training.micro_batch": 8,  # as `gptwo train` has it
    "training.lr": 4e-3,  # likewise
    "training.warmup_steps": 2,
    "training.validation_interval": 3,
    "training.validation_tokens": 1024,
    "training.checkpoint_interval": 2,
    "evaluation.questions": 12,
    "evaluation.documents": 3,
    "evaluation.resamples": 20,
    "sampling.max_tokens": 8,
}


def arguments(out: Path, *more: str, **changes: Any) -> list[str]:
    """The command line; `changes` are settings with "__" for the dot."""
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    words = ["reproduce", "demo", "--out", str(out), "--size", SIZE, "--quiet", "--json"]
    for name, value in settings.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return [*words, *more]


def reproduce(out: Path, *more: str, **changes: Any) -> int:
    return main(arguments(out, *more, **changes))


def copy_run(run: Path, out: Path) -> Path:
    return Path(shutil.copytree(run, out))


def content(run: Path) -> dict[str, Any]:
    """Everything a run made, as values that must not depend on how often it was disturbed.

    Left out is what tells the time: timings.jsonl, run.json, the report, seconds of a result. Pages
    lie in their WARC files in the order of arrival, so they count through their fingerprint.
    """
    found: dict[str, Any] = {"pages": read_manifest(run / "pages").fingerprint}
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.is_dir() or path.name in ("timings.jsonl", "run.json", "report.html"):
            continue
        if name.split("/")[0] == "pages":
            continue
        if name.startswith("scores/") and path.suffix == ".json":
            value = read_json(path)
            found[name] = {key: value[key] for key in value if key != "seconds"}
            found[name]["model"].pop("name")
        elif path.name == "manifest.json":
            value = read_json(path)
            found[name] = {key: value[key] for key in ("kind", "config", "files", "counts")}
        else:
            found[name] = path.read_bytes()
    return found
