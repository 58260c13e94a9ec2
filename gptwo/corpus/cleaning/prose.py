"""What the rules look at: a text's words, lines and how much of it repeats.

A C kernel (`native/prose.c`) counts. What it counts is written here plainly, and serves where the
kernel is not built. Words are what lies between white space; lines and paragraphs are those that
hold something, without the space around them.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import regex

# GPT-2's pre-tokens; a token never spans two of them, so there are at least as many tokens.
_PRE_TOKEN = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
BULLETS = ("-", "*", "•", "‣", "▪", "●", "–")
ELLIPSES = ("...", "…")
TERMINAL = (".", "!", "?", '"', "”", "’", "'")
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
SHORT_LINE = 30  # characters
TOP_GRAMS, REPEATED_GRAMS = range(2, 5), range(5, 11)


class Counts(NamedTuple):
    """Numbers of things in a text, and how many characters these have."""

    characters: int
    newlines: int
    letters: int
    hashes: int
    ellipses: int
    words: int
    word_characters: int
    named_words: int  # that hold a letter or a digit
    named_characters: int
    lettered_words: int
    stop_words: int  # different ones
    sentences: int  # up to a word with its full stop, whatever quotes follow, or the line's end
    lines: int
    line_characters: int
    bullet_lines: int
    ellipsis_lines: int
    ended_lines: int  # in terminal punctuation or a quote
    short_lines: int
    repeated_lines: int  # that stood before
    repeated_line_characters: int
    paragraphs: int
    repeated_paragraphs: int
    repeated_paragraph_characters: int


class Prose:
    """A text, counted once for all rules."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def counts(self) -> Counts:
        kernel = _kernel()
        return Counts._make(kernel.count(self.text)) if kernel else plain_counts(self.text)

    @cached_property
    def repeats(self) -> tuple[int, ...]:
        """For n from 2 to 10 the characters in repeated n-grams: see `plain_repeats`."""
        kernel = _kernel()
        return kernel.repeats(self.text) if kernel else plain_repeats(self.text)

    def pre_tokens(self, most: int) -> int:
        """Number of GPT-2 pre-tokens, counted up to `most`: at least one a word."""
        if self.counts.words >= most:
            return most
        return sum(1 for _ in islice(_PRE_TOKEN.finditer(self.text), most))

    def share_of_words(self, chosen: int) -> float:
        return chosen / max(self.counts.words, 1)

    def share_of_lines(self, chosen: int) -> float:
        return chosen / max(self.counts.lines, 1)

    def share_of_text(self, characters: int) -> float:
        return characters / max(self.counts.characters, 1)


def _kernel() -> Any:
    try:
        from gptwo.native import _prose  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _prose


def plain_counts(text: str) -> Counts:
    """The twin of the kernel's `count`."""
    words = text.split()
    named = [word for word in words if any(map(str.isalnum, word))]
    lines = _parts(text, "\n")
    paragraphs = _parts(text, "\n\n")
    return Counts(
        characters=len(text),
        newlines=text.count("\n"),
        letters=sum(map(str.isalpha, text)),
        hashes=text.count("#"),
        ellipses=sum(map(text.count, ELLIPSES)),
        words=len(words),
        word_characters=sum(map(len, words)),
        named_words=len(named),
        named_characters=sum(map(len, named)),
        lettered_words=sum(any(map(str.isalpha, word)) for word in words),
        stop_words=len(STOP_WORDS & {word.lower() for word in words}),
        sentences=sum(map(_sentences, lines)),
        lines=len(lines),
        line_characters=sum(map(len, lines)),
        bullet_lines=sum(line.startswith(BULLETS) for line in lines),
        ellipsis_lines=sum(line.endswith(ELLIPSES) for line in lines),
        ended_lines=sum(line.endswith(TERMINAL) for line in lines),
        short_lines=sum(len(line) <= SHORT_LINE for line in lines),
        repeated_lines=len(lines) - len(set(lines)),
        repeated_line_characters=_repeated_characters(lines),
        paragraphs=len(paragraphs),
        repeated_paragraphs=len(paragraphs) - len(set(paragraphs)),
        repeated_paragraph_characters=_repeated_characters(paragraphs),
    )


def plain_repeats(text: str) -> tuple[int, ...]:
    """The twin of the kernel's `repeats`: of each n-gram length from 2 to 10 some characters.

    Up to 4: of all occurrences of the most frequent n-gram (of several the first), with the space
    between its words; 0 where none recurs. From 5: of n-grams that stood before, none twice.
    """
    words = text.split()
    top = [_top_characters(words, n) for n in TOP_GRAMS]
    return *top, *(_repeated_gram_characters(words, n) for n in REPEATED_GRAMS)


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _sentences(line: str) -> int:
    ends = [word.rstrip("\"'”’)").endswith((".", "!", "?")) for word in line.split()]
    return sum(ends) + (not ends[-1])


def _repeated_characters(parts: Sequence[str]) -> int:
    return sum(len(part) * (count - 1) for part, count in Counter(parts).items())


def _top_characters(words: Sequence[str], n: int) -> int:
    grams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    gram, most = max(grams.items(), key=lambda entry: entry[1], default=((), 0))
    return most * len(" ".join(gram)) if most > 1 else 0


def _repeated_gram_characters(words: Sequence[str], n: int) -> int:
    seen: set[tuple[str, ...]] = set()
    repeats, place = 0, 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        if gram in seen:
            repeats += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return repeats
