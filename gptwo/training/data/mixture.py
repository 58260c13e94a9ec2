"""How often each corpus of a mix has its turn."""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

LONGEST_CYCLE = 10_000  # rows


def shares(mix: str) -> tuple[int, ...]:
    """The weights of a mix as whole numbers without a common factor.

    >>> shares("0.7, 0.3")
    (7, 3)

    Raises ValueError for what is no list of positive numbers of up to four decimal places.
    """
    words = [word.strip() for word in mix.split(",")]
    if not all(re.fullmatch(r"\d{0,9}\.?\d{1,9}", word) and Fraction(word) for word in words):
        raise ValueError(f"mix must be positive numbers such as 0.7,0.3, found {mix!r}")
    weights = [Fraction(word) for word in words]
    scale = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * scale) for weight in weights]
    found = tuple(weight // math.gcd(*whole) for weight in whole)
    if sum(found) > LONGEST_CYCLE:
        raise ValueError(
            f"mix must be weights in a ratio of whole numbers of sum {LONGEST_CYCLE:,} or less, "
            f"such as 0.7,0.3, found {mix!r}, which is {':'.join(map(str, found))}"
        )
    return found


def cycle_of(shares: Sequence[int]) -> list[int]:
    """Which corpus each row of a cycle is of: corpus c has `shares[c]` of its sum(shares) rows.

    Any number of rows from the start on holds the share of each corpus to within one row. A row of
    a corpus may come as soon as part of it is due, must come when the whole of it is due, and of
    those that may come the one that must come first is taken: earliest deadline first, which keeps
    every deadline (Baruah et al. 1996, "Proportionate progress").

    >>> cycle_of((3, 1))
    [0, 0, 1, 0]
    """
    length, given = sum(shares), [0] * len(shares)
    cycle = []
    for row in range(length):
        _, corpus = min(
            (-(-(given[c] + 1) * length // share), c)
            for c, share in enumerate(shares)
            if given[c] * length < (row + 1) * share
        )
        given[corpus] += 1
        cycle.append(corpus)
    return cycle
