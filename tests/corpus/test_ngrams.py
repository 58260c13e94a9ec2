"""The n-gram kernel against its plain twin, and what a filter may be wrong about."""

import sys
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.corpus.overlap import ngrams
from gptwo.corpus.overlap.ngrams import (
    GRAM,
    false_positive_rate,
    fill,
    find,
    make_filter,
    phrases,
    plain_fill,
)
from gptwo.corpus.words import normalise

CHARACTERS = st.characters(blacklist_categories=["Cs"])
PIECES = st.sampled_from("aZ_ \n.'70\0\x7f\x80éÉßẞİıΣσς\u212aȺﬁǅ\u0307\u2019\ufffd中अि𝔘𐐀🙂٣²")
TEXTS = st.lists(
    st.lists(PIECES | CHARACTERS, max_size=80).map("".join) | st.text(CHARACTERS), max_size=5
)


@pytest.fixture(scope="module")
def kernel() -> Any:
    return pytest.importorskip("gptwo.native._ngrams")


def strings(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def without_kernel(call: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ngrams, "_kernel", lambda: None)
        return call()


@settings(deadline=None)
@given(TEXTS, st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(1, 5))
def test_the_kernel_equals_its_twin(
    kernel: Any, texts: list[str], words: int, every: int, filtered: bool, lines: int
) -> None:
    column = strings(texts)
    members = make_filter(40)
    fill(members, find(column, words)[0]["hash"][::2], lines)
    held = members if filtered else members[:0]
    ours = find(column, words, held, every, lines)
    twins = without_kernel(lambda: find(column, words, held, every, lines))
    assert ours[0].dtype == twins[0].dtype == GRAM
    assert np.array_equal(ours[0], twins[0]) and np.array_equal(ours[1], twins[1])
    for one, two in zip(phrases(column), without_kernel(lambda: phrases(column)), strict=True):
        assert np.array_equal(one, two)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 5))
def test_an_ngram_is_the_words_between_its_ends(texts: list[str], words: int) -> None:
    found, counts = find(strings(texts), words)
    whole = [normalise(text).split() for text in texts]
    assert counts.tolist() == [max(len(each) - words + 1, 0) for each in whole]
    for gram in found:
        text, place = texts[gram["text"]].encode(), gram["word"]
        piece = text[gram["begin"] : gram["end"]].decode()
        assert normalise(piece).split() == whole[gram["text"]][place : place + words]
        assert normalise(piece[0]) and normalise(piece[-1])  # nothing but the words


def test_every_character_parts_words_as_the_twin_does(kernel: Any) -> None:
    codes = [code for code in range(0x20000) if not 0xD800 <= code < 0xE000]  # few letters above
    column = strings([" ".join(f"x{chr(code)}y" for code in [*codes, sys.maxunicode])])
    ours, twins = find(column, 3), without_kernel(lambda: find(column, 3))
    assert np.array_equal(ours[0], twins[0]) and len(ours[0]) > 100_000


def test_equal_words_are_equal_phrases_and_others_are_not() -> None:
    texts = ["One two, three!", "one TWO\nthree", "one two", "two one three", "", " .. "]
    hashes, counts = phrases(strings(texts))
    assert counts.tolist() == [3, 3, 2, 3, 0, 0]
    assert hashes[0] == hashes[1] and len(set(hashes.tolist())) == 4


def test_a_filter_holds_its_members_and_few_others(kernel: Any) -> None:
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 1 << 64, 250_000, dtype=np.uint64)
    members, others = hashes[:50_000], hashes[50_000:]
    held = make_filter(len(members))
    fill(held, members)
    twin = make_filter(len(members))
    plain_fill(twin, members)
    assert np.array_equal(held, twin) and held.nbytes < 1.6 * len(members)
    assert ngrams._held(held, members, 1).all()
    assert ngrams._held(held, others, 1).mean() < 0.006  # .0045 expected: 5 sigma are .0008
    assert false_positive_rate(held, 1) == pytest.approx(0.0044, rel=0.05)


def test_the_rate_of_a_filter_is_that_of_its_bits(kernel: Any) -> None:
    """Filled so full that one in 50 passes, so that 200,000 tell whether the rate is right."""
    chance = np.random.default_rng(1)
    hashes = chance.integers(0, 1 << 64, 250_000, dtype=np.uint64)
    members, others = hashes[:50_000], hashes[50_000:]
    held, twin = make_filter(len(members), 20), make_filter(len(members), 20)
    fill(held, members, 4)
    plain_fill(twin, members, 4)
    assert np.array_equal(held, twin)
    rate, found = false_positive_rate(held, 4), ngrams._held(held, others, 4).mean()
    assert found == pytest.approx(rate, abs=5 * (rate / len(others)) ** 0.5) and rate > 1e-4


@given(st.lists(st.binary(max_size=40) | st.just(b"caf\xc3 \xf0\x9f\xff\xe4\xb8"), max_size=5))
def test_bytes_that_are_not_utf8_are_survived(kernel: Any, texts: list[bytes]) -> None:
    edges = np.array([0, *accumulate(map(len, texts))], np.int64)
    found, counts = kernel.find(b"".join(texts), edges, 2, b"", 1, 1)
    assert len(found) == np.frombuffer(counts, np.int64).sum() * GRAM.itemsize
    for gram in np.frombuffer(found, GRAM):
        assert 0 <= gram["begin"] < gram["end"] <= len(texts[gram["text"]])


def test_what_does_not_fit_is_refused(kernel: Any) -> None:
    edges = np.array([0, 4], np.int64)
    for bad in ([], [-1, 2], [0, 9], [2, 1, 3]):
        with pytest.raises(ValueError, match="do not agree"):
            kernel.find(b"abcd", np.array(bad, np.int64), 2, b"", 1, 1)
        with pytest.raises(ValueError, match="do not agree"):
            kernel.phrases(b"abcd", np.array(bad, np.int64))
    for words, every in ((0, 1), (65, 1), (2, 0)):
        with pytest.raises(ValueError, match="1 to 64 words"):
            kernel.find(b"abcd", edges, words, b"", every, 1)
    with pytest.raises(ValueError, match="lines at least 1"):
        kernel.find(b"abcd", edges, 2, b"", 1, 0)
    with pytest.raises(ValueError, match="no line"):
        kernel.fill(bytearray(64), np.zeros(1, np.uint64), 0)
    for filters in (bytes(63), bytes(65)):
        with pytest.raises(ValueError, match="64 bytes"):
            kernel.find(b"abcd", edges, 2, filters, 1, 1)
    with pytest.raises(ValueError, match="64 bytes"):
        kernel.fill(bytearray(8), np.zeros(1, np.uint64), 1)
    with pytest.raises(ValueError, match="empty filter"):
        kernel.fill(bytearray(), np.zeros(1, np.uint64), 1)
    with pytest.raises(TypeError):
        kernel.fill(bytes(64), np.zeros(1, np.uint64), 1)


def test_columns_may_be_slices_or_empty() -> None:
    texts = [f"text number {i} of a few more words" for i in range(9)]
    whole, _ = find(strings(texts), 3)
    part, counts = find(strings(texts).slice(3, 4), 3)
    chosen = whole[(whole["text"] >= 3) & (whole["text"] < 7)]
    assert np.array_equal(part["hash"], chosen["hash"]) and counts.tolist() == [6] * 4
    assert len(find(strings([]), 3)[0]) == 0 and len(find(strings(texts).slice(9), 3)[1]) == 0
