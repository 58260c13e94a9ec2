"""Taking the tokenisation out of WikiText and PTB, so that it can be put back.

GPT-2 was trained on prose, not on `do n't` and `@-@` (paper section 3.1). A de-tokeniser here is a
list of patterns, each of which names a stretch of the ORIGINAL text and what stands there instead,
mostly nothing for a space. All edits are recorded; `restore` undoes them exactly, so a probability
of the new text is one of the dataset's.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` of the original became `new`, which stands at `at` of the new text."""

    at: int
    old: str
    new: str


Rules = Sequence[tuple[re.Pattern[str], str]]


def _rules(*pairs: tuple[str, str]) -> Rules:
    return [(re.compile(pattern), new) for pattern, new in pairs]


WIKITEXT = _rules(
    (r" @([-,.])@ ", r"\1"),  # a hyphen or separator inside a word or number
    (r" +(?=\n|\Z)|(?<=\n) +|\A +", ""),  # spaces at the ends of lines
    (r"(?<==) (?==)", ""),  # = = Heading = =
    (r" (?=[.,;:!?](?:\s|\Z))", ""),
    (r"(?<=[(\[{]) | (?=[)\]}])", ""),
    (r" (?='(?:s|t|re|ve|m|d|ll)\b)", ""),
    (r"(?<=s) (?=' )", ""),  # the players ' union
    (r"(?<=[$£€¥₱₩#]) (?=\d)| (?=%)| (?=°)|(?<=°) (?=[CFNSEW]\b)", ""),
    (r"(?<=\d) (?=[–⁄] \d)|(?<=\d [–⁄]) (?=\d)", ""),  # 1994 – 95
    (r"(?<=\w) (?=/ \w)|(?<=\w /) (?=\w)", ""),
)
PTB = _rules(
    (r" +(?=\n|\Z)|(?<=\n) +|\A +", ""),
    (r" (?=n't\b)| (?='(?:s|re|ve|m|d|ll)?(?:\s|\Z))", ""),
    (r"(?<=[$#]) (?=\S)", ""),
    (r"\\/", "/"),
)


def detokenize(text: str, rules: Rules) -> tuple[str, list[Edit]]:
    """The text as prose, and the edits that made it so.

    Where two patterns want the same characters the earlier, longer stretch wins.
    """
    wanted = sorted(_stretches(text, rules), key=lambda found: (found[0], -found[1]))
    pieces: list[str] = []
    edits: list[Edit] = []
    read = written = 0
    for start, end, new in wanted:
        if start < read:
            continue
        pieces += (text[read:start], new)
        written += start - read
        edits.append(Edit(written, text[start:end], new))
        written += len(new)
        read = end
    pieces.append(text[read:])
    return "".join(pieces), edits


def restore(text: str, edits: Sequence[Edit]) -> str:
    """The original: `restore(*detokenize(text, rules)) == text`."""
    pieces, read = [], 0
    for edit in edits:
        pieces += (text[read : edit.at], edit.old)
        read = edit.at + len(edit.new)
    pieces.append(text[read:])
    return "".join(pieces)


def _stretches(text: str, rules: Rules) -> Iterator[tuple[int, int, str]]:
    for pattern, new in rules:
        for match in pattern.finditer(text):
            yield match.start(), match.end(), match.expand(new)
    if rules is WIKITEXT:
        yield from _inside_quotes(text)


def _inside_quotes(text: str) -> Iterator[tuple[int, int, str]]:
    """The spaces inside each pair of double quotes; pairs do not span lines."""
    for line in re.finditer(r"[^\n]+", text):
        marks = [match.start() for match in re.finditer(r'(?<= )"(?= )', line.group())]
        for opening, closing in zip(marks[::2], marks[1::2], strict=False):
            first, last = line.start() + opening + 1, line.start() + closing - 1
            yield first, first + 1, ""
            if last > first:
                yield last, last + 1, ""
