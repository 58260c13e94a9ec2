"""How much of a test set stands in a training text: paper section 4, table 6."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwo.corpus.overlap.evaluation import Piece, read_set
from gptwo.corpus.overlap.members import LINES, WORDS, Part, cut
from gptwo.corpus.overlap.ngrams import find
from gptwo.corpus.words import Hashes
from gptwo.errors import DataError

PIECES_AT_ONCE = 4096
ENWIK = (90_000_000, 5_000_000)  # by custom the first 90 million bytes train, the last 5 test

# Training splits beside test files; the first that is there counts.
OWN_TRAIN = {
    "ptb": ("ptb.train.txt",),
    "wikitext2": ("wiki.train.raw", "wiki.train.tokens"),
    "wikitext103": ("../wikitext103/wiki.train.raw", "../wikitext103/wiki.train.tokens"),
}


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """A task's files; examples of one number in several files are one example.

    `train` is its own training split, None where it is not there.
    """

    __test__ = False  # no test of pytest's

    task: str
    files: tuple[Path, ...]

    @property
    def is_one_text(self) -> bool:
        """Whether its end is the test and its beginning the training split."""
        return self.task in ("enwik8", "text8")

    @property
    def train(self) -> Path | None:
        if self.is_one_text:
            return self.files[0]
        near = (self.files[0].parent / name for name in OWN_TRAIN.get(self.task, ()))
        return next((path for path in near if path.exists()), None)


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of each example its number from 1 on, how many n-grams it has, and how many are found."""

    examples: NDArray[np.int64]
    ngrams: NDArray[np.int64]
    found: NDArray[np.int64]

    @property
    def of_each(self) -> NDArray[np.float64]:
        """The share of each example; 0 of those too short for an n-gram."""
        return self.found / np.maximum(self.ngrams, 1)


def shares(test: TestSet, members: Hashes) -> Shares:
    """How much of every example a filter of `members.read_members` holds.

    Raises `DataError` when the set cannot be read or none of its examples has 8 words.
    """
    numbers, ngrams, found = [], [], []
    for column, owners in _columns(_test_pieces(test)):
        grams, counts = find(column, WORDS, members, 1, LINES)
        numbers.append(owners)
        ngrams.append(counts)
        found.append(np.bincount(grams["text"], minlength=len(counts)))
    if not sum(int(counts.sum()) for counts in ngrams):
        raise DataError(
            f"no example of {test.task} has {WORDS} words", remedy="check the file of the set"
        )
    examples, place = np.unique(np.concatenate(numbers), return_inverse=True)
    sums = [np.bincount(place, np.concatenate(part)) for part in (ngrams, found)]
    return Shares(
        examples=examples, ngrams=sums[0].astype(np.int64), found=sums[1].astype(np.int64)
    )


def text_shares(texts: list[str], members: Hashes) -> Shares:
    """The same of texts, numbered from 0 on."""
    grams, counts = find(pa.array(texts, pa.large_string()), WORDS, members, 1, LINES)
    found = np.bincount(grams["text"], minlength=len(texts))
    return Shares(examples=np.arange(len(texts)), ngrams=counts, found=found)


def own_parts(test: TestSet) -> list[Part]:
    """The set's own training split as parts of a training text; empty without one."""
    return [partial(_train_columns, test)] if test.train else []


def _train_columns(test: TestSet) -> Iterator[pa.Array]:
    assert test.train is not None
    pieces = _lines(test, 0, ENWIK[0]) if test.is_one_text else read_set(test.task, test.train)
    for column, _ in _columns(pieces):
        yield from cut(column)


def _test_pieces(test: TestSet) -> Iterator[Piece]:
    if test.is_one_text:
        yield from _lines(test, -ENWIK[1], None)
        return
    for path in test.files:
        yield from read_set(test.task, path)


def _lines(test: TestSet, begin: int, end: int | None) -> Iterator[Piece]:
    text = test.files[0].read_bytes()[begin:end].decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        yield Piece(set=test.task, number=number, text=line, whole=0)


def _columns(pieces: Iterable[Piece]) -> Iterator[tuple[pa.Array, NDArray[np.int64]]]:
    """Columns of texts, and the number of the example that each belongs to."""
    iterator = iter(pieces)
    while batch := list(islice(iterator, PIECES_AT_ONCE)):
        texts = pa.array([piece.text for piece in batch], pa.large_string())
        yield texts, np.array([piece.number for piece in batch], np.int64)
