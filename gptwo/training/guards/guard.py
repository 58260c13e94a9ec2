"""What is done about a step that goes wrong: it is seen, named, and at need not applied.

A loss or a gradient that is not finite is never applied. A loss or a gradient norm far above where
it has lately been is always told, and not applied if the settings say so. A step that is not
applied is skipped: the weights stay, and the next step reads the next batch. When more than
`skip_limit` in a row are bad, the batches are not to blame but the weights: they go back to the
last checkpoint that was good, and training goes on behind the bad batches (Chowdhery et al. 2022,
section 5.1, did so by hand). A run that comes back to the same checkpoint a second time has
diverged.

All that is remembered from step to step is `Guard`, a part of every checkpoint: a run that was
stopped skips what one that was left alone would have skipped.
"""

import math
from dataclasses import dataclass, field, replace

from gptwo.training.config import TrainingConfig

WINDOW = 128  # steps over which "lately" reaches back; nothing is a spike before there are as many
LEAST_DEVIATION = 0.01  # of the mean: a loss learned by heart hardly varies at all


@dataclass(frozen=True, kw_only=True)
class Level:
    """Where a number has lately been: its mean and variance, older values fading out."""

    mean: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What is remembered of the steps so far."""

    watched: int = 0  # finite steps behind the levels, WINDOW at most
    loss: Level = field(default_factory=Level)
    grad_norm: Level = field(default_factory=Level)
    bad_in_a_row: int = 0  # steps just now that were not applied
    skipped: int = 0  # steps of the whole run that are not in the weights
    rolled_back_to: int = -1  # the checkpoint the run last went back to


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do with a step, and why."""

    apply: bool
    why: str  # "" for a step like any other
    guard: Guard


def judge(loss: float, grad_norm: float, guard: Guard, config: TrainingConfig) -> Verdict:
    """Look at the loss and the gradient norm (before clipping) of a step that is not yet applied.

    >>> judge(float("nan"), 1.0, Guard(), TrainingConfig()).why
    'loss nan, gradient norm 1'
    """
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        why = f"loss {loss:.6g}, gradient norm {grad_norm:.6g}"
        return Verdict(apply=False, why=why, guard=_skip(guard))
    jumps = []
    for name, value, level in (
        ("loss", loss, guard.loss),
        ("gradient norm", grad_norm, guard.grad_norm),
    ):
        z = (value - level.mean) / _deviation(level)
        if guard.watched >= WINDOW and z > config.spike_zscore:
            jumps.append(f"{name} {value:.6g} is {z:.1f} deviations above {level.mean:.6g}")
    seen = replace(
        guard,
        watched=min(guard.watched + 1, WINDOW),
        loss=_moved(guard.loss, loss, guard.watched, config),
        grad_norm=_moved(guard.grad_norm, grad_norm, guard.watched, config),
    )
    if jumps and config.skip_spikes:
        return Verdict(apply=False, why=", ".join(jumps), guard=_skip(seen))
    return Verdict(apply=True, why=", ".join(jumps), guard=replace(seen, bad_in_a_row=0))


def _skip(guard: Guard) -> Guard:
    return replace(guard, bad_in_a_row=guard.bad_in_a_row + 1, skipped=guard.skipped + 1)


def _deviation(level: Level) -> float:
    return max(math.sqrt(level.variance), LEAST_DEVIATION * abs(level.mean), 1e-12)


def _moved(level: Level, value: float, watched: int, config: TrainingConfig) -> Level:
    """The level with one more value. A spike moves it no further than the largest non-spike."""
    if not watched:
        return Level(mean=value)
    if watched >= WINDOW:
        value = min(value, level.mean + config.spike_zscore * _deviation(level))
    share = 1 / min(watched + 1, WINDOW)
    step = value - level.mean
    return Level(
        mean=level.mean + share * step,
        variance=(1 - share) * (level.variance + share * step * step),
    )
