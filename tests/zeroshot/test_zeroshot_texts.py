"""De-tokenisers undo themselves; sentences, intervals and baselines by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from gptwo.zeroshot.baselines import (
    Trigram,
    compressed_bits_per_byte,
    content_words,
    last_seen,
    most_frequent,
)
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.detokenize import NEWS, PTB, WIKITEXT, Rules, detokenize, restore
from gptwo.zeroshot.intervals import bootstrap, perplexity, wilson
from gptwo.zeroshot.words import sentences


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (WIKITEXT, " \n = = Career = = \n", "\n== Career ==\n"),
        (
            WIKITEXT,
            " a guest @-@ starring role , in 1 @,@ 200 ; \n",
            "a guest-starring role, in 1,200;\n",
        ),
        (WIKITEXT, ' He said " no , \'s " and " yes " . \n', 'He said "no,\'s" and "yes".\n'),
        (WIKITEXT, " Teddy 's ( $ 5 ) at 3 @.@ 5 % \n", "Teddy's ($5) at 3.5%\n"),
        (WIKITEXT, ' an odd " mark \n', 'an odd " mark\n'),
        (PTB, " it was n't $ N at cities\\/abc 's \n", "it wasn't $N at cities/abc's\n"),
        (PTB, " the traders ' <unk> \n they 're \n", "the traders' <unk>\nthey're\n"),
        (
            NEWS,
            "It \" did n't , 's \" cost $ 7.3bn ( 5 % ) ...\n",
            "It \"didn't,'s\" cost $7.3bn (5%)...\n",
        ),
        (NEWS, "John O 'Shea 's boys ' club / hall .\n", "John O'Shea's boys' club/hall.\n"),
    ],
)
def test_detokenisers_by_hand(rules: Rules, text: str, expected: str) -> None:
    plain, edits = detokenize(text, rules)
    assert plain == expected
    assert restore(plain, edits) == text


@pytest.mark.parametrize("rules", [WIKITEXT, PTB, NEWS])
@pytest.mark.parametrize("text", ["", " ", "\n", '" "', " ( ) ", "= = =", " @-@ @-@ ", "\\/ n't"])
def test_detokenisers_undo_odd_texts(rules: Rules, text: str) -> None:
    assert restore(*detokenize(text, rules)) == text


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("wikitext2/wiki.test.raw", WIKITEXT),
        ("wikitext2/wiki.test.tokens", WIKITEXT),
        ("wikitext2/wiki.valid.tokens", WIKITEXT),
        ("ptb/ptb.test.txt", PTB),
        ("ptb/ptb.valid.txt", PTB),
    ],
)
def test_every_line_of_the_real_files_comes_back(data_dir: Path, name: str, rules: Rules) -> None:
    text = (data_dir / "eval" / name).read_bytes().decode()
    plain, edits = detokenize(text, rules)
    assert restore(plain, edits) == text
    assert len(plain) < 0.985 * len(text)
    for line in text.splitlines(keepends=True):
        assert restore(*detokenize(line, rules)) == line


def test_every_line_of_the_news_that_is_here_comes_back(data_dir: Path) -> None:
    lines = []
    for path in sorted((data_dir / "eval/format_samples/lm1b").iterdir()):
        lines += path.read_text(encoding="utf-8").split("\n")
    for line in lines:
        plain, edits = detokenize(line, NEWS)
        assert restore(plain, edits) == line and " ." not in plain and " ," not in plain
    assert len(lines) > 30


def test_sentences_end_where_they_should() -> None:
    text = 'Mr. Smith of the U. S. came at 3.5. "Why?" he said. So it was!\n\nA new one'
    assert [text[a:b] for a, b in sentences(text)] == [
        "Mr. Smith of the U. S. came at 3.5.",
        '"Why?" he said.',
        "So it was!",
        "A new one",
    ]
    assert sentences("") == [] and sentences(" \n ") == []


def test_wilson_by_hand() -> None:
    interval = wilson(8, 10)  # (0.8 + 0.19207 +- 1.96 sqrt(0.016 + 0.0096036)) / 1.38415
    assert (interval.low, interval.high) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert (wilson(0, 10).low, wilson(10, 10).high) == (0, 1)
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def test_bootstrap_holds_the_value_and_repeats() -> None:
    nats, units = [2.0, 4.0, 3.0, 5.0] * 30, [1.0, 2.0, 1.0, 2.0] * 30
    first = bootstrap(nats, units, math.exp, resamples=300, seed=1)
    assert first == bootstrap(nats, units, math.exp, resamples=300, seed=1)
    assert first != bootstrap(nats, units, math.exp, resamples=300, seed=2)
    assert first.low < math.exp(14 / 6) < first.high
    same = bootstrap([2.0] * 9, [1.0] * 9, math.exp, resamples=10, seed=0)
    assert same.low == same.high == pytest.approx(math.exp(2))
    assert math.isfinite(perplexity(1e9))


def test_trigram_by_hand() -> None:
    trigram = Trigram.learn(["a b a b a c a b", "a c"])
    # words: a b a b a c a b a c. unigram: (count + 1) / (10 + 4): unknown 1, a 6, b 4, c 3
    assert trigram.vocabulary == ["<unknown>", "a", "b", "c"]
    np.testing.assert_allclose(trigram.distribution([]), np.array([1, 6, 4, 3]) / 14)
    # after "a": b 3, c 2, two kinds: (count + 2 p) / 7
    after_a = np.array([2 / 14, 12 / 14, 3 + 8 / 14, 2 + 6 / 14]) / 7
    np.testing.assert_allclose(trigram.distribution(["a"]), after_a)
    # after "c a": b 1, one kind: (count + p) / 2
    np.testing.assert_allclose(trigram.distribution(["c", "a"]), (after_a + np.eye(4)[2]) / 2)
    # a history never seen changes nothing
    np.testing.assert_allclose(trigram.distribution(["b", "c"]), trigram.distribution(["c"]))
    for context in ([], ["a"], ["c", "a"], ["zebra", "a"], ["a", "zebra"]):
        assert trigram.distribution(context).sum() == pytest.approx(1)
    assert trigram.log_probability(["b", "a"], ["c", "a"]) == pytest.approx(
        math.log(trigram.distribution(["c", "a"])[2] * trigram.distribution(["a", "b"])[1])
    )
    assert Trigram.learn([]).best(["x"]) == "<unknown>"


def test_counting_baselines() -> None:
    seen = content_words("The cat saw the dog. The dog saw Robert's cat, and ran.")
    assert seen == ["cat", "saw", "dog", "dog", "saw", "robert's", "cat", "ran"]
    assert most_frequent(seen) == "cat"  # cat, saw and dog twice; cat was seen last
    assert most_frequent([]) == ""
    assert last_seen("a dog, a dogma, a dog!", "dog") == 18 and last_seen("dogma", "dog") == -1
    assert compressed_bits_per_byte(b"a" * 10_000) < 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": -1},
        {"token_budget": 0},
        {"resamples": 0},
        {"window": 4, "stride": 5},
        {"mode": "other"},
    ],
)
def test_settings_out_of_range_are_named(wrong: dict) -> None:
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        EvalConfig(**wrong)
