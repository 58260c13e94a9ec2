"""What the rules look at: a text's words, lines and how much of it repeats."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice

import regex

# GPT-2's pre-tokens; a token never spans two of them, so there are at least as many tokens.
_PRE_TOKEN = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
BULLETS = ("-", "*", "•", "‣", "▪", "●", "–")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "”", "’", "'")


class Prose:
    """A text, taken apart once for all rules."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that hold something, without the space around it."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part.strip() for part in self.text.split("\n\n") if part.strip()]

    def pre_tokens(self, most: int) -> int:
        """Number of GPT-2 pre-tokens, counted up to `most`."""
        return sum(1 for _ in islice(_PRE_TOKEN.finditer(self.text), most))

    def share_of_words(self, chosen: int) -> float:
        return chosen / max(len(self.words), 1)

    def share_of_lines(self, chosen: int) -> float:
        return chosen / max(len(self.lines), 1)


def repeated_share(parts: Sequence[str]) -> float:
    """Share of parts that stood before."""
    return (len(parts) - len(set(parts))) / max(len(parts), 1)


def repeated_characters(parts: Sequence[str]) -> float:
    """Share of characters in parts that stood before."""
    repeats = sum(len(part) * (count - 1) for part, count in Counter(parts).items())
    return repeats / max(sum(map(len, parts)), 1)


def top_gram_characters(words: Sequence[str], n: int) -> float:
    """Share of characters in the occurrences of the most frequent n-gram, if it recurs."""
    grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    most = max(grams.values(), default=0)
    if most < 2:
        return 0.0
    length = max(sum(map(len, gram)) for gram, count in grams.items() if count == most)
    return most * length / max(sum(map(len, words)), 1)


def repeated_gram_characters(words: Sequence[str], n: int) -> float:
    """Share of characters in n-grams that stood before, none counted twice."""
    seen: set[tuple[str, ...]] = set()
    repeats, position = 0, 0
    lengths = [len(word) for word in words]
    while position + n <= len(words):
        gram = tuple(words[position : position + n])
        if gram in seen:
            repeats += sum(lengths[position : position + n])
            position += n
        else:
            seen.add(gram)
            position += 1
    return repeats / max(sum(lengths), 1)
