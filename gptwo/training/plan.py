"""What a run set out to do: training.json, against which every resume is compared."""

import difflib
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gptwo.artifacts import MANIFEST, read_json, read_manifest
from gptwo.config import differences
from gptwo.errors import ModelError, UsageError
from gptwo.model.sizes import GPT2Config
from gptwo.progress import Reporter
from gptwo.tokens.shards import Shards
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.training.checkpoints.checkpoint import SHAPE
from gptwo.training.config import TrainingConfig
from gptwo.world import World

PLAN = "training.json"
BINDING = ("training", "model", "inputs")  # the parts that determine every bit of the result
FIXED = ("inputs.tokenizer", *(f"model.{name}" for name in SHAPE))  # weights fit nothing else


def refuse_foreign(out: Path) -> None:
    """A `UsageError` for a folder of files that no command of ours has made.

    Training may begin beside other stages: it looks for a run, a stage or an earlier training.
    """
    present = sorted(
        path.name
        for path in out.iterdir()
        if not path.name.startswith(".") and ".tmp-" not in path.name
    )
    begun = {PLAN, "run.json", "checkpoints", "budget.json", "tune.json"} & set(present)
    ours = begun or any(out.glob(f"*/{MANIFEST}"))
    if present and not ours:
        raise UsageError(
            f"{out} exists and holds other files ({present[0]})", remedy="choose another --out"
        )


def make_plan(
    config: TrainingConfig, model: GPT2Config, tokens: str, tokenizer: str, world: World
) -> dict[str, Any]:
    """Both configurations, the fingerprints of the inputs, and where the run takes place."""
    return {
        "training": asdict(config),
        "model": asdict(model),
        "inputs": {"tokens": tokens, "tokenizer": tokenizer},
        "parameters": model.parameters(),
        "world": {
            "device": world.device,
            "threads": world.threads,
            "processes": world.size,
            "torch": torch.__version__,
        },
    }


def check_plan(
    plan: dict[str, Any],
    path: Path,
    checkpoint: Path,
    accept_changes: Collection[str],
    reporter: Reporter,
) -> dict[str, Any]:
    """Refuse to go on from `checkpoint` with a plan that is not the one saved at `path`.

    Accepted changes may differ; they are told, and kept in the plan that is returned. A changed
    shape or tokenizer is a `ModelError` and cannot be accepted, any other change is a `UsageError`;
    both list what differs. Another machine is only pointed out.
    """
    saved = read_manifest(checkpoint, error=ModelError)
    made = {**saved.config, "inputs": saved.inputs}
    known = read_json(path, error=ModelError) if path.exists() else made
    changes = _changes(known, plan)
    refused = [name for name in changes if name not in accept_changes or name in FIXED]
    if refused:
        _refuse(path.parent, refused, changes)
    history = known.get("accepted", [])
    explained = {*accept_changes, *(change.split(":")[0] for change in history)}
    foreign = [line for name, line in _changes(made, plan).items() if name not in explained]
    if foreign:
        raise UsageError(
            f"{checkpoint} is of another run than {path} ({'; '.join(foreign)})",
            remedy="choose another --out, or put the checkpoints of this run back",
        )
    for line in changes.values():
        reporter.say(f"train: accepted a change of {line}")
    moved = differences(known["world"], plan["world"]) if "world" in known else []
    if moved:
        reporter.say(
            f"train: going on elsewhere ({'; '.join(moved)}); the batches are the same, the last "
            "bits of the result may differ from those of an uninterrupted run"
        )
    accepted = [*history, *changes.values()]
    return plan | {"accepted": accepted} if accepted else plan


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Name -> "name: old -> new" where two plans differ in what determines the result."""
    before, after = ({part: plan.get(part) for part in BINDING} for plan in (old, new))
    lines = differences(before, after)
    return {line.split(":")[0]: line for line in lines}


def _refuse(folder: Path, refused: list[str], changes: dict[str, str]) -> None:
    shape = [name for name in refused if name.startswith("model.") or name == "inputs.tokenizer"]
    fixed = [name for name in refused if name in FIXED]
    error = ModelError if shape else UsageError
    accept = " ".join(f"--accept-change {name}" for name in refused)
    raise error(
        f"{folder} was begun with other settings ({'; '.join(changes[name] for name in refused)})",
        remedy=f"choose another --out; {', '.join(fixed)} cannot change in a run"
        if fixed
        else f"choose another --out, or go on regardless with {accept}",
    )


def check_names(accept_changes: Collection[str], plan: dict[str, Any]) -> None:
    """A `UsageError` for the name of a change that no setting has."""
    names = [f"{part}.{name}" for part in BINDING for name in plan[part]]
    for name in accept_changes:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
            raise UsageError(
                f"--accept-change {name}: there is no such setting",
                remedy=f"the nearest is {near[0]!r}",
            )


def check_tokenizer(tokens: Shards, tokenizer: Tokenizer) -> None:
    """Refuse tokens that were made with another tokenizer."""
    lines = differences(
        {"fingerprint": tokens.tokenizer_fingerprint, "vocab_size": tokens.vocab_size},
        {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
    )
    if lines:
        raise ModelError(
            f"the tokens were made with another tokenizer ({'; '.join(lines)})",
            remedy="name the tokenizer they were packed with, or pack them again",
        )
