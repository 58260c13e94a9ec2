"""Words as two copies of a text share them, and their hashes.

What stands here plainly, over numpy arrays, is in C in `native/words.h`, for the kernels of
near-duplicates (`minhash`) and of overlap (`ngrams`).
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

FACTOR, WORD_FACTOR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd: they have inverses mod 2^64
INVERSE = pow(FACTOR, -1, 1 << 64)
_NOT_WORD = re.compile(r"\W+")


def normalise(text: str) -> str:
    """Lower-case words with one space between: what two copies of a text still share.

    A letter becomes the same whatever stands around it: a final sigma a sigma, dotted I an i.
    """
    lower = text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
    return _NOT_WORD.sub(" ", lower).strip()


def word_hashes(text: bytes) -> Hashes:
    """The hash of each word: the sum of (byte + 1) * factor^place, modulo 2^64."""
    data = np.frombuffer(text, dtype=np.uint8)
    if not data.size:
        return np.empty(0, dtype=np.uint64)
    spaces = np.flatnonzero(data == ord(" "))
    starts, ends = np.concatenate(([0], spaces + 1)), np.concatenate((spaces, [data.size]))
    # Two look-ups in the sums over the whole text give the sum over any word; factor^-start makes
    # it independent of where the word stands.
    terms = (data + np.uint64(1)) * powers(FACTOR, data.size)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms)))
    return (sums[ends] - sums[starts]) * powers(INVERSE, data.size)[starts]


def powers(factor: int, n: int) -> Hashes:
    """1, f, f^2, ... modulo 2^64."""
    factors = np.full(n, factor, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def mix(x: Hashes) -> Hashes:
    """Spread every input bit over all output bits (the finaliser of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def buffers(texts: pa.Array) -> tuple[Any, NDArray[np.int64]]:
    """The bytes of large strings, and where each begins and the last ends."""
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets or bytes(8), np.int64)
    return data or b"", edges[texts.offset : texts.offset + len(texts) + 1]
