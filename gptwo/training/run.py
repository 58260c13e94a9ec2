"""A model in training, what it reads, and where it writes down how it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwo.model.gpt2 import GPT2
from gptwo.progress import Reporter
from gptwo.tokens.shards import Shards
from gptwo.training.budgets.pace import Pace
from gptwo.training.checkpoints.writer import Writer
from gptwo.training.config import TrainingConfig
from gptwo.training.data.batches import Batches
from gptwo.training.metrics import Lines
from gptwo.training.optimizers.optim import Optimizer
from gptwo.training.trackers import NO_TRACKERS, Trackers
from gptwo.world import World


def nothing(model: GPT2, step: int) -> None:
    """What is done after a held-out loss, unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Sitting:
    """What may be otherwise the next time the same run is continued.

    `accept_changes` names settings that may differ from those the run was begun with, such as
    "training.steps". With `drop_damaged` a damaged last checkpoint is deleted and the one before it
    serves. With `seconds` the steps become as many as fit into that time. `at_validation` is called
    with the model and the step after each held-out loss; `trackers` are told what the metrics are.
    """

    accept_changes: tuple[str, ...] = ()
    drop_damaged: bool = False
    seconds: float = 0.0
    at_validation: Callable[[GPT2, int], None] = nothing
    trackers: Trackers = NO_TRACKERS


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that stays the same from step to step."""

    config: TrainingConfig
    model: GPT2
    optimizer: Optimizer
    batches: Batches
    held_out: Shards
    tokenizer: Path
    plan: dict[str, Any]
    pace: Pace
    checkpoints: Path
    metrics: Lines
    timings: Lines
    writer: Writer
    device: str
    world: World
    reporter: Reporter
    at_validation: Callable[[GPT2, int], None]  # called with the model and the step
