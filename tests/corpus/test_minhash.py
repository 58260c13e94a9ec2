"""The MinHash kernel against its plain twin: the same bits for any text."""

import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.corpus.duplicates import minhash
from gptwo.corpus.duplicates.minhash import (
    BANDS,
    normalise,
    plain_sketch,
    shingle_sets,
    shingles,
    sketch,
)

# Separators, digits, marks; letters whose lower case is longer, shorter, ASCII or elsewhere.
PIECES = st.sampled_from(
    "aZ_ \n.'70\0\x7f\x80éÉßẞİıΣσς\u212a\u212bȺﬁǅ\u0307\u2019\ufffd中अि𝔘𐐀🙂٣²\U0010ffff"
)
CHARACTERS = st.characters(blacklist_categories=["Cs"])
TEXTS = st.lists(
    st.lists(PIECES | CHARACTERS, max_size=60).map("".join) | st.text(CHARACTERS), max_size=6
)


@pytest.fixture(scope="module")
def kernel() -> object:
    return pytest.importorskip("gptwo.native._minhash")


def strings(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def check_equal(texts: list[str]) -> None:
    ours, twins = sketch(strings(texts)), plain_sketch(strings(texts))
    for one, two in zip(ours, twins, strict=True):
        assert one.dtype == two.dtype and np.array_equal(one, two)
    sets = shingle_sets(strings(texts))
    assert len(sets) == len(texts)
    for one, text in zip(sets, texts, strict=True):
        assert np.array_equal(one, shingles(text))


@settings(deadline=None)
@given(TEXTS)
def test_the_kernel_equals_its_twin(kernel: object, texts: list[str]) -> None:
    check_equal(texts)


def test_every_character_is_folded_as_the_twin_folds_it(kernel: object) -> None:
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    text = " ".join(f"x{chr(code)}y" for code in codes)
    (found,) = shingle_sets(strings([text]))
    assert np.array_equal(found, shingles(text))
    assert len(found) > 100_000


@pytest.mark.parametrize("words", [1, 4, 5, 6, 1023, 1027, 1028, 1029, 1032, 2052, 2053, 5000])
def test_texts_of_any_length(kernel: object, words: int) -> None:
    check_equal([" ".join(f"w{i * i % 997}" for i in range(words)), "x" * words])


def test_without_the_kernel_the_twin_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = strings(["One two three four five six.", "", "...", "seven"])
    keys, has_words = sketch(texts)
    sets = shingle_sets(texts)
    monkeypatch.setattr(minhash, "_kernel", lambda: None)
    assert np.array_equal(sketch(texts)[0], keys) and keys.shape == (4, BANDS)
    assert has_words.tolist() == sketch(texts)[1].tolist() == [True, False, False, True]
    assert not keys[1:3].any()
    for one, two in zip(sets, shingle_sets(texts), strict=True):
        assert np.array_equal(one, two)


def test_columns_may_be_slices_or_empty(kernel: object) -> None:
    texts = [f"text number {i} of a few more words" for i in range(9)]
    whole, _ = sketch(strings(texts))
    part, has_words = sketch(strings(texts).slice(3, 4))
    assert np.array_equal(part, whole[3:7]) and has_words.all()
    assert sketch(strings([]))[0].shape == (0, BANDS) and shingle_sets(strings([])) == []
    assert sketch(strings(texts).slice(9))[0].shape == (0, BANDS)


@given(st.lists(st.binary(max_size=40) | st.just(b"caf\xc3 \xf0\x9f\xff\xe4\xb8"), max_size=5))
def test_bytes_that_are_not_utf8_part_words(kernel: object, texts: list[bytes]) -> None:
    data = b"".join(texts)
    edges = np.array([0, *accumulate(map(len, texts))], np.int64)
    keys, sizes = kernel.sketch(data, edges, minhash.functions())  # type: ignore[attr-defined]
    hashes, ends = kernel.shingles(data, edges)  # type: ignore[attr-defined]
    counts = np.frombuffer(sizes, np.int64)
    assert len(keys) == len(texts) * BANDS * 8
    assert counts.cumsum().tolist() == np.frombuffer(ends, np.int64).tolist()
    assert len(hashes) == counts.sum() * 8
    for text, count in zip(texts, counts, strict=True):
        if text.isascii():
            words = len(normalise(text.decode()).split())
            assert count == (max(words - 4, 1) if words else 0)


@pytest.mark.parametrize("edges", [[], [-1, 2], [0, 9], [2, 1, 3]])
def test_offsets_that_do_not_fit_are_refused(kernel: object, edges: list[int]) -> None:
    offsets = np.array(edges, np.int64)
    with pytest.raises(ValueError, match="do not agree"):
        kernel.sketch(b"abcd", offsets, minhash.functions())  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="do not agree"):
        kernel.shingles(b"abcd", offsets)  # type: ignore[attr-defined]


def test_hash_functions_of_another_number_are_refused(kernel: object) -> None:
    with pytest.raises(ValueError, match="112 factors"):
        kernel.sketch(b"a", np.array([0, 1]), minhash.functions()[:, 1:].copy())  # type: ignore[attr-defined]


def test_threads_do_not_meet(kernel: object) -> None:
    columns = [strings([f"words of {n} and {i} or so" for i in range(200)]) for n in range(16)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(sketch, columns))
    for (keys, _), column in zip(together, columns, strict=True):
        assert np.array_equal(keys, sketch(column)[0])


def test_letters_fold_without_their_neighbours() -> None:
    assert normalise("ΟΔΟΣ ὀδός") == normalise("οδοσ ὀδόσ")
    assert normalise("İstanbul, DON’T") == "istanbul don t"
