"""The 8-grams of a training text as one Bloom filter, as in paper section 4.

Words are those of `words.normalise`: lower-case letters and digits with one space between. The
filter is sized for its members before they are read again to fill it, and lets at most one in 10^8
others pass. Texts are hashed by several threads and put in by one, so that no bit is lost; filling
twice changes nothing, so a stopped run goes on from its last saved filter to the very same one.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write, read_json, write_json
from gptwo.corpus.overlap.ngrams import false_positive_rate, fill, find, make_filter
from gptwo.corpus.words import Hashes
from gptwo.errors import DataError, Interrupted, ResourceError
from gptwo.pool import in_order
from gptwo.progress import SILENT, Reporter

WORDS = 8
LINES, BITS = 4, 42  # of the filter, for each member: see ngrams.py
SAMPLED = 256  # one n-gram in so many is counted to size the filter ...
SHORT = 1 << 16  # ... or all, where there are no more
BATCH_BYTES = 4_000_000  # of text hashed at once; a longer document is hashed whole
BATCH_ROWS = 64  # read at once
SAVE_SECONDS = 60.0  # of work that a kill may cost
RANDOM_STRINGS, RANDOM_WORD = 1_000_000, 6  # how many, and the letters of a word

# A part of a training text: what reads it, as columns of large strings.
Part = Callable[[], Iterator[pa.Array]]


@dataclass(frozen=True, kw_only=True)
class Members:
    """A training text's n-grams; `find(texts, WORDS, members.filter, 1, LINES)` looks them up.

    `documents`, `bytes` and `ngrams` (with repeats) are what was read.
    """

    filter: Hashes
    documents: int
    bytes: int
    ngrams: int
    distinct_ngrams: int  # estimated


@dataclass
class _Counts:
    parts: int = 0  # that are in the filter
    documents: int = 0
    bytes: int = 0
    ngrams: int = 0


def read_members(
    parts: Sequence[Part],
    work: Path,
    *,
    title: str,
    documents: int | None = None,
    threads: int = 1,
    reporter: Reporter = SILENT,
) -> Members:
    """The filter of all parts, kept in `work` as it grows; `documents` is how many there are.

    The same bits for any number of threads, and after any interruption.

    Raises:
        DataError: the text has no n-gram.
        ResourceError: the filter does not fit the memory that is free.
    """
    distinct = _distinct(parts, work / "size.json", title, documents, threads, reporter)
    if not distinct:
        raise DataError(
            f"{title} has no text of {WORDS} words", remedy="give a corpus with a training split"
        )
    room = most_members(distinct)
    reporter.say(
        f"overlap: {title} has about {distinct:,} different {WORDS}-grams; their filter takes "
        f"{room * BITS / 8e6:,.1f} MB"
    )
    counts, members = _saved(work, room)
    state = _Saved(work, members, counts)
    try:
        with reporter.bar(f"overlap: {title}", documents, "documents") as bar:
            bar.advance(counts.documents)
            for number in range(counts.parts, len(parts)):
                for more in _fill(parts[number], members, counts, threads):
                    bar.advance(more)
                    reporter.check()
                counts.parts = number + 1
                state.save_sometimes()
    except Interrupted:
        state.save()
        raise
    state.save()
    made = {name: value for name, value in asdict(counts).items() if name != "parts"}
    return Members(filter=members, distinct_ngrams=distinct, **made)


def most_members(distinct: int) -> int:
    """Room for a count made from one in 256: four standard deviations above it."""
    return distinct + int(4 * (SAMPLED * distinct) ** 0.5)


def corpus_parts(folder: Path, split: str) -> list[Part]:
    """The files of a corpus' split."""
    return [partial(_column, path) for path in sorted((folder / split).glob("part-*.parquet"))]


def _column(path: Path) -> Iterator[pa.Array]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=["text"], use_threads=False):
                yield from cut(batch.column(0).cast(pa.large_string()))
    except (pa.ArrowInvalid, OSError) as damage:
        raise DataError(
            f"{path} cannot be read as Parquet: {damage}", remedy="make the corpus again"
        ) from damage


def cut(texts: pa.Array) -> Iterator[pa.Array]:
    """A column of large strings in stretches of at most `BATCH_BYTES`, or one text."""
    sizes = np.diff(np.frombuffer(texts.buffers()[1] or bytes(8), np.int64))
    sizes = sizes[texts.offset : texts.offset + len(texts)]
    first = size = 0
    for row, more in enumerate(sizes.tolist()):
        if size and size + more > BATCH_BYTES:
            yield texts.slice(first, row - first)
            first, size = row, 0
        size += more
    if first < len(texts):
        yield texts.slice(first)


def _distinct(
    parts: Sequence[Part],
    saved: Path,
    title: str,
    documents: int | None,
    threads: int,
    reporter: Reporter,
) -> int:
    """About how many different n-grams there are, from those whose hash is a multiple of 256."""
    if saved.exists():
        return read_json(saved)["distinct_ngrams"]
    found = [np.empty(0, np.uint64)]
    with reporter.bar(f"overlap: {title}, its size", documents, "documents") as bar:
        for texts, hashes in in_order(partial(_distinct_in, every=SAMPLED), _texts(parts), threads):
            reporter.check()
            found.append(hashes)
            bar.advance(texts)
    distinct = SAMPLED * len(np.unique(np.concatenate(found)))
    if distinct < SHORT:
        every_one = [_distinct_in(texts, every=1)[1] for texts in _texts(parts)]
        distinct = len(np.unique(np.concatenate([*found, *every_one])))
    write_json(saved, {"distinct_ngrams": distinct})
    return distinct


def _texts(parts: Iterable[Part]) -> Iterator[pa.Array]:
    for part in parts:
        yield from part()


def _distinct_in(texts: pa.Array, every: int) -> tuple[int, Hashes]:
    grams, _ = find(texts, WORDS, every=every)
    return len(texts), np.unique(grams["hash"])


def _fill(part: Part, members: Hashes, counts: _Counts, threads: int) -> Iterator[int]:
    """Put a part into the filter; yields how many documents each step took."""
    for documents, size, hashes in in_order(_hashed, part(), threads):
        fill(members, hashes, LINES)
        counts.documents += documents
        counts.bytes += size
        counts.ngrams += len(hashes)
        yield documents


def _hashed(texts: pa.Array) -> tuple[int, int, Hashes]:
    """How many texts, their bytes, the hashes of their n-grams."""
    grams, _ = find(texts, WORDS)
    offsets = np.frombuffer(texts.buffers()[1] or bytes(8), np.int64)
    size = int(offsets[texts.offset + len(texts)] - offsets[texts.offset])
    return len(texts), size, np.ascontiguousarray(grams["hash"])


# ---- what is kept across a stop ----


class _Saved:
    """A filter that grows, saved every `SAVE_SECONDS`; its counts are written after its bits.

    So a filter may hold more than its counts say, and filling that again changes nothing.
    """

    def __init__(self, work: Path, members: Hashes, counts: _Counts) -> None:
        self.work, self.members, self.counts = work, members, counts
        self._whole = asdict(counts)  # as of the last whole part
        self._last = time.monotonic()

    def save_sometimes(self) -> None:
        self._whole = asdict(self.counts)
        if time.monotonic() - self._last > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        with atomic_write(self.work / "filter.npy") as handle:
            np.save(handle, self.members)
        write_json(self.work / "filled.json", self._whole)
        self._last = time.monotonic()


def _saved(work: Path, members: int) -> tuple[_Counts, Hashes]:
    """What an earlier run has left, or an empty filter."""
    filled = work / "filled.json"
    if filled.exists():
        return _Counts(**read_json(filled)), np.load(work / "filter.npy")
    free = free_bytes()
    if members * BITS // 8 > free:
        raise ResourceError(
            f"a filter of {members * BITS / 8e6:,.0f} MB for {members:,} n-grams is needed, "
            f"{free / 1e6:,.0f} MB are free",
            remedy="use a machine with more memory",
        )
    return _Counts(), make_filter(members, BITS)


def free_bytes() -> int:
    """Memory that may be taken without swapping (Linux); 2^62 where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    return 1024 * next((int(x.split()[1]) for x in lines if x.startswith("MemAvailable:")), 1 << 52)


# ---- how often it is wrong ----


def check_filter(members: Hashes, seed: int = 0) -> dict[str, float]:
    """`false_positive_rate` by the filter's bits, and how many of 10^6 random strings it finds.

    A string is eight words of six random letters; the paper's test, section 4.
    """
    generator, found = np.random.default_rng(seed), 0
    length = WORDS * (RANDOM_WORD + 1)
    for _ in range(10):
        count = RANDOM_STRINGS // 10
        letters = generator.integers(ord("a"), ord("z") + 1, (count, length), np.uint8)
        letters[:, RANDOM_WORD :: RANDOM_WORD + 1] = ord(" ")
        edges = np.arange(count + 1, dtype=np.int64) * length
        buffers = [None, pa.py_buffer(edges), pa.py_buffer(letters)]
        strings = pa.Array.from_buffers(pa.large_string(), count, buffers)
        grams, looked_up = find(strings, WORDS, members, 1, LINES)
        assert looked_up.sum() == count
        found += len(grams)
    return {
        "false_positive_rate": false_positive_rate(members, LINES),
        "random_strings": RANDOM_STRINGS,
        "random_strings_found": found,
    }
