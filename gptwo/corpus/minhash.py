"""Fingerprints of near-duplicates: word 5-grams, MinHash, bands (Broder 1997; as in FineWeb).

Whole columns of texts go through a C kernel (`native/minhash.c`). What it computes is written here
plainly, over numpy arrays, and serves where the kernel is not built.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

SHINGLE_WORDS = 5
BANDS, ROWS = 14, 8
FUNCTIONS = BANDS * ROWS
VERSION = 2  # of what is hashed and how: keys of two versions have nothing to do with each other

_BLOCK = 1024  # shingles hashed at a time: the (112, 1024) block stays in the processor's cache
_NOT_WORD = re.compile(r"\W+")
_FACTOR, _WORD_FACTOR = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93  # odd: they have inverses mod 2^64
_INVERSE = pow(_FACTOR, -1, 1 << 64)


def normalise(text: str) -> str:
    """Lower-case words with one space between: what two copies of a text still share.

    A letter becomes the same whatever stands around it: a final sigma a sigma, dotted I an i.
    """
    lower = text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
    return _NOT_WORD.sub(" ", lower).strip()


def sketch(texts: pa.Array) -> tuple[Hashes, NDArray[np.bool_]]:
    """(n, 14) band keys of n large strings, and which of them have a word at all (others have 0).

    Texts that share a key of the same band are a candidate pair.
    """
    kernel = _kernel()
    if kernel is None:
        return plain_sketch(texts)
    keys, sizes = kernel.sketch(*_buffers(texts), functions())
    return np.frombuffer(keys, np.uint64).reshape(-1, BANDS), np.frombuffer(sizes, np.int64) > 0


def shingle_sets(texts: pa.Array) -> list[Hashes]:
    """The shingles of each of some large strings, as `shingles` gives them."""
    kernel = _kernel()
    if kernel is None:
        return [shingles(text) for text in texts.to_pylist()]
    hashes, ends = kernel.shingles(*_buffers(texts))
    parts = np.split(np.frombuffer(hashes, np.uint64), np.frombuffer(ends, np.int64))
    return [np.unique(part) for part in parts[:-1]]  # the last is what lies behind the last text


def _kernel() -> Any:
    try:
        from gptwo.native import _minhash  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _minhash


def _buffers(texts: pa.Array) -> tuple[Any, NDArray[np.int64]]:
    """The bytes of large strings, and where each begins and the last ends."""
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets or bytes(8), np.int64)
    return data or b"", edges[texts.offset : texts.offset + len(texts) + 1]


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
    words = _words(normalise(text).encode("utf-8", "replace"))
    size = min(SHINGLE_WORDS, len(words))
    if not size:
        return words
    count = len(words) - size + 1
    spans = np.zeros(count, dtype=np.uint64)
    for place, power in enumerate(_powers(_WORD_FACTOR, size)):
        spans += words[place : place + count] * power
    return np.unique(_mix(spans))


def _words(text: bytes) -> Hashes:
    """The hash of each word: the sum of (byte + 1) * factor^place, modulo 2^64."""
    data = np.frombuffer(text, dtype=np.uint8)
    if not data.size:
        return np.empty(0, dtype=np.uint64)
    spaces = np.flatnonzero(data == ord(" "))
    starts, ends = np.concatenate(([0], spaces + 1)), np.concatenate((spaces, [data.size]))
    # Two look-ups in the sums over the whole text give the sum over any word; factor^-start makes
    # it independent of where the word stands.
    terms = (data + np.uint64(1)) * _powers(_FACTOR, data.size)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms)))
    return (sums[ends] - sums[starts]) * _powers(_INVERSE, data.size)[starts]


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


def functions() -> NDArray[np.uint32]:
    """(2, 112) the hash functions h -> a h + b modulo 2^32: odd factors a, then terms b.

    32 bits, because processors multiply twice as many of them at a time, or have no wider
    multiplication: two unrelated texts of a thousand shingles share a least value once in eight
    million times.
    """
    seeds = np.arange(1, 2 * FUNCTIONS + 1, dtype=np.uint64) * np.uint64(_FACTOR)
    a, b = _mix(seeds).astype(np.uint32).reshape(2, FUNCTIONS)
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
    rows = least.reshape(BANDS, ROWS) * _powers(_FACTOR, ROWS)
    return _mix(rows.sum(axis=1) + np.arange(BANDS, dtype=np.uint64))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|a and b| / |a or b| of two sets given as sorted arrays."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / max(len(a) + len(b) - common, 1)
