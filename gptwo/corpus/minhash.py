"""Fingerprints of near-duplicates: word 5-grams, MinHash, bands (Broder 1997; as in FineWeb).

Everything runs over whole numpy arrays, so a book costs no Python loop over its words.
"""

import re

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SHINGLE_WORDS = 5
BANDS, ROWS = 14, 8
BLOCK = 1024  # shingles hashed at a time: the (112, 1024) block stays in the processor's cache

_NOT_WORD = re.compile(r"\W+")
_FACTOR = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def normalise(text: str) -> str:
    """Lower-case words with one space between: what two copies of a text still share."""
    return _NOT_WORD.sub(" ", text.lower()).strip()


def shingles(text: str) -> Hashes:
    """64-bit hashes of the word 5-grams of a text, each once, sorted; of all of a shorter text."""
    data = np.frombuffer(normalise(text).encode("utf-8", "replace"), dtype=np.uint8)
    if not data.size:
        return np.empty(0, dtype=np.uint64)
    spaces = np.flatnonzero(data == ord(" "))
    starts = np.concatenate(([0], spaces + 1))
    ends = np.concatenate((spaces, [data.size]))
    words = min(SHINGLE_WORDS, len(starts))
    starts, ends = starts[: len(starts) - words + 1], ends[words - 1 :]
    # Sums of byte * factor^position give the polynomial hash of every span from two look-ups;
    # factor^-start makes it independent of where the span stands.
    powers = _powers(_FACTOR, data.size)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum((data + np.uint64(1)) * powers)))
    spans = (sums[ends] - sums[starts]) * _powers(_INVERSE, data.size)[starts]
    return np.unique(_mix(spans))


def _powers(factor: int, n: int) -> Hashes:
    """1, f, f^2, ... modulo 2^64."""
    powers = np.full(n, factor, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


def _mix(x: Hashes) -> Hashes:
    """Spread every input bit over all output bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _multipliers() -> tuple[Hashes, Hashes]:
    """The 112 hash functions h -> a h + b: fixed odd a, fixed b, as columns."""
    numbers = _mix(np.arange(1, 2 * BANDS * ROWS + 1, dtype=np.uint64) * np.uint64(_FACTOR))
    a, b = np.split(numbers, 2)
    return (a | np.uint64(1))[:, None], b[:, None]


def signature(hashes: Hashes) -> Hashes:
    """(112,) the least value of each hash function over the shingles; needs at least one."""
    a, b = _multipliers()
    least = np.full(BANDS * ROWS, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, len(hashes), BLOCK):
        block = hashes[None, start : start + BLOCK] * a + b
        np.minimum(least, block.min(axis=1), out=least)
    return least


def band_keys(least: Hashes) -> Hashes:
    """(14,) one key per band of 8 rows: equal keys make a candidate pair."""
    rows = least.reshape(BANDS, ROWS) * _powers(_FACTOR, ROWS)
    return _mix(rows.sum(axis=1) + np.arange(BANDS, dtype=np.uint64))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|a and b| / |a or b| of two sets given as sorted arrays."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)
