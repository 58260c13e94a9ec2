"""Each rule: a text that just passes and one that just fails."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gptwo.corpus import rules
from gptwo.corpus.config import PRESET_NAMES, CorpusConfig
from gptwo.corpus.prose import Prose
from gptwo.corpus.rules import PRESETS, first_broken
from gptwo.corpus.shards import Draft, document_id, read_shard, write_shard
from gptwo.pool import Task


def words(n: int, start: int = 0) -> str:
    """`n` different words of 6 characters, with a letter each."""
    return " ".join(f"w{i:05}" for i in range(start, start + n))


def lines(*parts: str) -> str:
    return "\n".join(parts)


CASES: dict[str, tuple[str, str]] = {
    "too_short": ("go " * 127 + "go", "go " * 126 + "go"),
    "few_letters": ("ab12", "ab123"),
    "repeated_lines": (lines("aaaa", "aaaa", "b"), lines("aaaa", "aaaa", "aaaa")),
    "too_few_words": (words(50), words(49) + " -- **"),
    "too_many_words": (words(100_000), words(100_001)),
    "word_length": ("abc abc", "ab abc"),
    "hashes": (words(9) + " a#", words(8) + " a#"),
    "ellipses": (words(9) + " a...", words(8) + " a…"),
    "bullet_lines": (
        lines("a", *(f"- {i}" for i in range(9))),
        lines("a", *(f"• {i}" for i in range(10))),
    ),
    "ellipsis_lines": (
        lines(*"abcdefg", "x...", "y…", "z..."),
        lines(*"abcdef", "x...", "y…", "z..."),
    ),
    "words_without_letters": ("a b c d 5", "a b c 4 5"),
    "no_stop_words": ("The end of it", "The end"),
    "duplicate_lines": (lines(*"abcdefg", *"aaa"), lines(*"abcdef", *"aaa")),
    "duplicate_paragraphs": ("\n\n".join("abcdefgaaa"), "\n\n".join("abcdefaaa")),
    "duplicate_line_characters": (lines("aa", "aa", "bbbbbb"), lines("aa", "aa", "bbbbb")),
    "duplicate_paragraph_characters": ("aa\n\naa\n\nbbbbbb", "aa\n\naa\n\nbbbbb"),
    "top_grams": ("aa bb " + words(10) + " aa bb", "aa bb " + words(5) + " aa bb"),
    "duplicate_grams": (
        words(5) + " " + words(29, 100) + " " + words(5),
        words(5) + " " + words(20, 100) + " " + words(5),
    ),
    "lorem_ipsum": ("lorem and ipsum", "Lorem ipsum dolor"),
    "curly_bracket": ("( )", "function () {"),
    "few_sentences": ('A. B! C? D. "E."', "A. B! C? D."),
    "few_sentence_ends": (
        lines("a.", *(f"line {i}" for i in range(7))),
        lines("a.", *(f"line {i}" for i in range(8))),
    ),
    "short_lines": (
        lines("short", "brief", "a line that has more than thirty characters"),
        lines("short", "brief", "terse", "a line that has more than thirty characters"),
    ),
    "any_duplicate_line": (
        lines("ab", "ab", "x" * 196),
        lines("ab", "ab", "x" * 195),
    ),
    "many_line_ends": (
        lines("a b c d", "e f g", "h i j"),
        lines("a b c", "e f g", "h i j"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_just_passes_and_just_fails(name: str) -> None:
    rule: Callable[[Prose], str] = getattr(rules, name)
    passes, fails = CASES[name]
    assert rule(Prose(passes)) == ""
    assert rule(Prose(fails)) != ""


def test_word_length_has_an_upper_end() -> None:
    assert rules.word_length(Prose("a" * 10)) == "" != rules.word_length(Prose("a" * 11))


def test_every_rule_of_every_preset_has_a_case() -> None:
    assert tuple(PRESETS) == PRESET_NAMES
    used = {rule.__name__ for preset in PRESETS.values() for rule in preset.rules.values()}
    assert used == set(CASES)
    for preset in PRESETS.values():
        assert all(name == rule.__name__.replace("_", "-") for name, rule in preset.rules.items())


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_an_empty_text_never_fails_to_be_judged(preset: str) -> None:
    first_broken(PRESETS[preset], "")
    first_broken(PRESETS[preset], "\n \n")


@pytest.mark.parametrize(
    ("line", "kept", "kept_as_sentence"),
    [
        ("Three words here.", True, True),
        ("Three words here", True, False),
        ("Three words here...", True, False),
        ("Two words.", False, False),
        ("Please enable JavaScript now.", False, False),
        ("We have a privacy policy.", False, False),
        ("a b " + "x" * 1000, True, False),
        ("a b " + "x" * 1001, False, False),
    ],
)
def test_c4_lines(line: str, kept: bool, kept_as_sentence: bool) -> None:
    assert rules.c4_line(line) == kept
    assert rules.c4_sentence_line(line) == kept_as_sentence


def test_a_preset_that_cuts_lines_renames_the_document(tmp_path: Path) -> None:
    text = "One two three. Four. Five.\n\nMenu\n\nSix seven eight. Nine. Ten."
    write_shard(tmp_path / "in.parquet", [Draft(text=text, id="old")])
    task = Task(input=tmp_path / "in.parquet", output=tmp_path / "out.parquet")
    rules.rules_file(task, CorpusConfig(rules="c4"), lambda position: None)
    (draft,) = read_shard(tmp_path / "out.parquet")
    assert draft.text == "One two three. Four. Five.\n\nSix seven eight. Nine. Ten."
    assert draft.id == document_id(draft.text)
