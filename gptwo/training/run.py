"""A model in training, what it reads, and where it writes down how it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwo.model.gpt2 import GPT2
from gptwo.progress import Reporter
from gptwo.tokens.shards import Shards
from gptwo.training.batches import Batches
from gptwo.training.config import TrainingConfig
from gptwo.training.metrics import Lines
from gptwo.training.optim import Optimizer
from gptwo.training.pace import Pace
from gptwo.training.writer import Writer
from gptwo.world import World


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
