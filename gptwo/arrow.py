"""The whole arrow in one run folder, from web to report.

Each stage has a key: the hash of its settings and of everything it reads. A stage whose key and
result are both in place is left alone; one that was interrupted goes on; one whose key changed is
made anew, and what it had made before moves to `previous/`, where the same settings find it again.
"""

import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gptwo import __version__
from gptwo.artifacts import (
    damage,
    digest,
    lock,
    read_json,
    read_manifest,
    write_json,
)
from gptwo.config import to_dict
from gptwo.errors import DataError, GptwoError, Interrupted, UsageError
from gptwo.progress import Reporter, duration
from gptwo.recipes import Budget, Recipe
from gptwo.stages import RUN, STAGES, Run, Stage
from gptwo.world import machine, refuse_several


def reproduce(
    recipe: Recipe, folder: Path, *, budget: Budget | None = None, reporter: Reporter
) -> dict[str, Any]:
    """Bring `folder` to the end of the arrow; returns what was done, stage by stage.

    With a budget, the model and its tokens are chosen for that much training on this machine.
    Errors of single evaluation tasks are raised at the end, after the report is written.
    """
    if not (recipe.demo or recipe.link_files or recipe.sources):
        raise UsageError(
            f"recipe {recipe.name!r} has nothing to read",
            remedy="name texts or pages (gptwo reproduce laptop FILES...) or --links FILES",
        )
    _check_inputs(recipe)
    refuse_several("gptwo reproduce", "train on its tokens with gptwo train")
    _refuse_foreign(folder)
    with lock(folder):
        run = Run(folder, recipe, reporter)
        _describe(run, budget)
        done: dict[str, str] = {}
        late: GptwoError | None = None
        for stage in STAGES:
            if not stage.wanted(recipe):
                continue
            reporter.check()
            try:
                done[stage.name] = _advance(run, stage)
            except DataError as error:
                if stage.name != "scores":
                    raise
                late, done[stage.name] = error, "incomplete"
        if late:
            raise late
    return {"run": str(folder), "stages": done, "report": str(folder / "report.html")}


def _check_inputs(recipe: Recipe) -> None:
    """What will be read must be there before the first stage begins."""
    given = [*recipe.link_files, *recipe.sources, recipe.vocabulary]
    given += [f"{recipe.data}/eval"] if recipe.data else []
    for name in given:
        if name and not Path(name).exists():
            raise DataError(f"{name} does not exist", remedy="check the path")


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder", remedy="choose another --out")
    if folder.exists() and any(folder.iterdir()) and not (folder / RUN).exists():
        raise UsageError(
            f"{folder} exists and is not a run folder (no {RUN})", remedy="choose another --out"
        )


def _describe(run: Run, budget: Budget | None) -> None:
    """Save what is about to be done, before doing it."""
    run.state = {
        "name": run.folder.name,
        "version": __version__,
        "created": run.state.get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "gptwo " + " ".join(sys.argv[1:]),
        "commit": commit(),
        "machine": machine(),
        "budget": to_dict(budget) if budget else None,
        "recipe": to_dict(run.recipe),
        "choice": run.state.get("choice"),
        "stages": run.state["stages"],
    }
    run.save()


def _advance(run: Run, stage: Stage) -> str:
    """Bring one stage up to date: "kept", "restored", "resumed" or "made"."""
    key = _key(run, stage)
    entry = run.state["stages"].get(stage.name, {})
    if entry.get("key") == key and entry.get("state") == "done" and _intact(run, stage):
        return "kept"
    verb = "resumed" if entry.get("key") == key else "made"
    if entry and entry.get("key") != key:
        _set_aside(run, stage, entry)
        if _restore(run, stage, key):
            return "restored"
    started = time.monotonic()
    run.record(stage.name, state="running", key=key)
    try:
        fingerprint = stage.make(run)
    except Interrupted:
        raise
    except GptwoError:
        run.record(stage.name, state="failed")
        raise
    seconds = round(time.monotonic() - started, 1)
    run.record(stage.name, state="done", seconds=seconds, fingerprint=fingerprint)
    run.reporter.say(f"{stage.name}: done in {duration(seconds)}")
    return verb


def _key(run: Run, stage: Stage) -> str:
    inputs = {name: run.fingerprint(name) for name in stage.after}
    return digest({"version": __version__, "settings": stage.settings(run), "inputs": inputs})


def _intact(run: Run, stage: Stage) -> bool:
    """Whether the stage's parts are still there, by presence and size."""
    for part in stage.parts:
        path = run.path(part)
        if not path.exists():
            return False
        if (path / "manifest.json").exists() and damage(path, read_manifest(path), hashes=False):
            return False
    return True


def _set_aside(run: Run, stage: Stage, entry: dict[str, Any]) -> None:
    shelf = run.path(f"previous/{stage.name}-{entry['key'][:12]}")
    present = [part for part in (*stage.parts, *stage.may_have) if run.path(part).exists()]
    if present:
        run.reporter.say(f"{stage.name}: settings or inputs changed, made anew")
        shutil.rmtree(shelf, ignore_errors=True)
        shelf.mkdir(parents=True)
        for part in present:
            run.path(part).rename(shelf / part)
        write_json(shelf / "entry.json", entry)
    del run.state["stages"][stage.name]
    run.save()


def _restore(run: Run, stage: Stage, key: str) -> bool:
    """Take back what the same settings made before."""
    shelf = run.path(f"previous/{stage.name}-{key[:12]}")
    if not (shelf / "entry.json").exists():
        return False
    entry = read_json(shelf / "entry.json")
    for part in (*stage.parts, *stage.may_have):
        if (shelf / part).exists():
            (shelf / part).rename(run.path(part))
    shutil.rmtree(shelf)
    if entry.get("state") != "done" or not _intact(run, stage):
        return False
    run.record(stage.name, **entry)
    run.reporter.say(f"{stage.name}: taken back from previous/")
    return True


def commit() -> str:
    """The git commit of the code, with "+" when files differ from it; empty outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        head = _git(here, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
