"""Training texts as filters, and how much of a test set they hold."""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.corpus.overlap import members as members_module
from gptwo.corpus.overlap.members import (
    BITS,
    LINES,
    WORDS,
    Members,
    check_filter,
    cut,
    most_members,
    read_members,
)
from gptwo.corpus.overlap.ngrams import find
from gptwo.corpus.overlap.shares import TestSet, own_parts, shares, text_shares
from gptwo.corpus.words import normalise
from gptwo.errors import DataError, Interrupted, ResourceError
from gptwo.progress import Reporter

VOCABULARY = [f"w{n}" for n in range(3000)]


def strings(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


def column(texts: list[str]) -> Iterator[pa.Array]:
    yield from cut(strings(texts))


def salad(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(VOCABULARY, k=words))


def made(texts: list[str], work: Path, parts: int = 1, threads: int = 1) -> Members:
    work.mkdir(parents=True, exist_ok=True)
    each = [partial(column, texts[number::parts]) for number in range(parts)]
    return read_members(each, work, title="the text", documents=len(texts), threads=threads)


def grams_of(text: str) -> list[str]:
    words = normalise(text).split()
    return [" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from("ab"), max_size=30).map(" ".join), min_size=1, max_size=8),
    st.lists(st.lists(st.sampled_from("ab"), max_size=30).map(" ".join), min_size=1, max_size=8),
)
def test_shares_are_those_of_a_plain_set(
    tmp_path_factory: pytest.TempPathFactory, train: list[str], test: list[str]
) -> None:
    """Beside Python's own sets of strings; two words make many n-grams recur."""
    train = [*train, "a b " * 6]
    held = made(train, tmp_path_factory.mktemp("work"))
    truth = {gram for text in train for gram in grams_of(text)}
    found = text_shares(test, held.filter)
    assert found.ngrams.tolist() == [len(grams_of(text)) for text in test]
    assert found.found.tolist() == [sum(g in truth for g in grams_of(text)) for text in test]
    assert held.distinct_ngrams == len(truth)
    assert held.ngrams == sum(len(grams_of(text)) for text in train)
    assert held.bytes == sum(len(text) for text in train) and held.documents == len(train)


def test_words_are_compared_in_lower_case_whatever_stands_between(tmp_path: Path) -> None:
    held = made(["One, two; THREE four -- five\nsix (seven) eight nine."], tmp_path)
    found = text_shares(
        ["one two three four five six seven eight", "two Three four FIVE six seven eight... NINE!"],
        held.filter,
    )
    assert found.of_each.tolist() == [1.0, 1.0]


def test_a_million_random_strings_pass_no_filter_at_its_size(tmp_path: Path) -> None:
    """The paper's bound of 1 in 10^8, by the bits; and its own test, on two kinds of strings."""
    chance = random.Random(1)
    held = made([salad(chance, 1000) for _ in range(400)], tmp_path)
    assert 390_000 < held.distinct_ngrams < 405_000
    facts = check_filter(held.filter)
    assert facts["false_positive_rate"] <= 1e-8
    assert (facts["random_strings"], facts["random_strings_found"]) == (1_000_000, 0)
    others = strings([salad(random.Random(n), 1007) for n in range(2, 252)])  # of its own words
    grams, counts = find(others, WORDS, held.filter, 1, LINES)
    assert counts.sum() == 250_000 and len(grams) == 0


def test_the_estimate_leaves_room_for_its_own_error(tmp_path: Path) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        texts = [salad(chance, 500) for _ in range(200)] * 2  # each twice
        held = made(texts, tmp_path / str(seed))
        truth = 200 * (500 - WORDS + 1)
        assert held.ngrams == 2 * truth
        assert abs(held.distinct_ngrams - truth) < 4 * (256 * truth) ** 0.5
        assert most_members(held.distinct_ngrams) >= truth
        assert held.filter.nbytes * 8 <= most_members(held.distinct_ngrams) * BITS + 512


def test_threads_and_parts_change_nothing(tmp_path: Path) -> None:
    chance = random.Random(3)
    texts = [salad(chance, chance.randrange(0, 900)) for _ in range(300)]
    one = made(texts, tmp_path / "one")
    for number, (parts, threads) in enumerate(((1, 2), (3, 1), (7, 4))):
        other = made(texts, tmp_path / str(number), parts, threads)
        assert np.array_equal(one.filter, other.filter)
        assert (one.ngrams, one.bytes, one.documents) == (
            other.ngrams,
            other.bytes,
            other.documents,
        )


class _StopsAfter(Reporter):
    """Asks to stop at its nth look."""

    def __init__(self, looks: int) -> None:
        super().__init__(quiet=True)
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        self.stop_requested = self.looks < 0
        super().check()


def test_stopped_anywhere_it_ends_in_the_same_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "BATCH_BYTES", 4_000)
    chance = random.Random(4)
    texts = [salad(chance, 300) for _ in range(60)]
    whole, work = made(texts, tmp_path / "whole", parts=5), tmp_path / "work"
    work.mkdir()
    parts = [partial(column, texts[number::5]) for number in range(5)]
    stops, again = 0, whole
    for looks in range(3, 1000, 11):
        try:
            again = read_members(parts, work, title="it", reporter=_StopsAfter(looks))
            break
        except Interrupted:
            stops += 1
    assert stops >= 2 and again is not whole and np.array_equal(again.filter, whole.filter)
    assert (again.ngrams, again.bytes, again.documents) == (whole.ngrams, whole.bytes, 60)


def test_a_filter_saved_without_its_counts_is_filled_again_to_the_same(tmp_path: Path) -> None:
    """As after a kill between the two files."""
    texts = [salad(random.Random(n), 200) for n in range(30)]
    whole = made(texts, tmp_path, parts=3)
    counts = json.loads((tmp_path / "filled.json").read_text())
    (tmp_path / "filled.json").write_text(json.dumps({**dict.fromkeys(counts, 0)}))
    again = made(texts, tmp_path, parts=3)
    assert np.array_equal(again.filter, whole.filter) and again.ngrams == whole.ngrams


def test_what_does_not_fit_memory_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members_module, "free_bytes", lambda: 100)
    with pytest.raises(ResourceError, match="MB are free"):
        made([salad(random.Random(5), 500)], tmp_path)
    assert not (tmp_path / "filled.json").exists()


def test_a_text_of_few_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text of 8 words"):
        made(["too few words", ""], tmp_path)


def test_an_example_is_all_its_pieces_in_all_its_files(tmp_path: Path) -> None:
    known = "here are eight words that the corpus holds"
    held = made([known], tmp_path / "work")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(json.dumps({"text": known.title() + "!"}) + "\n" + json.dumps({"text": "a b"}))
    two.write_text(
        json.dumps({"text": "other words of which the corpus has never ever heard"})
        + "\n"
        + json.dumps({"text": "and some more that are not in it at all"})
    )
    found = shares(TestSet(task="it", files=(one, two)), held.filter)
    assert found.examples.tolist() == [1, 2]
    assert found.ngrams.tolist() == [1 + 3, 3] and found.found.tolist() == [1, 0]
    with pytest.raises(DataError, match="8 words"):
        one.write_text('{"text": "a few words"}\n')
        shares(TestSet(task="it", files=(one,)), held.filter)


def test_coqa_counts_its_story_once(tmp_path: Path) -> None:
    story = "the cat sat on the mat and then it went to the barn"
    turn = {"input_text": "where did the cat sit down first of all", "span_text": story}
    path = tmp_path / "coqa.json"
    path.write_text(
        json.dumps({"data": [{"story": story, "questions": [turn], "answers": [turn]}]})
    )
    held = made([story], tmp_path / "work")
    found = shares(TestSet(task="coqa", files=(path,)), held.filter)
    assert found.ngrams.tolist() == [6 + 2 + 2] and found.found.tolist() == [6]


def test_a_training_split_beside_the_test_is_found_and_read(tmp_path: Path) -> None:
    test, train = tmp_path / "ptb.test.txt", tmp_path / "ptb.train.txt"
    test.write_text(
        " one two three four five six seven eight \n nothing of it is there at all no \n"
    )
    assert TestSet(task="ptb", files=(test,)).train is None
    train.write_text(" zero one two three four five six seven eight nine \n")
    own = TestSet(task="ptb", files=(test,))
    assert own.train == train
    (tmp_path / "work").mkdir()
    held = read_members(own_parts(own), tmp_path / "work", title="ptb")
    found = shares(own, held.filter)
    assert found.ngrams.tolist() == [1, 1] and found.found.tolist() == [1, 0]


def test_of_one_text_the_end_is_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptwo.corpus.overlap.shares.ENWIK", (60, 50))
    words = "aaa bbb ccc ddd eee fff ggg hhh iii "
    path = tmp_path / "text8"
    path.write_text(words + " " * 40 + words[: len(words) // 2] + "xxx")
    text8 = TestSet(task="text8", files=(path,))
    (tmp_path / "work").mkdir()
    held = read_members(own_parts(text8), tmp_path / "work", title="text8")
    assert held.ngrams == 2
    with pytest.raises(DataError, match="8 words"):
        shares(text8, held.filter)
    path.write_text(words + " " * 40 + words)
    assert shares(text8, held.filter).of_each.tolist() == [1.0]
