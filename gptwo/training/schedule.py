"""The learning rate of each step: linear warm-up, cosine decay."""

import math

from gptwo.training.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of update number `step`, counted from 0.

    >>> learning_rate(0, TrainingConfig(lr=1.0, warmup_steps=4))
    0.25
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - 1 - config.warmup_steps, 1)
    low = config.lr_final_ratio
    return config.lr * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)
