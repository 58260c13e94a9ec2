"""extract: the measures by hand, and the extractors by the measures on real pages."""

from pathlib import Path

import pytest
import trafilatura
from extraction_metric import (
    PageSet,
    load_sets,
    shingle_counts,
    shingle_score,
    shingles,
    snippet_counts,
    snippet_score,
    text_of_html,
)

from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.extract import extract_text


@pytest.fixture(scope="module")
def sets(data_dir: Path) -> list[PageSet]:
    return load_sets(data_dir)


def test_shingles() -> None:
    assert shingles("a b, c d. e") == {("a", "b", "c", "d"): 1, ("b", "c", "d", "e"): 1}
    assert shingles("a a a a a") == {("a", "a", "a", "a"): 2}
    assert shingles("only three words") == {("only", "three", "words"): 1}
    assert shingles(" .!? ") == {}


def test_shingle_score_by_hand() -> None:
    assert shingle_counts("a b c d e", "b c d e f g") == (1, 1, 2)  # bcde | abcd | cdef, defg
    assert shingle_counts("a a a a a", "a a a a") == (1, 1, 0)  # a multiset
    assert shingle_counts("", "a b c d") == (0, 0, 1)
    # precision (1/2 + 2/2) / 2, recall (1/3 + 2/4 + 0) / 3: the empty page has no precision
    score = shingle_score([(1, 1, 2), (2, 0, 2), (0, 0, 5)])
    assert score.precision == pytest.approx(3 / 4)
    assert score.recall == pytest.approx(5 / 18)
    assert score.f1 == pytest.approx(2 * (3 / 4) * (5 / 18) / (3 / 4 + 5 / 18))
    assert shingle_score([(0, 0, 1)]).f1 == 0


def test_snippet_score_by_hand() -> None:
    found = "The first\n\nparagraph. An advertisement."
    passages = ["first paragraph", "second"], ["An  advertisement", "Share this"]
    assert snippet_counts(found, passages) == (1, 1, 1, 1)
    score = snippet_score([(1, 1, 1, 1), (3, 0, 0, 2)])
    assert (score.precision, score.recall) == (4 / 5, 4 / 5)
    assert score.f1 == pytest.approx(4 / 5) and score.accuracy == pytest.approx(7 / 9)


def test_text_of_html() -> None:
    text = text_of_html("<div><p>one</p><p>t<b>w</b>o</p>three<br>four</div>")
    assert text.split() == ["one", "two", "three", "four"]


def test_the_interval_holds_the_score() -> None:
    pages = [(b"", "a b c d e"), (b"", "v w x y z"), (b"", "k l m n")]
    made = PageSet(name="", pages=pages, count=shingle_counts, measure=shingle_score)
    score = made.score(["a b c d e", "v w x y", "k l m n o p"], draws=200)
    low, high = score.interval
    assert low < score.f1 < high == 1


def test_the_sets_are_whole(sets: list[PageSet]) -> None:
    assert [(s.name, len(s.pages)) for s in sets] == [
        ("article", 91),
        ("trafilatura", 495),
        ("readability", 65),
    ]
    perfect = sets[0].score([truth for _, truth in sets[0].pages], draws=20)
    assert (perfect.f1, perfect.interval) == (1, (1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "step", "least"),
    [(0, 2, 0.97), (1, 9, 0.91), (2, 2, 0.92)],
    ids=["article", "trafilatura", "readability"],
)
def test_quality_finds_at_least_what_trafilatura_finds(
    sets: list[PageSet], number: int, step: int, least: float
) -> None:
    """A sample; benchmarks/extract.py takes all pages."""
    few = sets[number].sample(step)
    ours = few.score([extract_text(decode(page)) for page, _ in few.pages], draws=1)
    texts = [trafilatura.extract(page, fast=True, include_comments=False) for page, _ in few.pages]
    theirs = few.score([text or "" for text in texts], draws=1)
    assert ours.f1 >= theirs.f1
    assert ours.f1 > least
