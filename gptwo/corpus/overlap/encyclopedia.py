"""What share of a text a Wikipedia dump holds: an index of its word 8-grams, and the asking.

The index is a filter of hashes that every worker maps into memory. Of a large dump only every n-th
hash is in it (and only those of a text are asked), so that it stays under 1 GB whatever the dump.
One hash in 200 passes the filter by chance; in all, one in 100 of unrelated prose is held. A text
is judged by 6 held ones or more: that 6 of 30 are (a share of 0.2) happens to one in a million.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gptwo.artifacts import atomic_write, read_json, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.overlap.dump import REMEDY, read_articles
from gptwo.corpus.overlap.ngrams import fill, find, make_filter
from gptwo.corpus.words import Hashes
from gptwo.errors import DataError
from gptwo.pool import Task
from gptwo.streams import MAGIC

WORDS = 8  # of an n-gram: what the paper measures overlap with
LEAST = 6  # n-grams that must be held before a text is judged
MOST = 450_000_000  # n-grams in the index, 1.5 bytes each ...
MOST_TITLED = 8_000_000  # ... of which so many say which article they are from, 12 bytes each
ARTICLES_AT_ONCE = 64
_DENSITY = {True: 0.28, False: 0.08}  # words in a byte of a dump, compressed or not (measured)
_ARTICLES = pa.schema([("title", pa.string()), ("hashes", pa.large_binary())])


@dataclass(frozen=True, kw_only=True)
class Encyclopedia:
    """The n-grams of a dump whose hashes are multiples of `every`; of some it knows the article."""

    every: int
    members: Hashes
    titled: Hashes  # sorted: n-grams of which it knows the article ...
    articles: NDArray[np.uint32]  # ... and which
    titles: pa.Table


def sampling(dumps: list[Path]) -> int:
    """One in how many hashes is enough to go through, by the sizes of the files."""
    words = 0.0
    for path in dumps:
        with path.open("rb") as file:
            head = file.read(8)
        words += path.stat().st_size * _DENSITY[head.startswith(tuple(MAGIC))]
    return int(words) // MOST + 1


def articles_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Titles and hashes of the articles of one dump; `task.input` is (dump, every)."""
    path, every = task.input
    count = 0
    with (
        atomic_write(task.output) as handle,
        pq.ParquetWriter(handle, _ARTICLES, compression="none") as out,
    ):
        for articles in _batches(read_articles(path)):
            at(count)
            count += len(articles)
            texts = pa.array([text for _, text in articles], pa.large_string())
            grams, counts = find(texts, WORDS, every=every)
            ends = np.concatenate((np.zeros(1, np.int64), counts.cumsum() * 8))
            values = np.ascontiguousarray(grams["hash"])
            packed = [None, pa.py_buffer(ends), pa.py_buffer(values)]
            hashes = pa.Array.from_buffers(pa.large_binary(), len(articles), packed)
            titles = pa.array([title for title, _ in articles], pa.string())
            out.write_table(pa.table([titles, hashes], _ARTICLES))
    if not count:
        raise DataError(f"{path} holds no article", remedy=REMEDY)


def _batches(articles: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    while batch := list(islice(articles, ARTICLES_AT_ONCE)):
        yield batch


def encyclopedia_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Make the index; `task.input` is (tables of articles, every). The output, JSON, comes last."""
    tables, every = task.input
    total = sum(len(hashes) for _, hashes in _hashes(tables, 1))
    every *= total // MOST + 1
    count = sum(len(hashes) for _, hashes in _hashes(tables, every))
    members, rarity = make_filter(count), np.uint64(every * (count // MOST_TITLED + 1))
    titled, articles = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
    for article, hashes in _hashes(tables, every):
        at(article)
        fill(members, hashes)
        titled.append(hashes[hashes % rarity == 0])
        articles.append(np.full(len(titled[-1]), article, np.uint32))
    known, owner = np.concatenate(titled), np.concatenate(articles)
    order = np.argsort(known, kind="stable")
    folder = task.output.parent
    arrays = {"members": members, "titled": known[order], "articles": owner[order]}
    for name, array in arrays.items():
        with atomic_write(folder / f"{name}.npy") as handle:
            np.save(handle, array)
    schema = _ARTICLES.remove(1)
    with atomic_write(folder / "titles.arrow") as handle, pa.ipc.new_file(handle, schema) as out:
        for path in tables:
            for batch in pq.ParquetFile(path).iter_batches(columns=["title"]):
                out.write_batch(batch)
    write_json(task.output, {"every": every, "ngrams": count})


def _hashes(tables: list[Path], every: int) -> Iterator[tuple[int, Hashes]]:
    """Number and hashes of every article, of which only the multiples of `every`."""
    number = 0
    for path in tables:
        for batch in pq.ParquetFile(path).iter_batches(ARTICLES_AT_ONCE, columns=["hashes"]):
            for value in batch["hashes"]:
                hashes = np.frombuffer(value.as_buffer(), np.uint64)
                yield number, hashes[hashes % np.uint64(every) == 0]
                number += 1


def open_encyclopedia(path: Path) -> Encyclopedia:
    """The index that `encyclopedia_file` made at `path`, mapped into memory."""
    return _open(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _open(path: Path, stamp: int) -> Encyclopedia:
    names = ("members", "titled", "articles")
    arrays = {name: np.load(path.with_name(f"{name}.npy"), mmap_mode="r") for name in names}
    titles = pa.ipc.open_file(pa.memory_map(str(path.with_name("titles.arrow")))).read_all()
    return Encyclopedia(every=read_json(path)["every"], titles=titles, **arrays)


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How much of a text a dump holds."""

    share: float  # of its n-grams; 0 where fewer than 6 are held
    asked: int
    hashes: Hashes  # those that are held


def overlaps(texts: list[str], known: Encyclopedia) -> list[Overlap]:
    """How much of each text a dump holds."""
    found, asked = find(pa.array(texts, pa.large_string()), WORDS, known.members, known.every)
    edges = np.searchsorted(found["text"], np.arange(len(texts) + 1)).tolist()
    return [
        Overlap(
            share=(end - start) / count if end - start >= LEAST else 0.0,
            asked=count,
            hashes=found["hash"][start:end],
        )
        for (start, end), count in zip(pairwise(edges), asked.tolist(), strict=True)
    ]


def most_of(overlap: Overlap, known: Encyclopedia) -> str:
    """The title of the article that holds most of it; "" where no n-gram tells."""
    places = np.searchsorted(known.titled, overlap.hashes)
    places = places[places < len(known.titled)]
    there = np.isin(known.titled[places], overlap.hashes)
    articles, counts = np.unique(known.articles[places[there]], return_counts=True)
    return known.titles["title"][int(articles[counts.argmax()])].as_py() if len(articles) else ""
