"""The learning rate of each step: a warm-up in a line, then a decay."""

import math

from gptwo.training.config import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """The rate of update number `step`, counted from 0.

    "cosine" falls along half a wave from the end of the warm-up. "wsd" (warm-up, stable, decay)
    stays at the peak and falls in a line over the last `decay_ratio` of the steps. Neither takes a
    step at rate 0: a line to 0 reaches it one step after the last.

    >>> learning_rate(0, TrainingConfig(lr=1.0, warmup_steps=4))
    0.25
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    after = config.steps - config.warmup_steps
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(after - 1, 1)
        height = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    else:
        height = min((config.steps - step) / max(config.decay_ratio * after, 1), 1.0)
    low = config.lr_final_ratio
    return config.lr * (low + (1 - low) * height)
