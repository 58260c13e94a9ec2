"""Checkpoints: everything training needs to go on, in a folder that is whole or not there.

A checkpoint is written under a hidden name, hashed on its way to the disk, synced, sealed with a
manifest of the hashes and renamed: whenever the process dies, the newest `step-*` folder is
complete. It is also an HF GPT-2 folder. `writer` does this beside the training.
"""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from gptwo.artifacts import (
    MANIFEST,
    PIECE,
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
from gptwo.config import from_dict
from gptwo.errors import ModelError, ResourceError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.tensor_file import TensorFile, tensor_file
from gptwo.model.weights import CONFIG, WEIGHTS, hf_config, load_model, weights_file
from gptwo.progress import Reporter
from gptwo.training.config import TrainingConfig
from gptwo.training.guards.guard import Guard
from gptwo.training.optimizers.optim import Optimizer, make_optimizer, restore
from gptwo.training.processes.sharding import parts, spread
from gptwo.world import World

KIND = "checkpoint"
OPTIMIZER, STATE = "optimizer.safetensors", "state.json"
SHAPE = ("vocab_size", "n_ctx", "n_layer", "n_head", "n_embd", "activation", "tied_head")
HIDDEN = ".step-"  # being written or being deleted
REPLACED = ".replaced"  # ends the hidden name of a checkpoint that another takes the place of
MAKE_ROOM = "make room and run the same command again; earlier checkpoints are intact"
SPACE_WAITS_SECONDS = (1.0, 4.0)  # a full disk may be someone's temporary file
SMALL_FILES_BYTES = 1_000_000  # config.json, state.json, manifest.json, and what blocks round up
FULL = (errno.ENOSPC, errno.EDQUOT)  # what waiting may cure


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run is: what state.json holds."""

    step: int = 0  # batches seen
    tokens: int = 0  # predicted so far
    valid_loss: float | None = None  # the last one measured
    valid_step: int = -1  # of which weights: a run may be stopped before it has measured these
    best_valid_loss: float | None = None
    best_step: int | None = None  # whose weights had it
    guard: Guard = field(default_factory=Guard)
    finished: bool = False

    @property
    def updates(self) -> int:
        """How often the weights have moved to get where they are."""
        return self.step - self.guard.skipped


def committed(folder: Path) -> list[Path]:
    """The complete checkpoints under `folder`, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{MANIFEST}"))


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps."""
    return next(reversed(committed(folder)), None)


def best(folder: Path) -> Path | None:
    """The checkpoint whose weights had the lowest validation loss, if one is kept.

    None before the first validation, and where the untrained weights have never been beaten.
    """
    last = newest(folder)
    step = read_state(last, hashes=False).best_step if last else None
    return _at(folder, step)


def _at(folder: Path, step: int | None) -> Path | None:
    path = folder / name_of(step or 0)
    return path if (path / MANIFEST).exists() else None


def name_of(step: int) -> str:
    """Of the checkpoint of a step."""
    return f"step-{step:08d}"


def tensor_files(
    weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]
) -> dict[str, TensorFile]:
    """The two large files of a checkpoint: a model's `state_dict` and an optimiser's tensors.

    Whole tensors: where they are spread over processes, gather them first. What is on the disk
    then does not depend on how many processes there were.
    """
    return {WEIGHTS: weights_file(weights), OPTIMIZER: tensor_file(optimizer, None)}


def save(
    folder: Path,
    state: State,
    files: Mapping[str, TensorFile],
    *,
    tokenizer: Path,
    plan: dict[str, Any],
    logs: Collection[Path] = (),
) -> Path:
    """Commit `folder`/step-XXXXXXXX, unless it is there. Raises `ResourceError` on a full disk.

    One of another state, of a run stopped before the held-out loss was measured, is replaced.
    `logs` are on the disk, as far as they were written when this was called, before it counts.
    """
    final = folder / name_of(state.step)
    if (final / MANIFEST).exists() and read_state(final, hashes=False) == state:
        return final
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    needed = sum(file.size for file in files.values()) + SMALL_FILES_BYTES
    needed += sum((tokenizer / name).stat().st_size for name in content_files(tokenizer))
    for wait in (*SPACE_WAITS_SECONDS, None):
        try:
            _check_space(folder, needed)
            return _write(final, state, files, tokenizer, plan, logs)
        except ResourceError as error:
            if wait is None or getattr(error.__cause__, "errno", errno.ENOSPC) not in FULL:
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ResourceError(
            f"a checkpoint takes {needed / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB",
            remedy=MAKE_ROOM,
        )


def _write(
    final: Path,
    state: State,
    files: Mapping[str, TensorFile],
    tokenizer: Path,
    plan: dict[str, Any],
    logs: Collection[Path],
) -> Path:
    """One attempt. Nothing is left of one that fails, but by a kill."""
    draft = final.with_name("." + final.name)
    try:
        with disk_errors(draft):
            draft.mkdir()
            written = {
                name: _write_hashed(draft / name, [memoryview((tokenizer / name).read_bytes())])
                for name in content_files(tokenizer)
            }
            for name, file in files.items():
                written[name] = _write_hashed(draft / name, file.pieces())
            write_json(draft / CONFIG, hf_config(GPT2Config(**plan["model"])))
            write_json(draft / STATE, asdict(state))
            written |= describe_files(draft, [CONFIG, STATE])
            for log in logs:
                _sync(log)
            write_manifest(draft, _manifest(state, written, files[WEIGHTS], plan))
            if final.exists():
                final.rename(final.with_name("." + final.name + REPLACED))
            draft.rename(final)
            sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return final


def _write_hashed(path: Path, pieces: Iterable[memoryview]) -> dict[str, Any]:
    """Write a file and sync it; its entry for the manifest, without reading it again."""
    found, size = hashlib.sha256(), 0
    with path.open("wb", buffering=0) as handle:
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE]  # hashed and written while it is in the cache
                found.update(part)
                size += len(part)
                while part:  # a disk that fills up takes the first half of it
                    part = part[handle.write(part) :]
        os.fsync(handle.fileno())
    return {"bytes": size, "sha256": found.hexdigest()}


def _sync(path: Path) -> None:
    with disk_errors(path), path.open("rb") as handle:
        os.fsync(handle.fileno())


def _manifest(
    state: State, written: Mapping[str, dict], weights: TensorFile, plan: dict[str, Any]
) -> Manifest:
    entries = dict(sorted(written.items()))
    return Manifest(
        kind=KIND,
        config={"training": plan["training"], "model": plan["model"]},
        inputs=plan["inputs"],
        files=entries,
        counts={
            "step": state.step,
            "tokens": state.tokens,
            "parameters": sum(tensor.numel() for tensor in weights.tensors),
        },
        details={"tokenizer_fingerprint": plan["inputs"]["tokenizer"]},
        fingerprint=digest({name: entry["sha256"] for name, entry in entries.items()}),
    )


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
            remedy=f"restore it from a copy, or go on from the one before with --drop-damaged, "
            f"which deletes {checkpoint}",
        )
    try:
        return from_dict(State, read_json(checkpoint / STATE, error=ModelError))
    except UsageError as error:
        raise ModelError(
            f"{checkpoint / STATE}: {error.message}",
            remedy="go on with the version of gptwo that wrote it",
        ) from None


def drop_damaged(folder: Path, reporter: Reporter) -> Path:
    """Delete the checkpoints that are newer than the newest undamaged one, and return that one.

    Where none is undamaged nothing is deleted, and a `ModelError` names the newest one's damage.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(committed(folder)):
        try:
            read_state(path)
        except ModelError as error:
            damaged.append((path, error.message))
            continue
        for doomed, why in damaged:
            reporter.say(f"train: deleting a damaged checkpoint: {why}")
            _delete(doomed)
        return path
    raise ModelError(
        f"{damaged[0][1]}; none of the {len(damaged)} checkpoints is undamaged",
        remedy="restore one from a copy, or choose another --out",
    )


def load(
    checkpoint: Path, shape: GPT2Config, config: TrainingConfig, world: World
) -> tuple[GPT2, Optimizer, State]:
    """Model, optimiser and state as they were saved.

    Damage, or a model that is not of `shape`, is a `ModelError`.
    """
    state = read_state(checkpoint)
    saved = load_model(checkpoint, device=world.device)
    lines = differences(_shape(saved.config), _shape(shape))
    if lines:
        raise ModelError(
            f"{checkpoint} holds a model of another shape ({'; '.join(lines)})",
            remedy="train it with the settings it was begun with, or choose another --out",
        )
    model = GPT2(shape).to(world.device)
    model.load_state_dict(saved.state_dict())
    spread(model, config, world)
    optimizer = make_optimizer(model, config)
    if state.updates:
        restore(model, optimizer, parts(load_file(checkpoint / OPTIMIZER), model), state.updates)
    return model, optimizer, state


def _shape(model: GPT2Config) -> dict[str, Any]:
    return {name: getattr(model, name) for name in SHAPE}


def settle(folder: Path, config: TrainingConfig) -> None:
    """Leave what a run leaves behind that nobody stopped or killed.

    No more checkpoints than are kept: the newest, the last `keep_checkpoints` that were due, and
    the best. One made because the run was stopped goes as soon as there is a newer one.
    """
    remove_unfinished(folder)
    found = committed(folder)
    if not found:
        return
    state = read_state(found[-1], hashes=False)
    chosen = _at(folder, state.best_step)
    due = [
        path
        for path in found
        if is_due(
            int(path.name.removeprefix("step-")),
            config.checkpoint_interval,
            state.step if state.finished else -1,
        )
    ]
    kept = {found[-1], chosen, *due[-config.keep_checkpoints :]}
    for path in found:
        if path not in kept:
            _delete(path)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process was writing or deleting."""
    for path in folder.glob(f"{HIDDEN}*{REPLACED}"):
        whole = path.with_name(path.name.removeprefix(".").removesuffix(REPLACED))
        if not whole.exists():  # killed between the two renames
            path.rename(whole)
    for path in folder.glob(f"{HIDDEN}*"):
        shutil.rmtree(path)


def _delete(path: Path) -> None:
    doomed = path.with_name("." + path.name)
    path.rename(doomed)  # at once: a half-deleted checkpoint must not look like one
    shutil.rmtree(doomed)


def is_due(step: int, interval: int, last_step: int) -> bool:
    """Whether something done every `interval` steps (0: never) and at the end falls on `step`."""
    return step == last_step or (interval > 0 and step % interval == 0)
