"""Taking the tokenisation out of the language-model sets, so that it can be put back.

GPT-2 was trained on prose, not on `do n't` and `@-@` (paper section 3.1). A de-tokeniser here is a
list of patterns, each of which names a stretch of the ORIGINAL text and what stands there instead,
mostly nothing for a space. All edits are recorded; `restore` undoes them exactly, so a probability
of the new text is one of the dataset's.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """`old` of the original became `new`, which stands at `at` of the new text."""

    at: int
    old: str
    new: str


# A finder names stretches of the text, (start, end), and what is to stand there.
Finder = Callable[[str], Iterator[tuple[int, int, str]]]
Rules = Sequence[Finder]


def _patterns(*pairs: tuple[str, str]) -> Finder:
    compiled = [(re.compile(pattern), new) for pattern, new in pairs]

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        for pattern, new in compiled:
            for match in pattern.finditer(text):
                yield match.start(), match.end(), match.expand(new)

    return find


def _inside_quotes(text: str) -> Iterator[tuple[int, int, str]]:
    """The spaces inside each pair of double quotes; pairs do not span lines."""
    for line in re.finditer(r"[^\n]+", text):
        marks = [match.start() for match in re.finditer(r'(?<!\S)"(?!\S)', line.group())]
        for opening, closing in zip(marks[::2], marks[1::2], strict=False):
            first, last = line.start() + opening + 1, line.start() + closing - 1
            yield first, first + 1, ""
            if last > first:
                yield last, last + 1, ""


def _single_quotes(text: str) -> Iterator[tuple[int, int, str]]:
    """` opens and ' closes; a ' that nothing opened opens after a comma or colon, before a capital.

    Else it closes what was opened before the text, or is the possessive of a plural: either way it
    belongs to the word before it.
    """
    within = False
    for match in re.finditer(r"(?<!\S)[`'](?!\S)", text):
        start, end = match.span()
        after = text[end + 1 : end + 2]
        opens = match.group() == "`" or (
            not within and after.isupper() and text[max(start - 2, 0) : start - 1] in ("", ",", ":")
        )
        within = opens
        if opens:
            yield start, min(end + 1, len(text)), "'"
        else:
            yield max(start - 1, 0), end, "'"


ENDS_OF_LINES = r" +(?=\n|\Z)|(?<=\n) +|\A +"
WIKITEXT: Rules = (
    _patterns(
        (r" @([-,.])@ ", r"\1"),  # a hyphen or separator inside a word or number
        (ENDS_OF_LINES, ""),
        (r"(?<==) (?==)", ""),  # = = Heading = =
        (r" (?=[.,;:!?](?:\s|\Z))", ""),
        (r"(?<=[(\[{]) | (?=[)\]}])", ""),
        (r" (?='(?:s|t|re|ve|m|d|ll)\b)", ""),
        (r"(?<=s) (?=' )", ""),  # the players ' union
        (r"(?<=[$£€¥₱₩#]) (?=\d)| (?=%)| (?=°)|(?<=°) (?=[CFNSEW]\b)", ""),
        (r"(?<=\d) (?=[–⁄] \d)|(?<=\d [–⁄]) (?=\d)", ""),  # 1994 – 95
        (r"(?<=\w) (?=/ \w)|(?<=\w /) (?=\w)", ""),
    ),
    _inside_quotes,
)
PTB: Rules = (
    _patterns(
        (ENDS_OF_LINES, ""),
        (r" (?=n't\b)| (?='(?:s|re|ve|m|d|ll)?(?:\s|\Z))", ""),
        (r"(?<=[$#]) (?=\S)", ""),
        (r"\\/", "/"),
    ),
)
NEWS: Rules = (  # One Billion Words
    _patterns(
        (ENDS_OF_LINES, ""),
        (r" (?=[.,;:!?](?:\s|\Z))| (?=\.\.\.)", ""),
        (r"(?<=[(\[{]) | (?=[)\]}])", ""),
        (r" (?=n't\b)| (?='(?:s|t|re|ve|m|d|ll)\b)", ""),
        (r"(?<=s) (?=' )|(?<=\bO) (?='[A-Z])", ""),
        (r"(?<=[$£€¥#]) (?=[\d.])| (?=%)| (?=°)", ""),
        (r"(?<=\w) (?=/ \w)|(?<=\w /) (?=\w)", ""),
    ),
    _inside_quotes,
)
BOOKS: Rules = (  # the Children's Book Test, tokenised as the Penn Treebank
    _patterns(
        (r"(?<!\S)`` ?", '"'),
        (r" ?''(?!\S)", '"'),
        *(
            (rf"(?<!\S)-L{kind}B-(?: |(?!\S))", mark)
            for kind, mark in zip("RSC", "([{", strict=True)
        ),
        *((rf" ?(?<!\S)-R{kind}B-(?!\S)", mark) for kind, mark in zip("RSC", ")]}", strict=True)),
        (r" (?=[.,;:!?]+(?:\s|\Z))| (?=\.\.\.)", ""),
        (r" (?=n't\b)| (?='(?:s|S|re|ve|m|d|ll|em)\b)", ""),
        (r"(?<=\b[Gg]on) (?=na\b)|(?<=\b[Ww]an) (?=na\b)|(?<=\b[Cc]an) (?=not\b)", ""),
        (r"(?<='[tT]) (?=(?:is|was|will|would)\b)", ""),
        (r"(?<=[$£#]) (?=\d)| (?=%)", ""),
    ),
    _single_quotes,
)


def detokenize(text: str, rules: Rules) -> tuple[str, list[Edit]]:
    """The text as prose, and the edits that made it so.

    Where two patterns want the same characters the earlier, longer stretch wins.
    """
    found = (stretch for finder in rules for stretch in finder(text))
    wanted = sorted(found, key=lambda stretch: (stretch[0], -stretch[1]))
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
