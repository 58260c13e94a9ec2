"""What a run set out to do: training.json, against which every resume is compared."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from gptwo.artifacts import MANIFEST, read_json
from gptwo.config import differences
from gptwo.errors import ModelError, UsageError
from gptwo.model.sizes import GPT2Config
from gptwo.progress import Reporter
from gptwo.tokens.shards import Shards
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.training.config import TrainingConfig
from gptwo.world import World

PLAN = "training.json"
BINDING = ("training", "model", "inputs")  # the parts that determine every bit of the result


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
            "torch": torch.__version__,
        },
    }


def check_plan(
    plan: dict[str, Any], path: Path, accept_changes: Collection[str], reporter: Reporter
) -> None:
    """Refuse a plan that differs from the one saved at `path`, but for accepted changes.

    A changed model or tokenizer is a `ModelError`, any other change a `UsageError`; both list what
    differs. Another machine is only pointed out.
    """
    if not path.exists():
        return
    known = read_json(path)
    old, new = ({part: side.get(part) for part in BINDING} for side in (known, plan))
    changes = {line.split(":")[0]: line for line in differences(old, new)}
    refused = [name for name in changes if name not in accept_changes]
    if refused:
        _refuse(path.parent, refused, changes)
    for line in changes.values():
        reporter.say(f"train: accepted a change of {line}")
    moved = differences(known.get("world", {}), plan["world"])
    if moved:
        reporter.say(
            f"train: going on elsewhere ({'; '.join(moved)}); the last bits of the result may "
            "differ from those of an uninterrupted run"
        )


def _refuse(folder: Path, refused: list[str], changes: dict[str, str]) -> None:
    shape = [name for name in refused if name.startswith("model.") or name == "inputs.tokenizer"]
    error = ModelError if shape else UsageError
    raise error(
        f"{folder} was begun with other settings ({'; '.join(changes[name] for name in refused)})",
        remedy="choose another --out, or go on regardless with "
        + " ".join(f"--accept-change {name}" for name in refused),
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
