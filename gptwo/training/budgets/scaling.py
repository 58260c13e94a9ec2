"""How low the loss will be after so many tokens with so many parameters: a fitted law.

L(N, D) = E + A / N^a + B / D^b (Hoffmann et al. 2022, approach 3), with N all parameters and D the
tokens read. Text that is read again counts less each time (Muennighoff et al. 2023, section 3.1).
The law serves to choose between sizes of one ladder; its absolute losses are those of the corpus
and the vocabulary it was fitted on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from operator import itemgetter
from typing import NamedTuple

import numpy as np

REPEATS_THAT_COUNT = (
    15.4  # R*_D of Muennighoff et al. 2023: repeats add what so many new ones would
)
LEAST_POINTS = 6  # one more than the law has constants


class Point(NamedTuple):
    """What a run of the sweep ended with."""

    parameters: float
    tokens: float
    loss: float  # held-out, nats per token


@dataclass(frozen=True, kw_only=True)
class Law:
    """E + A / N^a + B / D^b, in nats per token."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def loss(self, parameters: float, tokens: float, unique_tokens: float = np.inf) -> float:
        """The loss after reading `tokens` tokens of a corpus that has `unique_tokens`.

        >>> round(Law(E=2.0, A=30.0, a=0.5, B=10.0, b=0.25).loss(1e4, 1e4), 3)
        3.3
        """
        seen = worth(tokens, unique_tokens)
        return float(self.E + self.A / parameters**self.a + self.B / seen**self.b)


def worth(tokens: float, unique_tokens: float) -> float:
    """How many new tokens `tokens` tokens of a corpus of `unique_tokens` are worth.

    The first reading counts in full, four readings almost so, and no number of them more than
    1 + 15.4 readings' worth.

    >>> round(worth(4e6, 1e6))
    3725878
    """
    if tokens <= unique_tokens:
        return tokens
    repeats = tokens / unique_tokens - 1
    fading = REPEATS_THAT_COUNT * -np.expm1(-repeats / REPEATS_THAT_COUNT)
    return float(unique_tokens * (1 + fading))


def fit(points: Sequence[Point], exponents: tuple[float, float] | None = None) -> Law:
    """The law with the least squared relative error on `points`; constants are never negative.

    For given exponents (a, b) the law is linear in E, A and B. Without any, a and b are searched
    on a grid that is narrowed around its best four times.
    """
    if len(points) < LEAST_POINTS:
        raise ValueError(f"a law takes {LEAST_POINTS} points, found {len(points)}")
    if exponents:
        return _linear(points, *exponents)[1]
    low, high = np.array([0.02, 0.02]), np.array([1.5, 1.5])
    best: tuple[float, Law] = (np.inf, Law(E=0, A=0, a=0, B=0, b=0))
    for _ in range(5):
        for a in np.linspace(low[0], high[0], 21):
            for b in np.linspace(low[1], high[1], 21):
                best = min(best, _linear(points, float(a), float(b)), key=itemgetter(0))
        width = (high - low) / 10
        centre = np.array([best[1].a, best[1].b])
        low, high = np.maximum(centre - width, 0.02), centre + width
    return best[1]


def _linear(points: Sequence[Point], a: float, b: float) -> tuple[float, Law]:
    """The squared relative error of the best law with these exponents, and that law."""
    N, D, L = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    basis = np.stack([np.ones_like(L), N**-a, D**-b], axis=1) / L[:, None]
    constants, error = _nonnegative(basis)
    E, A, B = (float(value) for value in constants)
    return error, Law(E=E, A=A, a=a, B=B, b=b)


def _nonnegative(basis: np.ndarray) -> tuple[np.ndarray, float]:
    """Constants >= 0 whose mix of the columns is nearest to 1 everywhere, and the squared error."""
    best: tuple[np.ndarray, float] = (np.zeros(3), np.inf)
    for size in (3, 2, 1):
        for columns in combinations(range(3), size):
            part = basis[:, columns]
            solution = np.linalg.lstsq(part, np.ones(len(basis)), rcond=None)[0]
            error = float(np.square(part @ solution - 1).sum())
            if (solution >= 0).all() and error < best[1]:
                constants = np.zeros(3)
                constants[list(columns)] = solution
                best = constants, error
        if best[1] < np.inf:  # a smaller mix is no nearer
            break
    return best


def left_out_errors(
    points: Sequence[Point], exponents: tuple[float, float] | None = None
) -> list[float]:
    """For each point the relative error of a law fitted on all the others."""
    errors = []
    for i, point in enumerate(points):
        law = fit([*points[:i], *points[i + 1 :]], exponents)
        errors.append(law.loss(point.parameters, point.tokens) / point.loss - 1)
    return errors


# Exponents of Hoffmann et al.'s sweep as Besiroglu et al. 2024 fitted it again: small models tell
# nothing about large ones. E, A and B fit our own runs of 1.6e5 to 5.9e6 parameters on 2.5e5 to 3e6
# tokens, see experiments/LOG.md; where the loss falls below E only differences between sizes hold.
PUBLISHED = (0.3478, 0.3658)
LAW = Law(E=3.956, A=31.59, a=PUBLISHED[0], B=118.2, b=PUBLISHED[1])
