"""Fingerprints of near-duplicates: word 5-grams, MinHash, bands (Broder 1997; as in FineWeb).

Whole columns of texts go through a C kernel (`native/minhash.c`). What it computes is written here
plainly, over numpy arrays, and serves where the kernel is not built.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwo.corpus.words import (
    FACTOR,
    WORD_FACTOR,
    Hashes,
    buffers,
    mix,
    normalise,
    powers,
    word_hashes,
)

SHINGLE_WORDS = 5
BANDS, ROWS = 14, 8
FUNCTIONS = BANDS * ROWS
VERSION = 2  # of what is hashed and how: keys of two versions have nothing to do with each other

_BLOCK = 1024  # shingles hashed at a time: the (112, 1024) block stays in the processor's cache


def sketch(texts: pa.Array) -> tuple[Hashes, NDArray[np.bool_]]:
    """(n, 14) band keys of n large strings, and which of them have a word at all (others have 0).

    Texts that share a key of the same band are a candidate pair.
    """
    kernel = _kernel()
    if kernel is None:
        return plain_sketch(texts)
    keys, sizes = kernel.sketch(*buffers(texts), functions())
    return np.frombuffer(keys, np.uint64).reshape(-1, BANDS), np.frombuffer(sizes, np.int64) > 0


def shingle_sets(texts: pa.Array) -> list[Hashes]:
    """The shingles of each of some large strings, as `shingles` gives them."""
    kernel = _kernel()
    if kernel is None:
        return [shingles(text) for text in texts.to_pylist()]
    hashes, ends = kernel.shingles(*buffers(texts))
    parts = np.split(np.frombuffer(hashes, np.uint64), np.frombuffer(ends, np.int64))
    return [np.unique(part) for part in parts[:-1]]  # the last is what lies behind the last text


def _kernel() -> Any:
    try:
        from gptwo.native import _minhash  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _minhash


def plain_sketch(texts: pa.Array) -> tuple[Hashes, NDArray[np.bool_]]:
    """The twin of `sketch` without a kernel."""
    sets = [shingles(text) for text in texts.to_pylist()]
    keys = np.zeros((len(sets), BANDS), np.uint64)
    for row, hashes in zip(keys, sets, strict=True):
        if hashes.size:
            row[:] = band_keys(signature(hashes))
    return keys, np.array([hashes.size > 0 for hashes in sets], np.bool_)


def shingles(text: str) -> Hashes:
    """64-bit hashes of the word 5-grams of a text, each once, sorted; of all of a shorter text."""
    words = word_hashes(normalise(text).encode("utf-8", "replace"))
    size = min(SHINGLE_WORDS, len(words))
    if not size:
        return words
    count = len(words) - size + 1
    spans = np.zeros(count, dtype=np.uint64)
    for place, power in enumerate(powers(WORD_FACTOR, size)):
        spans += words[place : place + count] * power
    return np.unique(mix(spans))


def functions() -> NDArray[np.uint32]:
    """(2, 112) the hash functions h -> a h + b modulo 2^32: odd factors a, then terms b.

    32 bits, because processors multiply twice as many of them at a time, or have no wider
    multiplication: two unrelated texts of a thousand shingles share a least value once in eight
    million times.
    """
    seeds = np.arange(1, 2 * FUNCTIONS + 1, dtype=np.uint64) * np.uint64(FACTOR)
    a, b = mix(seeds).astype(np.uint32).reshape(2, FUNCTIONS)
    return np.stack([a | np.uint32(1), b])


def signature(hashes: Hashes) -> NDArray[np.uint32]:
    """(112,) the least value of each hash function over the shingles; needs at least one."""
    a, b = functions()[:, :, None]
    least = np.full(FUNCTIONS, np.iinfo(np.uint32).max, dtype=np.uint32)
    low = hashes.astype(np.uint32)
    for start in range(0, len(low), _BLOCK):
        block = low[None, start : start + _BLOCK] * a + b
        np.minimum(least, block.min(axis=1), out=least)
    return least


def band_keys(least: NDArray[np.uint32]) -> Hashes:
    """(14,) one key per band of 8 rows."""
    rows = least.reshape(BANDS, ROWS) * powers(FACTOR, ROWS)
    return mix(rows.sum(axis=1) + np.arange(BANDS, dtype=np.uint64))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|a and b| / |a or b| of two sets given as sorted arrays."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)
