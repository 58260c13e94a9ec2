"""Each rule of each preset: a text that just passes and one that just fails."""

import json
import lzma
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwo.corpus.cleaning import rules
from gptwo.corpus.cleaning.prose import Counts, Prose, plain_counts, plain_repeats
from gptwo.corpus.cleaning.rules import PRESETS, Rule, first_broken, judge
from gptwo.corpus.config import PRESET_NAMES, CorpusConfig
from gptwo.corpus.shards import Draft, document_id, read_shard, stages_file, write_shard
from gptwo.pool import Task

kernel = pytest.importorskip("gptwo.native._prose")


def words(n: int, start: int = 0) -> str:
    """`n` different words of 6 characters, with a letter each."""
    return " ".join(f"w{i:05}" for i in range(start, start + n))


def lines(*parts: str) -> str:
    return "\n".join(parts)


def parts(between: str, different: int, repeated: int) -> str:
    """So many parts that differ, and the first of them again and again."""
    return between.join([*words(different).split(), *["w00000"] * repeated])


def twice(phrase: str, characters: int) -> str:
    """A text of so many characters: a phrase, words that do not recur, the phrase again."""
    room = characters - 2 * len(phrase) - 2
    between = words(room // 7 + 1)
    between = between[: room - 8] + "x" * 8  # no cut word, which might recur
    return f"{phrase} {between} {phrase}"


def letters(n: int, characters: int) -> str:
    """`n` different words of so many characters in all."""
    found = [chr(ord("a") + i) for i in range(n)]
    found[0] *= characters - n + 1
    return " ".join(found)


Pair = tuple[str, str]  # a text that just passes, one that just fails
CASES: dict[str, list[Pair]] = {
    # webtext
    "too-short": [("go " * 127 + "go", "go " * 126 + "go"), ("a," * 64, "a," * 63 + "a")],
    "few-letters": [("a" * 500 + "1" * 500, "a" * 500 + "1" * 501)],
    "repeated-lines": [(lines(*["a" * 200] * 3, "b" * 200), lines(*["a" * 200] * 3, "b" * 199))],
    # gopher: quality
    "too-few-words": [(words(50), words(49) + " -- **")],
    "too-many-words": [(words(100_000), words(100_001))],
    "word-length": [
        ("abc abc", "ab abc"),
        ("ab abcd --", "ab abc ----"),
        ("a" * 10, "a" * 11),
    ],
    "hashes": [(words(900) + " a#" * 100, words(899) + " a#" * 101)],
    "ellipses": [
        (words(900) + mark * 100, words(899) + mark * 101) for mark in (" a...", " a…", " …b")
    ],
    "bullet-lines": [
        (lines(*["a"] * 100, *[f"{mark} b"] * 900), lines(*["a"] * 99, *[f"{mark} b"] * 901))
        for mark in "-*•‣▪●–"
    ],
    "ellipsis-lines": [
        (lines(*["a.."] * 700, *[mark] * 300), lines(*["a.."] * 699, *[mark] * 301))
        for mark in ("x...", "y…", "...", "z... ")
    ],
    "words-without-letters": [
        ("a1 " * 800 + f"{word} " * 200, "a1 " * 799 + f"{word} " * 201) for word in ("5", "-")
    ],
    "no-stop-words": [("The end of it", "The end"), ("to be", "to to"), ("with that", "with tha")],
    # gopher: repetition
    "duplicate-lines": [(parts("\n", 700, 300), parts("\n", 699, 301))],
    "duplicate-paragraphs": [(parts("\n\n", 700, 300), parts("\n\n", 699, 301))],
    "duplicate-line-characters": [
        (lines(*["a" * 200] * 2, "b" * 598), lines(*["a" * 200] * 2, "b" * 597))
    ],
    "duplicate-paragraph-characters": [
        ("\n\n".join(["a" * 200] * 2 + ["b" * 596]), "\n\n".join(["a" * 200] * 2 + ["b" * 595]))
    ],
    **{
        f"top-{n}-gram": [(twice(phrase, 100), twice(phrase, 99))]
        for n, phrase in {2: "aaaaa bbbb", 3: "aaa bbb c", 4: "a b c dd"}.items()
    },
    **{
        f"duplicate-{n}-grams": [(twice(phrase, 100), twice(phrase, 99))]
        for n, phrase in {n: letters(n, 20 - n) for n in range(5, 11)}.items()
    },
    # c4
    "lorem-ipsum": [("lorem and ipsum", "Lorem IPSUM dolor")],
    "curly-bracket": [("( } )", "function () {")],
    "few-sentences": [
        ('A. B! C? D. "E."', 'A. B! C? "D."'),
        ("A (b.) C. D. E. f", "A (b) C. D. E. f"),
        (lines(*"abcde"), lines(*"abcd")),
    ],
    # fineweb
    "few-sentence-ends": [
        (lines(*[f"a{end}"] * 120, *["b"] * 880), lines(*[f"a{end}"] * 119, *["b"] * 881))
        for end in ".!?\"”’'"
    ],
    "short-lines": [
        (lines(*["a" * 30] * 670, *["a" * 31] * 330), lines(*["a" * 30] * 671, *["a" * 31] * 329))
    ],
    "any-duplicate-line": [(lines("ab", "ab", "x" * 196), lines("ab", "ab", "x" * 195))],
    "many-line-ends": [
        (end.join(["a"] * 300 + ["b " * 700]), end.join(["a"] * 301 + ["b " * 699]))
        for end in ("\n", "\n\n")
    ],
}


def every_rule() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for preset in PRESETS.values():
        found |= preset.rules | preset.rules_after
    return found


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [(name, *pair) for name, pairs in CASES.items() for pair in pairs],
    ids=[f"{name}-{i}" for name, pairs in CASES.items() for i in range(len(pairs))],
)
def test_just_passes_and_just_fails(name: str, passes: str, fails: str) -> None:
    rule = every_rule()[name]
    assert rule(Prose(passes)) == ""
    assert rule(Prose(fails)) != ""


def test_every_rule_of_every_preset_has_a_pair() -> None:
    assert tuple(PRESETS) == PRESET_NAMES
    assert set(every_rule()) == set(CASES) and all(CASES.values())
    thresholds = {name for name in CASES if name.startswith(("top-", "duplicate-"))}
    assert {f"top-{n}-gram" for n in (2, 3, 4)} < thresholds
    assert {f"duplicate-{n}-grams" for n in range(5, 11)} < thresholds


@pytest.mark.parametrize("name", CASES)
def test_the_reason_is_the_rule_and_what_it_found(name: str) -> None:
    preset = rules.Preset({name: every_rule()[name]})
    passes, fails = CASES[name][0]
    assert first_broken(preset, passes) is None
    broken = first_broken(preset, fails)
    assert broken and broken[0] == name and broken[1] == every_rule()[name](Prose(fails))


def test_thresholds_are_those_of_the_papers() -> None:
    assert rules.TOP_LIMITS == {2: 0.20, 3: 0.18, 4: 0.16}
    assert rules.REPEATED_LIMITS == {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


@pytest.mark.parametrize("preset", PRESET_NAMES)
@pytest.mark.parametrize("text", ["", "\n \n", "a", "{", "...", "# # #", "0", "\x85", "😀" * 200])
def test_no_text_is_too_strange_to_be_judged(preset: str, text: str) -> None:
    broken = first_broken(PRESETS[preset], text)
    assert (broken is None) == (preset == "none")


# ---- lines ----


@pytest.mark.parametrize(
    ("line", "kept", "kept_as_sentence"),
    [
        ("Three words here.", "Three words here.", True),
        ("Three words here", "Three words here", False),
        ("Three words here...", "Three words here...", False),
        ("Three words here…", "Three words here…", False),
        ("Three words here,", "Three words here,", False),
        ("Three words here!", "Three words here!", True),
        ("Three words here?", "Three words here?", True),
        ('"Three words here"', '"Three words here"', True),
        ("Three words here”", "Three words here”", True),
        ("Two words.", "", False),
        ("a b " + "x" * 999 + ".", "a b " + "x" * 999 + ".", True),
        ("a b " + "x" * 1000 + ".", "", False),
        ("Please enable java script.", "Please enable java script.", True),
        ("Please enable JavaScript now.", "", False),
        ("We have a policy, privately.", "We have a policy, privately.", True),
        ("We have a privacy policy.", "", False),
        ("Read our Terms of Use.", "", False),
        ("Our cookie policy: none.", "", False),
        ("This site uses cookies.", "", False),
        ("The use of cookies.", "", False),
        ("We use cookies here.", "", False),
        ("We used cookies here.", "We used cookies here.", True),
        ("It was so.[1][22]", "It was so.", True),
        ("It was so. [citation needed]", "It was so.", True),
        ("Early life [edit] [edit]", "Early life", False),
        ("It was so.[a]", "It was so.[a]", False),
        # These pages go as a whole, so that the line must stay for its rule to see.
        ("Lorem ipsum JavaScript dolor.", "Lorem ipsum JavaScript dolor.", True),
        ("We use cookies { here.", "We use cookies { here.", True),
        ("JavaScript is on {", "", False),
    ],
)
def test_c4_lines(line: str, kept: str, kept_as_sentence: bool) -> None:
    assert rules.c4_line(line) == kept
    assert rules.c4_sentence_line(line) == (kept if kept_as_sentence else "")


def run_rules(tmp_path: Path, text: str, preset: str) -> Draft:
    write_shard(tmp_path / "in.parquet", [Draft(text=text, id="old")])
    stages = [("rules", rules.rules)]
    task = Task(input=(tmp_path / "in.parquet", stages), output=tmp_path / "out.parquet")
    stages_file(task, CorpusConfig(rules=preset), lambda position: None)
    (draft,) = read_shard(tmp_path / "out.parquet", kept=False)
    return draft


def test_a_preset_that_cuts_lines_renames_the_document(tmp_path: Path) -> None:
    text = "One two three. Four. Five.[2]\n\nMenu\n\nSix seven eight. Nine. Ten."
    draft = run_rules(tmp_path, text, "c4")
    assert draft.text == "One two three. Four. Five.\n\nSix seven eight. Nine. Ten."
    assert draft.id == document_id(draft.text) and not draft.reason


def test_a_text_that_stays_keeps_its_name_and_spaces(tmp_path: Path) -> None:
    draft = run_rules(tmp_path, "if so:\n    go\n" * 70, "webtext")
    assert draft.text == "if so:\n    go\n" * 70 and draft.id == "old"
    assert draft.reason == "repeated-lines" and draft.detail == "0.986 > 0.5"


def prose_of(n: int) -> list[str]:
    """`n` sentences that pass every rule of every preset."""
    spelt = str.maketrans("0123456789", "abcdefghij")
    parts = [
        (words(6, 20 * i).translate(spelt), words(2, 20 * i + 6).translate(spelt)) for i in range(n)
    ]
    return [f"The {first} of {second} and more." for first, second in parts]


def test_fineweb_judges_the_whole_text_by_gopher_and_what_is_left_by_its_own() -> None:
    good = lines(*prose_of(20))
    assert all(first_broken(preset, good) is None for preset in PRESETS.values())
    menu = lines(*["Log in"] * 9)  # cut by C4's rule of three words, so FineWeb's never see it
    text, broken = judge(PRESETS["fineweb"], f"{menu}\n{good}")
    assert broken is None and text == good
    text, broken = judge(PRESETS["fineweb"], f"{menu}\n{menu}\n{good}")
    assert broken and broken[0] == "duplicate-lines" and text.startswith("Log in")


def test_quick_rules_come_before_those_of_n_grams() -> None:
    for preset in ("gopher", "fineweb"):
        names = list(PRESETS[preset].rules)
        assert all(name.endswith(("-gram", "-grams")) for name in names[-9:])
        assert names[:2] == ["too-few-words", "too-many-words"]


# ---- the kernel and its plain twin ----


def same(text: str) -> None:
    assert Counts._make(kernel.count(text)) == plain_counts(text), text[:80]
    assert kernel.repeats(text) == plain_repeats(text), text[:80]


MARKS = "ab .\n#…”’\"'!?)-•*{\t\r\x1c\x85\u00a0\u2003\u2028éİK½5日😀\0\ud800"


@given(st.text(st.sampled_from(MARKS), max_size=60))
def test_kernel_equals_its_twin_on_marks(text: str) -> None:
    same(text)


@given(st.text(max_size=200))
def test_kernel_equals_its_twin_on_any_text(text: str) -> None:
    same(text)


@given(st.lists(st.sampled_from(["a", "b", "the", "é", "日本"]), max_size=80))
def test_kernel_equals_its_twin_on_repetition(parts: list[str]) -> None:
    same(" ".join(parts))
    same("\n".join(parts))
    same("\n\n".join(parts))


def test_kernel_equals_its_twin_on_news(data_dir: Path) -> None:
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt", encoding="utf-8") as f:
        for line in islice(f, 300):
            same(json.loads(line)["text"])


def test_kernel_wants_a_string() -> None:
    for call in (kernel.count, kernel.repeats):
        with pytest.raises(TypeError, match="string"):
            call(b"bytes")


def test_without_a_kernel_the_twin_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gptwo.native._prose", None)
    monkeypatch.delattr("gptwo.native._prose")
    monkeypatch.setattr(
        "gptwo.corpus.cleaning.prose.plain_repeats", noting(plain_repeats, called := [])
    )
    assert first_broken(PRESETS["fineweb"], lines(*prose_of(20))) is None
    assert called


def noting(call: Callable[[str], object], called: list[str]) -> Callable[[str], object]:
    def noted(text: str) -> object:
        called.append(text)
        return call(text)

    return noted
