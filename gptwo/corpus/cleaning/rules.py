"""rules: what a text must be like to be kept, as named presets of small rules.

A rule looks at a text and says "" or what it found; its name is the reason for the drop.
`webtext` asks for little, as the paper did; the others are the published filters of Gopher
(Rae et al. 2021), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from gptwo.corpus.cleaning.prose import ELLIPSES, REPEATED_GRAMS, TERMINAL, TOP_GRAMS, Prose
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import Draft, document_id

Rule = Callable[[Prose], str]
POLICY_PHRASES = ("terms of use", "privacy policy")
COOKIE_PHRASES = ("cookie policy", "uses cookies", "use of cookies", "use cookies")
_CITATION = re.compile(r"\[(?:\d*|edit|citation needed)]")


@dataclass(frozen=True)
class Preset:
    """Rules for a text as it came, then what becomes of its lines, then rules for what is left."""

    rules: dict[str, Rule] = field(default_factory=dict)
    edit_line: Callable[[str], str] | None = None  # "" for a line that is not wanted
    rules_after: dict[str, Rule] = field(default_factory=dict)


def rules(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Drop every document that breaks a rule of the chosen preset."""
    preset = PRESETS[config.rules]
    for number, draft in enumerate(drafts):
        at(number)
        text, broken = judge(preset, draft.text)
        if text != draft.text:
            draft.text, draft.id = text, document_id(text)
        if broken:
            draft.drop(*broken)


def judge(preset: Preset, text: str) -> tuple[str, tuple[str, str] | None]:
    """The text with the lines it keeps, and the first rule it breaks."""
    broken = _first_broken(preset.rules, text)
    if not broken and preset.edit_line:
        text = edit_lines(text, preset.edit_line)
        broken = _first_broken(preset.rules_after, text)
    return text, broken


def first_broken(preset: Preset, text: str) -> tuple[str, str] | None:
    """`("too-short", "37 < 128 tokens")`, or None for a text that passes."""
    return judge(preset, text)[1]


def _first_broken(rules: dict[str, Rule], text: str) -> tuple[str, str] | None:
    prose = Prose(text)
    for name, rule in rules.items():
        found = rule(prose)
        if found:
            return name, found
    return None


def edit_lines(text: str, edit: Callable[[str], str]) -> str:
    """The text with its lines edited, without those of which nothing is left.

    Empty lines stay between paragraphs.
    """
    lines = [(line, edit(line)) for line in map(str.strip, text.split("\n"))]
    out = "\n".join(edited for line, edited in lines if edited or not line)
    while "\n\n\n" in out:
        out = out.replace("\n\n\n", "\n\n")
    return out.strip()


def _above(value: float, limit: float) -> str:
    return f"{value:.3f} > {limit:g}" if value > limit else ""


def _below(value: float, limit: float) -> str:
    return f"{value:.3f} < {limit:g}" if value < limit else ""


# webtext


def too_short(prose: Prose) -> str:
    """Fewer than 128 tokens, counted as pre-tokens."""
    count = prose.pre_tokens(128)
    return f"{count} < 128 tokens" if count < 128 else ""


def few_letters(prose: Prose) -> str:
    """Tables of numbers and character art: under half of the visible characters are letters."""
    return _below(prose.counts.letters / max(prose.counts.word_characters, 1), 0.5)


def repeated_lines(prose: Prose) -> str:
    """Menus and logs: over half of the characters are in lines that stood before."""
    counts = prose.counts
    return _above(counts.repeated_line_characters / max(counts.line_characters, 1), 0.5)


# Gopher, quality: words are those that hold a letter or a digit


def too_few_words(prose: Prose) -> str:
    count = prose.counts.named_words
    return f"{count} < 50 words" if count < 50 else ""


def too_many_words(prose: Prose) -> str:
    count = prose.counts.named_words
    return f"{count:,} > 100,000 words" if count > 100_000 else ""


def word_length(prose: Prose) -> str:
    mean = prose.counts.named_characters / max(prose.counts.named_words, 1)
    return _below(mean, 3) or _above(mean, 10)


def hashes(prose: Prose) -> str:
    return _above(prose.share_of_words(prose.counts.hashes), 0.1)


def ellipses(prose: Prose) -> str:
    return _above(prose.share_of_words(prose.counts.ellipses), 0.1)


def bullet_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(prose.counts.bullet_lines), 0.9)


def ellipsis_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(prose.counts.ellipsis_lines), 0.3)


def words_without_letters(prose: Prose) -> str:
    return _below(prose.share_of_words(prose.counts.lettered_words), 0.8)


def no_stop_words(prose: Prose) -> str:
    count = prose.counts.stop_words
    return f"{count} < 2 of the stop words" if count < 2 else ""


# Gopher, repetition


def duplicate_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(prose.counts.repeated_lines), 0.3)


def duplicate_paragraphs(prose: Prose) -> str:
    return _above(prose.counts.repeated_paragraphs / max(prose.counts.paragraphs, 1), 0.3)


def duplicate_line_characters(prose: Prose) -> str:
    return _above(prose.share_of_text(prose.counts.repeated_line_characters), 0.2)


def duplicate_paragraph_characters(prose: Prose) -> str:
    return _above(prose.share_of_text(prose.counts.repeated_paragraph_characters), 0.2)


TOP_LIMITS = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_LIMITS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


def top_gram(n: int) -> Rule:
    """The most frequent 2-, 3- or 4-gram fills too much of the text."""
    return lambda prose: _above(prose.share_of_text(prose.repeats[n - 2]), TOP_LIMITS[n])


def duplicate_grams(n: int) -> Rule:
    """Repeated 5- to 10-grams fill too much of the text."""
    return lambda prose: _above(prose.share_of_text(prose.repeats[n - 2]), REPEATED_LIMITS[n])


# C4


def c4_line(line: str) -> str:
    """A line without citation marks; "" for fewer than 3 words, and for a notice about scripts,
    cookies or policies."""
    words = line.split()
    if len(words) < 3 or (len(line) > 1000 and max(map(len, words)) > 1000):
        return ""
    if "[" in line:
        line = _CITATION.sub("", line).strip()
    lowered = line.lower()
    if "lorem ipsum" in lowered:
        return line  # and the page goes
    if "javascript" in lowered:
        return ""
    if "{" in line:
        return line  # and the page goes
    phrases = (*POLICY_PHRASES, *COOKIE_PHRASES) if "cookie" in lowered else POLICY_PHRASES
    return "" if any(phrase in lowered for phrase in phrases) else line


def c4_sentence_line(line: str) -> str:
    """The same, and it must end as a sentence does."""
    line = c4_line(line)
    return line if line.endswith(TERMINAL) and not line.endswith(ELLIPSES) else ""


def lorem_ipsum(prose: Prose) -> str:
    return "lorem ipsum" if "lorem ipsum" in prose.text.lower() else ""


def curly_bracket(prose: Prose) -> str:
    return "{" if "{" in prose.text else ""


def few_sentences(prose: Prose) -> str:
    """Fewer than 5 sentences; a line has at least one."""
    count = prose.counts.sentences
    return f"{count} < 5 sentences" if count < 5 else ""


# FineWeb


def few_sentence_ends(prose: Prose) -> str:
    return _below(prose.share_of_lines(prose.counts.ended_lines), 0.12)


def short_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(prose.counts.short_lines), 0.67)


def any_duplicate_line(prose: Prose) -> str:
    counts = prose.counts
    characters = counts.characters - counts.newlines
    return _above(counts.repeated_line_characters / max(characters, 1), 0.01)


def many_line_ends(prose: Prose) -> str:
    """Lists: more than 0.3 line ends a word. An empty line does not count, for the texts that the
    number was chosen on have none."""
    return _above(prose.share_of_words(max(prose.counts.lines - 1, 0)), 0.3)


# What is quick to tell comes first, n-grams last.
GOPHER: dict[str, Rule] = {
    "too-few-words": too_few_words,
    "too-many-words": too_many_words,
    "word-length": word_length,
    "hashes": hashes,
    "ellipses": ellipses,
    "bullet-lines": bullet_lines,
    "ellipsis-lines": ellipsis_lines,
    "words-without-letters": words_without_letters,
    "no-stop-words": no_stop_words,
    "duplicate-lines": duplicate_lines,
    "duplicate-paragraphs": duplicate_paragraphs,
    "duplicate-line-characters": duplicate_line_characters,
    "duplicate-paragraph-characters": duplicate_paragraph_characters,
    **{f"top-{n}-gram": top_gram(n) for n in TOP_GRAMS},
    **{f"duplicate-{n}-grams": duplicate_grams(n) for n in REPEATED_GRAMS},
}
C4: dict[str, Rule] = {
    "lorem-ipsum": lorem_ipsum,
    "curly-bracket": curly_bracket,
    "few-sentences": few_sentences,
}
FINEWEB: dict[str, Rule] = {
    "few-sentence-ends": few_sentence_ends,
    "short-lines": short_lines,
    "any-duplicate-line": any_duplicate_line,
    "many-line-ends": many_line_ends,
}
PRESETS: dict[str, Preset] = {
    "webtext": Preset(
        {"too-short": too_short, "few-letters": few_letters, "repeated-lines": repeated_lines}
    ),
    "gopher": Preset(GOPHER),
    "c4": Preset(edit_line=c4_sentence_line, rules_after=C4),
    "fineweb": Preset(GOPHER, c4_line, {**C4, **FINEWEB}),
    "none": Preset(),
}
