"""What needs no neural network: a word trigram, counting and compression."""

import lzma
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from gptwo.zeroshot.words import STOP_WORDS, WORD, words

TRIGRAM_WORDS = 1_000_000  # enough for a baseline, little enough to learn in seconds
UNKNOWN = "<unknown>"


class Trigram:
    """An interpolated word trigram, Witten-Bell smoothing.

    p(w | h) = (count(h w) + kinds(h) p(w | shorter h)) / (count(h) + kinds(h)), where kinds(h) is
    the number of different words seen after h. Words seen once count as unknown.
    """

    def __init__(self, vocabulary: list[str], ids: np.ndarray) -> None:
        self.vocabulary = vocabulary
        self.index = {word: i for i, word in enumerate(vocabulary)}
        V = len(vocabulary)
        seen = np.bincount(ids, minlength=V)
        self.unigram = (seen + 1) / (len(ids) + V)  # add one, so that nothing is impossible
        self.pairs, self.pair_counts = np.unique(ids[:-1] * V + ids[1:], return_counts=True)
        pair = np.searchsorted(self.pairs, ids[:-2] * V + ids[1:-1])
        self.triples, self.triple_counts = np.unique(pair * V + ids[2:], return_counts=True)

    @classmethod
    def learn(cls, texts: Iterable[str], limit: int = TRIGRAM_WORDS) -> "Trigram":
        """Count the first `limit` words of the texts."""
        stream: list[str] = []
        for text in texts:
            stream += words(text)
            if len(stream) >= limit:
                break
        del stream[limit:]
        stream = stream if len(stream) > 2 else [UNKNOWN] * 3
        counts = Counter(stream)
        vocabulary = [UNKNOWN, *sorted(w for w, n in counts.items() if n > 1 and w != UNKNOWN)]
        index = {word: i for i, word in enumerate(vocabulary)}
        ids = np.fromiter((index.get(word, 0) for word in stream), dtype=np.int64)
        return cls(vocabulary, ids)

    @cached_property
    def _askable(self) -> np.ndarray:
        return np.array([bool(WORD.fullmatch(w)) and w not in STOP_WORDS for w in self.vocabulary])

    def distribution(self, context: Sequence[str]) -> np.ndarray:
        """p(w | last two words of context) for every word of the vocabulary, float64 [V]."""
        V = len(self.vocabulary)
        p = self.unigram
        if context:
            last = self.index.get(context[-1], 0)
            p = _interpolate(p, self.pairs, self.pair_counts, last)
        if len(context) > 1:
            key = self.index.get(context[-2], 0) * V + self.index.get(context[-1], 0)
            pair = int(np.searchsorted(self.pairs, key))
            if pair < len(self.pairs) and self.pairs[pair] == key:
                p = _interpolate(p, self.triples, self.triple_counts, pair)
        return p

    def log_probability(self, continuation: Sequence[str], context: Sequence[str]) -> float:
        """Natural-log probability of some words after others."""
        history, total = list(context[-2:]), 0.0
        for word in continuation:
            total += math.log(self.distribution(history)[self.index.get(word, 0)])
            history = [*history[-1:], word]
        return total

    def best(self, context: Sequence[str]) -> str:
        """The likeliest next word that is a word and no stop word."""
        return self.vocabulary[int(np.argmax(self.distribution(context) * self._askable))]


def _interpolate(lower: np.ndarray, keys: np.ndarray, counts: np.ndarray, h: int) -> np.ndarray:
    """One Witten-Bell step: followers of history `h` are the keys in [h V, (h + 1) V)."""
    V = len(lower)
    first, last = np.searchsorted(keys, [h * V, (h + 1) * V])
    if first == last:
        return lower
    followers, seen = keys[first:last] - h * V, counts[first:last]
    total, kinds = seen.sum(), len(seen)
    p = lower * (kinds / (total + kinds))
    p[followers] += seen / (total + kinds)
    return p


def content_words(text: str) -> list[str]:
    """Words of a passage that a question may ask for, lower case, in order."""
    found = (word.lower() for word in WORD.findall(text))
    return [word for word in found if word not in STOP_WORDS and len(word) > 2]


def most_frequent(candidates: Sequence[str]) -> str:
    """The commonest; among equals the one seen last."""
    counts = Counter(candidates)
    return max(reversed(candidates), key=lambda word: counts[word]) if candidates else ""


def last_seen(text: str, word: str) -> int:
    """Where the word stands last in the text, -1 when it does not."""
    found = [match.start() for match in re.finditer(rf"\b{re.escape(word)}\b", text)]
    return found[-1] if found else -1


def compressed_bits_per_byte(content: bytes) -> float:
    """Bits per byte that xz needs."""
    return 8 * len(lzma.compress(content, preset=6)) / max(1, len(content))
