"""rules: what a text must be like to be kept, as named presets of small rules.

A rule looks at a text and says "" or what it found; its name is the reason for the drop.
`webtext` asks for little, as the paper did; the others are the published filters of Gopher
(Rae et al. 2021), C4 (Raffel et al. 2020) and FineWeb (Penedo et al. 2024).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.prose import (
    BULLETS,
    ELLIPSES,
    TERMINAL,
    Prose,
    repeated_characters,
    repeated_gram_characters,
    repeated_share,
    top_gram_characters,
)
from gptwo.corpus.shards import Draft, document_id, stages_file
from gptwo.pool import Task

Rule = Callable[[Prose], str]
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
POLICY_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


@dataclass(frozen=True)
class Preset:
    """Which lines of a text to keep, then which rules it must pass, in order."""

    rules: dict[str, Rule]
    keep_line: Callable[[str], bool] | None = None


def rules_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The stage by itself: a shard in, a shard out."""
    stages_file(replace(task, input=(task.input, [("rules", rules)])), config, at)


def rules(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Drop every document that breaks a rule of the chosen preset."""
    preset = PRESETS[config.rules]
    for number, draft in enumerate(drafts):
        at(number)
        if preset.keep_line:
            draft.text = keep_lines(draft.text, preset.keep_line)
            draft.id = document_id(draft.text)
        broken = first_broken(preset, draft.text)
        if broken:
            draft.drop(*broken)


def first_broken(preset: Preset, text: str) -> tuple[str, str] | None:
    """`("too-short", "37 < 128 tokens")`, or None for a text that passes."""
    prose = Prose(text)
    for name, rule in preset.rules.items():
        found = rule(prose)
        if found:
            return name, found
    return None


def keep_lines(text: str, wanted: Callable[[str], bool]) -> str:
    """The text without the lines that are not wanted; empty lines stay between paragraphs."""
    lines = [line for line in text.split("\n") if not line.strip() or wanted(line.strip())]
    out = "\n".join(lines)
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
    letters = sum(map(str.isalpha, prose.text))
    return _below(letters / max(sum(map(len, prose.words)), 1), 0.5)


def repeated_lines(prose: Prose) -> str:
    """Menus and logs: over half of the characters are in lines that stood before."""
    return _above(repeated_characters(prose.lines), 0.5)


# Gopher, quality


def too_few_words(prose: Prose) -> str:
    count = sum(any(map(str.isalnum, word)) for word in prose.words)
    return f"{count} < 50 words" if count < 50 else ""


def too_many_words(prose: Prose) -> str:
    count = sum(any(map(str.isalnum, word)) for word in prose.words)
    return f"{count:,} > 100,000 words" if count > 100_000 else ""


def word_length(prose: Prose) -> str:
    words = [word for word in prose.words if any(map(str.isalnum, word))]
    mean = sum(map(len, words)) / max(len(words), 1)
    return _below(mean, 3) or _above(mean, 10)


def hashes(prose: Prose) -> str:
    return _above(prose.share_of_words(prose.text.count("#")), 0.1)


def ellipses(prose: Prose) -> str:
    return _above(prose.share_of_words(sum(map(prose.text.count, ELLIPSES))), 0.1)


def bullet_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(sum(line.startswith(BULLETS) for line in prose.lines)), 0.9)


def ellipsis_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(sum(line.endswith(ELLIPSES) for line in prose.lines)), 0.3)


def words_without_letters(prose: Prose) -> str:
    with_letter = sum(any(map(str.isalpha, word)) for word in prose.words)
    return _below(prose.share_of_words(with_letter), 0.8)


def no_stop_words(prose: Prose) -> str:
    found = STOP_WORDS & {word.lower() for word in prose.words}
    return f"{len(found)} < 2 of the stop words" if len(found) < 2 else ""


# Gopher, repetition


def duplicate_lines(prose: Prose) -> str:
    return _above(repeated_share(prose.lines), 0.3)


def duplicate_paragraphs(prose: Prose) -> str:
    return _above(repeated_share(prose.paragraphs), 0.3)


def duplicate_line_characters(prose: Prose) -> str:
    return _above(repeated_characters(prose.lines), 0.2)


def duplicate_paragraph_characters(prose: Prose) -> str:
    return _above(repeated_characters(prose.paragraphs), 0.2)


def top_grams(prose: Prose) -> str:
    """The most frequent 2-, 3- or 4-gram fills too much of the text."""
    for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16)):
        found = _above(top_gram_characters(prose.words, n), limit)
        if found:
            return f"{n}-gram {found}"
    return ""


def duplicate_grams(prose: Prose) -> str:
    """Repeated 5- to 10-grams fill too much of the text."""
    for n, limit in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True):
        found = _above(repeated_gram_characters(prose.words, n), limit)
        if found:
            return f"{n}-grams {found}"
    return ""


# C4


def c4_line(line: str) -> bool:
    """A line of at least 3 words that is not a notice about scripts, cookies or policies."""
    words = line.split()
    lowered = line.lower()
    return (
        len(words) >= 3
        and max(map(len, words)) <= 1000
        and "javascript" not in lowered
        and not any(phrase in lowered for phrase in POLICY_PHRASES)
    )


def c4_sentence_line(line: str) -> bool:
    """The same, and it must end as a sentence does."""
    return c4_line(line) and line.endswith(TERMINAL) and not line.endswith(ELLIPSES)


def lorem_ipsum(prose: Prose) -> str:
    return "lorem ipsum" if "lorem ipsum" in prose.text.lower() else ""


def curly_bracket(prose: Prose) -> str:
    return "{" if "{" in prose.text else ""


def few_sentences(prose: Prose) -> str:
    """Fewer than 5 sentences, counted as words that end in terminal punctuation."""
    count = sum(word.rstrip("\"'”’)").endswith((".", "!", "?")) for word in prose.words)
    return f"{count} < 5 sentences" if count < 5 else ""


# FineWeb


def few_sentence_ends(prose: Prose) -> str:
    return _below(prose.share_of_lines(sum(line.endswith(TERMINAL) for line in prose.lines)), 0.12)


def short_lines(prose: Prose) -> str:
    return _above(prose.share_of_lines(sum(len(line) <= 30 for line in prose.lines)), 0.67)


def any_duplicate_line(prose: Prose) -> str:
    return _above(repeated_characters(prose.lines), 0.01)


def many_line_ends(prose: Prose) -> str:
    return _above(prose.share_of_words(len(prose.lines)), 0.3)


GOPHER: dict[str, Rule] = {
    "duplicate-lines": duplicate_lines,
    "duplicate-paragraphs": duplicate_paragraphs,
    "duplicate-line-characters": duplicate_line_characters,
    "duplicate-paragraph-characters": duplicate_paragraph_characters,
    "top-grams": top_grams,
    "duplicate-grams": duplicate_grams,
    "too-few-words": too_few_words,
    "too-many-words": too_many_words,
    "word-length": word_length,
    "hashes": hashes,
    "ellipses": ellipses,
    "bullet-lines": bullet_lines,
    "ellipsis-lines": ellipsis_lines,
    "words-without-letters": words_without_letters,
    "no-stop-words": no_stop_words,
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
    "c4": Preset(C4, c4_sentence_line),
    "fineweb": Preset({**GOPHER, **C4, **FINEWEB}, c4_line),
    "none": Preset({}),
}
