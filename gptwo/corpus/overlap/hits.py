"""Where documents hold n-grams of the evaluation sets: an index of the sets, and its hits.

The index lies in files that every worker maps into memory: a filter that is asked first, the sorted
hashes of the n-grams, the words of the examples. What the hashes find counts when the words are the
same, one after another: two n-grams with one hash are never taken for each other.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwo.artifacts import atomic_write, read_json, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.overlap.evaluation import Piece, read_set
from gptwo.corpus.overlap.ngrams import fill, find, make_filter
from gptwo.corpus.shards import read_shard, run_stages, write_table
from gptwo.corpus.words import Hashes, normalise
from gptwo.pool import Task

PIECES_AT_ONCE = 4096
HITS = pa.schema(
    [
        ("row", pa.int64()),  # the document
        ("word", pa.int32()),  # of the document, at which the n-gram begins
        ("begin", pa.int32()),  # the n-gram in the document's text, in characters
        ("end", pa.int32()),
        ("gram", pa.int32()),  # its place among the sorted hashes
        ("piece", pa.int32()),  # which first holds it, and at which word
        ("place", pa.int32()),
        ("length", pa.int32()),  # of the document's text, in characters
        ("id", pa.string()),
        ("url", pa.string()),
    ]
)
NUMBERS = ("word", "begin", "end", "gram", "piece", "place", "length")


@dataclass(frozen=True, kw_only=True)
class Index:
    """The n-grams of all sets, n words each; every distinct one once."""

    words: int
    sets: list[dict[str, Any]]  # name, examples, too_short (of them), ngrams (distinct)
    members: Hashes  # the filter
    hashes: Hashes  # sorted
    first: NDArray[np.int32]  # (n-grams, 2) the piece that first holds it, and at which word
    held: NDArray[np.int32]  # (2, occurrences) n-gram and piece: each pair once, sorted
    pieces: pa.Table  # set (its number), number (of the example), words, whole: as Piece has them

    def share_a_piece(self, a: int, b: int) -> bool:
        """Whether a piece holds both of two n-grams."""
        one, other = (
            self.held[1, slice(*np.searchsorted(self.held[0], (gram, gram + 1)))] for gram in (a, b)
        )
        return len(np.intersect1d(one, other)) > 0


def index_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Make an index: `task.input` is `[(name, file)]` of the sets. The output, JSON, comes last."""
    folder, columns, places = task.output.parent, [], []
    sizes: list[dict[str, Any]] = []
    for number, (name, path) in enumerate(task.input):
        at(number)
        words: dict[int, int] = {}  # of the longest piece of each example
        for pieces in _batches(read_set(name, path)):
            start = sum(map(len, columns))
            columns.append(_column(pieces, number))
            places.append(_places(columns[-1], start, config.decontaminate_words))
            for piece, bare in zip(pieces, columns[-1]["words"].to_pylist(), strict=True):
                count = bare.count(" ") + 1
                words[piece.number] = max(words.get(piece.number, 0), count)
        short = sum(count < config.decontaminate_words for count in words.values())
        sizes.append({"set": name, "examples": len(words), "too_short": short})
    table = pa.concat_tables(columns)
    found = np.concatenate(places)
    hashes, first, gram = np.unique(found["hash"], return_index=True, return_inverse=True)
    pairs = np.unique(gram * table.num_rows + found["piece"])
    held = np.stack(np.divmod(pairs, table.num_rows)).astype(np.int32)
    members = make_filter(len(hashes))
    fill(members, hashes)
    set_of = table["set"].to_numpy()
    for number, size in enumerate(sizes):
        size["ngrams"] = len(np.unique(held[0, set_of[held[1]] == number]))
    _save(folder / "members.npy", members)
    _save(folder / "hashes.npy", hashes)
    _save(folder / "first.npy", np.stack([found["piece"][first], found["word"][first]], axis=1))
    _save(folder / "held.npy", held)
    with (
        atomic_write(folder / "pieces.arrow") as handle,
        pa.ipc.new_file(handle, table.schema) as out,
    ):
        out.write_table(table)
    write_json(task.output, {"words": config.decontaminate_words, "sets": sizes})


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    while batch := list(islice(pieces, PIECES_AT_ONCE)):
        yield batch


def _column(pieces: list[Piece], number: int) -> pa.Table:
    return pa.table(
        {
            "set": pa.array([number] * len(pieces), pa.int32()),
            "number": pa.array([piece.number for piece in pieces], pa.int64()),
            "words": pa.array([normalise(piece.text) for piece in pieces], pa.large_string()),
            "whole": pa.array([piece.whole for piece in pieces], pa.int32()),
        }
    )


def _places(table: pa.Table, start: int, words: int) -> NDArray[np.void]:
    """Every n-gram of some pieces; the first of them is piece number `start`."""
    grams, _ = find(table["words"].combine_chunks(), words)
    places = np.empty(len(grams), [("hash", "u8"), ("piece", "i4"), ("word", "i4")])
    places["hash"], places["word"] = grams["hash"], grams["word"]
    places["piece"] = grams["text"] + start
    return places


def _save(path: Path, array: NDArray[Any]) -> None:
    with atomic_write(path) as handle:
        np.save(handle, array)


def open_index(path: Path) -> Index:
    """The index that `index_file` made at `path`, mapped into memory."""
    return _open(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _open(path: Path, stamp: int) -> Index:
    about, folder = read_json(path), path.parent
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in ("members", "hashes", "first", "held")
    }
    pieces = pa.ipc.open_file(pa.memory_map(str(folder / "pieces.arrow"))).read_all()
    return Index(words=about["words"], sets=about["sets"], pieces=pieces, **arrays)


def hits_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The hits in a shard's documents; `task.input` is `(shard, stages to run first, index)`."""
    shard, stages, path = task.input
    drafts = read_shard(shard)
    run_stages(drafts, stages, config, at, task.skip)
    kept = [draft for draft in drafts if not draft.reason]
    hits = find_hits([draft.text for draft in kept], open_index(path))
    of = [kept[number] for number in hits["text"]]
    columns = {
        **{name: hits[name] for name in NUMBERS},
        **{name: [getattr(draft, name) for draft in of] for name in ("row", "id", "url")},
    }
    write_table(task.output, pa.table(columns, HITS))


def find_hits(texts: list[str], index: Index) -> NDArray[np.void]:
    """Every n-gram of some texts that a set holds: NUMBERS, and the number of its `text`."""
    column = pa.array(texts, pa.large_string())
    found, _ = find(column, index.words, index.members)
    gram = np.searchsorted(index.hashes, found["hash"])
    gram[gram == len(index.hashes)] = 0
    known = index.hashes[gram] == found["hash"] if len(index.hashes) else np.zeros(0, np.bool_)
    found, gram = found[known], gram[known]
    hits = np.zeros(len(found), [("text", "i8"), *((name, "i4") for name in NUMBERS)])
    hits["text"], hits["word"], hits["gram"] = found["text"], found["word"], gram
    hits["piece"], hits["place"] = index.first[gram].reshape(-1, 2).T
    same = np.zeros(len(hits), np.bool_)
    edges = np.flatnonzero(np.diff(hits["text"], prepend=-1, append=-1))
    for start, end in pairwise(edges):
        part, text = slice(start, end), texts[hits["text"][start]]
        data = text.encode()
        same[part] = _same_words(hits[part], found[part], data, index)
        characters = _characters(data)
        hits["begin"][part] = characters[found["begin"][part]]
        hits["end"][part] = characters[found["end"][part]]
        hits["length"][part] = len(text)
    return hits[same]


def _characters(data: bytes) -> NDArray[np.int64]:
    """For each byte of a text, and its end, how many characters begin before it."""
    begins = np.frombuffer(data, np.uint8) >> 6 != 2
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(begins)))


def _same_words(
    hits: NDArray[np.void], grams: NDArray[np.void], data: bytes, index: Index
) -> NDArray[np.bool_]:
    """Which hits in one document are the same words as the piece they point to has there.

    Hits that follow each other in both are compared in one go, one by one only where that fails.
    """
    same = np.zeros(len(hits), np.bool_)
    steps = (np.diff(hits["piece"]) != 0) | (np.diff(hits["word"]) != 1)
    steps |= np.diff(hits["place"]) != 1
    n = index.words
    for start, end in pairwise([0, *(np.flatnonzero(steps) + 1).tolist(), len(hits)]):
        words = data[grams["begin"][start] : grams["end"][end - 1]].decode()
        ours = normalise(words).split(" ")
        whole = index.pieces["words"][int(hits["piece"][start])].as_py().split(" ")
        theirs = whole[hits["place"][start] :][: len(ours)]
        if ours == theirs:
            same[start:end] = True
        else:
            each = range(end - start)
            same[start:end] = [ours[i : i + n] == theirs[i : i + n] for i in each]
    return same
