"""How far a number would move on other examples: 95% intervals."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from gptwo.records import Interval

Z = 1.959963984540054  # 97.5% quantile of the normal distribution


def perplexity(nats: float) -> float:
    """exp, but finite for a hopeless model too."""
    return math.exp(min(nats, 700.0))


def bits(nats: float) -> float:
    return nats / math.log(2)


def wilson(successes: int, n: int) -> Interval:
    """Wilson's interval for a share; unlike the normal one it stays within [0, 1]."""
    if n < 1:
        raise ValueError("an interval needs at least one example")
    share, spread = successes / n, Z * Z / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    low = centre - half if successes else 0.0  # exactly, not by rounding
    high = centre + half if successes < n else 1.0
    return Interval(low=low, high=high)


def bootstrap(
    nats: Sequence[float],
    units: Sequence[float],
    finish: Callable[[float], float],
    *,
    resamples: int,
    seed: int,
) -> Interval:
    """Interval of finish(sum(nats) / sum(units)) when examples are drawn anew with replacement."""
    a, b = np.asarray(nats, dtype=np.float64), np.asarray(units, dtype=np.float64)
    generator = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        drawn = generator.integers(len(a), size=len(a))
        ratios.append(a[drawn].sum() / b[drawn].sum())
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(low=finish(float(low)), high=finish(float(high)))
