"""Checkpoints: everything training needs to go on, in a folder that is whole or not there.

A checkpoint is written under a hidden name, synced, sealed with a manifest of hashes and renamed:
whenever the process dies, the newest `step-*` folder is complete. It is also an HF GPT-2 folder.
"""

import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gptwo.artifacts import (
    MANIFEST,
    Manifest,
    content_files,
    damage,
    describe_files,
    differences,
    digest,
    disk_errors,
    read_json,
    read_manifest,
    sync_folder,
    write_json,
    write_manifest,
)
from gptwo.errors import ModelError, ResourceError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import load_model, save_checkpoint_model
from gptwo.training.config import TrainingConfig
from gptwo.training.optim import Optimizer, make_optimizer, restore, state_tensors

KIND = "checkpoint"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
SHAPE = ("vocab_size", "n_ctx", "n_layer", "n_head", "n_embd", "activation", "tied_head")
HIDDEN = ".step-"  # being written or being deleted
MAKE_ROOM = "make room and run the same command again; earlier checkpoints are intact"
SPACE_WAITS_SECONDS = (1.0, 4.0)  # a full disk may be someone's temporary file


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run is: what state.json holds."""

    step: int = 0  # updates made
    tokens: int = 0  # predicted so far
    valid_loss: float | None = None  # the last one measured
    best_valid_loss: float | None = None
    finished: bool = False


def committed(folder: Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{MANIFEST}"))


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps."""
    return next(reversed(committed(folder)), None)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process was writing or deleting."""
    for path in folder.glob(f"{HIDDEN}*"):
        shutil.rmtree(path)


def save(
    folder: Path,
    state: State,
    model: GPT2,
    optimizer: Optimizer,
    *,
    tokenizer: Path,
    plan: dict[str, Any],
) -> Path:
    """Commit `folder`/step-XXXXXXXX, unless it is there. Raises `ResourceError` on a full disk."""
    final = folder / f"step-{state.step:08d}"
    if (final / MANIFEST).exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    _await_space(folder, 3 * sum(p.numel() * p.element_size() for p in model.parameters()))
    draft = folder / f"{HIDDEN}{state.step:08d}"
    try:
        with disk_errors(draft):
            draft.mkdir()
            _write_files(draft, state, model, optimizer, tokenizer)
            _seal(draft, state, model, plan)
            draft.rename(final)
            sync_folder(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return final


def _await_space(folder: Path, needed: int) -> None:
    """Wait a little for `needed` bytes and a margin to be free."""
    needed += needed // 20 + 8_000_000  # tokenizer files, headers, blocks
    for wait in (*SPACE_WAITS_SECONDS, None):
        free = shutil.disk_usage(folder).free
        if free >= needed:
            return
        if wait is None:
            raise ResourceError(
                f"a checkpoint takes {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB",
                remedy=MAKE_ROOM,
            )
        time.sleep(wait)


def _write_files(
    draft: Path, state: State, model: GPT2, optimizer: Optimizer, tokenizer: Path
) -> None:
    for name in content_files(tokenizer):
        shutil.copyfile(tokenizer / name, draft / name)
    try:
        save_checkpoint_model(model, draft)
        save_file(state_tensors(model, optimizer), draft / OPTIMIZER)
    except SafetensorError as error:  # it keeps the system's words, not its error number
        raise ResourceError(
            f"cannot write {draft}: {error}",
            remedy=MAKE_ROOM,
        ) from error
    write_json(draft / STATE, asdict(state))


def _seal(draft: Path, state: State, model: GPT2, plan: dict[str, Any]) -> None:
    """Sync every file, then write the manifest that makes the folder count."""
    files = describe_files(draft, content_files(draft))
    for name in files:
        with (draft / name).open("rb") as handle:
            os.fsync(handle.fileno())
    manifest = Manifest(
        kind=KIND,
        config={"training": plan["training"], "model": plan["model"]},
        inputs=plan["inputs"],
        files=files,
        counts={
            "step": state.step,
            "tokens": state.tokens,
            "parameters": sum(weight.numel() for weight in model.parameters()),
        },
        details={"tokenizer_fingerprint": plan["inputs"]["tokenizer"]},
        fingerprint=digest({name: entry["sha256"] for name, entry in files.items()}),
    )
    write_manifest(draft, manifest)


def read_state(checkpoint: Path, *, hashes: bool = True) -> State:
    """The state of a committed checkpoint whose files are as they were written."""
    manifest = read_manifest(checkpoint, error=ModelError)
    problems = damage(checkpoint, manifest, hashes=hashes)
    if not hashes:  # this one is read now, and small
        problems = problems or damage(checkpoint, manifest, names=[STATE])
    if manifest.kind != KIND:
        problems.insert(0, f"{checkpoint} holds {manifest.kind}, expected {KIND}")
    if problems:
        raise ModelError(
            problems[0],
            remedy=f"restore it from a copy, or delete {checkpoint} to go on from the one before",
        )
    return State(**read_json(checkpoint / STATE, error=ModelError))


def load(
    checkpoint: Path, shape: GPT2Config, config: TrainingConfig, device: str
) -> tuple[GPT2, Optimizer, State]:
    """Model, optimiser and state as they were saved.

    Damage, or a model that is not of `shape`, is a `ModelError`.
    """
    state = read_state(checkpoint)
    saved = load_model(checkpoint, device=device)
    lines = differences(_shape(saved.config), _shape(shape))
    if lines:
        raise ModelError(
            f"{checkpoint} holds a model of another shape ({'; '.join(lines)})",
            remedy="train it with the settings it was begun with, or choose another --out",
        )
    model = GPT2(shape).to(device)
    model.load_state_dict(saved.state_dict())
    optimizer = make_optimizer(model, config)
    if state.step:
        restore(model, optimizer, load_file(checkpoint / OPTIMIZER), state.step)
    return model, optimizer, state


def _shape(model: GPT2Config) -> dict[str, Any]:
    return {name: getattr(model, name) for name in SHAPE}


def prune(folder: Path, config: TrainingConfig) -> None:
    """Delete all checkpoints but the newest and the last `keep_checkpoints` that were due.

    One made because the run was stopped goes as soon as there is a newer one, so that a run leaves
    the same folders behind whether it was stopped or not.
    """
    found = committed(folder)
    due = [
        path
        for path in found
        if is_due(int(path.name.removeprefix("step-")), config.checkpoint_interval, config.steps)
    ]
    for path in found[:-1]:
        if path not in due[-config.keep_checkpoints :]:
            doomed = path.with_name("." + path.name)
            path.rename(doomed)  # at once: a half-deleted checkpoint must not look like one
            shutil.rmtree(doomed)


def is_due(step: int, interval: int, last_step: int) -> bool:
    """Whether something done every `interval` steps (0: never) and at the end falls on `step`."""
    return step == last_step or (interval > 0 and step % interval == 0)
