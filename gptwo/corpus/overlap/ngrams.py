"""Word n-grams of texts, and which of them a set holds: what finds overlap with other texts.

Words are those of near-dedup (`words.normalise`), and so are their hashes. Whole columns of texts
go through a C kernel (`native/ngrams.c`); what it computes is written here plainly, over numpy
arrays, and serves where the kernel is not built.

A set is a Bloom filter in blocks of one cache line (Putze and others 2007): the upper half of a
hash says which block, six times nine bits of its mixture say which bits of the 512. At 12 bits a
member about one hash in 200 that is no member passes; where it must be exact, the texts decide.
With more `lines` a member has six bits in each of so many blocks, that a chain of mixtures names:
four, at 42 bits a member, let one in 2.7 * 10^8 pass. One block alone would need 64 bits for that,
because the blocks' loads differ by chance.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwo.corpus.words import WORD_FACTOR, Hashes, buffers, mix, powers, word_hashes

GRAM = np.dtype(
    [("hash", "u8"), ("text", "i8"), ("word", "i8"), ("begin", "i8"), ("end", "i8")]
)  # of one column of texts; begin and end count bytes from the beginning of the text
FILTER_BITS = 12  # a member
VERSION = 1  # of what is hashed and how

PROBES = 6  # bits of a member in each of its lines
_SEED, _LINE_SEED = np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB)
_BLOCKS_AT_ONCE = 1 << 20
_NO_FILTER = np.empty((0, 8), np.uint64)
_WORD = re.compile(r"\w+")


def _kernel() -> Any:
    try:
        from gptwo.native import _ngrams  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _ngrams


def find(
    texts: pa.Array, words: int, members: Hashes = _NO_FILTER, every: int = 1, lines: int = 1
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The n-grams of n large strings that a filter may hold, in order; how many each text has.

    Returns an array of `GRAM` and (n,) counts. `words`: of an n-gram, 1 to 64; of `every` hashes
    only one is looked at and counted. Without `members` every n-gram is found; `lines` as they were
    filled.
    """
    kernel = _kernel()
    if kernel is None:
        return plain_find(texts, words, members, every, lines)
    found, counts = kernel.find(*buffers(texts), words, np.ascontiguousarray(members), every, lines)
    return np.frombuffer(found, GRAM), np.frombuffer(counts, np.int64)


def phrases(texts: pa.Array) -> tuple[Hashes, NDArray[np.int64]]:
    """Of n large strings (n,) the hash of all words of each together, and (n,) their number."""
    kernel = _kernel()
    if kernel is None:
        return plain_phrases(texts)
    hashes, counts = kernel.phrases(*buffers(texts))
    return np.frombuffer(hashes, np.uint64), np.frombuffer(counts, np.int64)


def make_filter(members: int, bits: int = FILTER_BITS) -> Hashes:
    """(blocks, 8) an empty filter for so many hashes, `bits` each."""
    return np.zeros((members * bits // 512 + 1, 8), np.uint64)


def fill(members: Hashes, hashes: Hashes, lines: int = 1) -> None:
    """Put hashes into a filter, which is changed; each into so many `lines`."""
    kernel = _kernel()
    if kernel is None:
        plain_fill(members, hashes, lines)
    else:
        kernel.fill(members, np.ascontiguousarray(hashes), lines)


def false_positive_rate(members: Hashes, lines: int) -> float:
    """How often a random hash passes, by the bits that are set: no estimate of what is in it."""
    passing = 0.0
    for start in range(0, len(members), _BLOCKS_AT_ONCE):
        ones = np.bitwise_count(members[start : start + _BLOCKS_AT_ONCE]).sum(axis=1)
        passing += float(((ones / 512.0) ** PROBES).sum())
    return (passing / len(members)) ** lines


def plain_find(
    texts: pa.Array, words: int, members: Hashes = _NO_FILTER, every: int = 1, lines: int = 1
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The twin of `find` without a kernel."""
    parts, counts = [np.empty(0, GRAM)], np.zeros(len(texts), np.int64)
    for number, text in enumerate(texts.to_pylist()):
        hashes, begins, ends = word_spans(text)
        count = len(hashes) - words + 1
        if count < 1:
            continue
        sums = np.zeros(count, np.uint64)
        for place, power in enumerate(powers(WORD_FACTOR, words)):
            sums += hashes[place : place + count] * power
        grams = np.empty(count, GRAM)
        grams["hash"], grams["text"], grams["word"] = mix(sums), number, np.arange(count)
        grams["begin"], grams["end"] = begins[:count], ends[words - 1 :]
        grams = grams[grams["hash"] % np.uint64(every) == 0]
        counts[number] = len(grams)
        parts.append(grams[_held(members, grams["hash"], lines)] if len(members) else grams)
    return np.concatenate(parts), counts


def plain_phrases(texts: pa.Array) -> tuple[Hashes, NDArray[np.int64]]:
    """The twin of `phrases` without a kernel."""
    hashes = [word_spans(text)[0] for text in texts.to_pylist()]
    sums = [
        (words * powers(WORD_FACTOR, len(words))).sum() if len(words) else 0 for words in hashes
    ]
    return mix(np.array(sums, np.uint64)), np.array([len(words) for words in hashes], np.int64)


def plain_fill(members: Hashes, hashes: Hashes, lines: int = 1) -> None:
    """The twin of `fill` without a kernel."""
    for each in _line_hashes(hashes, lines):
        blocks, words, bits = _places(members, each)
        np.bitwise_or.at(members, (blocks, words), np.uint64(1) << bits)


def _held(members: Hashes, hashes: Hashes, lines: int) -> NDArray[np.bool_]:
    held = np.ones(len(hashes), np.bool_)
    for each in _line_hashes(hashes, lines):
        blocks, words, bits = _places(members, each)
        held &= (members[blocks, words] >> bits & np.uint64(1)).all(axis=1).astype(bool)
    return held


def _line_hashes(hashes: Hashes, lines: int) -> Iterator[Hashes]:
    """What names the block of each line: the hash itself, then mixtures of the one before."""
    for _ in range(lines):
        yield hashes
        hashes = mix(hashes ^ _LINE_SEED)


def _places(members: Hashes, hashes: Hashes) -> tuple[Hashes, Hashes, Hashes]:
    """Of (n,) hashes the block (n, 1), and of each of six bits its word and its place in it."""
    upper = hashes[:, None] >> np.uint64(32)
    blocks = (upper * np.uint64(len(members))) >> np.uint64(32)
    mixed = mix(hashes ^ _SEED)[:, None] >> (np.arange(PROBES, dtype=np.uint64) * np.uint64(9))
    bits = mixed % np.uint64(512)
    return blocks, bits // np.uint64(64), bits % np.uint64(64)


def word_spans(text: str) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
    """Of each word its hash and where it begins and ends, in bytes of UTF-8."""
    # As `words.normalise`: no letter becomes two, so places stay what they are.
    lower = text.replace("\u0130", "i").lower().replace("\u03c2", "\u03c3")
    spans = [found.span() for found in _WORD.finditer(lower)]
    words = word_hashes(" ".join(lower[a:b] for a, b in spans).encode())
    lengths = [len(letter.encode()) for letter in text]
    places = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))
    edges = np.array(spans, np.int64).reshape(-1, 2)
    return words, places[edges[:, 0]], places[edges[:, 1]]
