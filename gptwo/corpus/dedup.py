"""exact-dedup and near-dedup: of documents that say the same, one stays.

Both find losers in two steps: each shard is mapped to a small table of keys, then DuckDB joins the
tables under a memory limit. Which one stays depends on the documents alone: the highest score, then
the longest text, then the smallest id and URL.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.minhash import BANDS, Hashes, jaccard, normalise, shingle_sets, sketch
from gptwo.corpus.shards import SCHEMA, Draft, read_shard, write_shard
from gptwo.pool import Task

MEMORY_LIMIT = "400MB"
ALL_PAIRS = 32  # documents of one bucket that are compared each with each
_BEST = "coalesce(score, -2147483648) DESC, length DESC, id, url, source, row"


def connect(temporary: Path, threads: int) -> duckdb.DuckDBPyConnection:
    """A database in memory that spills to `temporary`."""
    database = duckdb.connect()
    temporary.mkdir(parents=True, exist_ok=True)
    database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    database.execute(f"SET threads = {threads}")
    database.execute("SET temp_directory = $1", [str(temporary)])
    database.execute("SET preserve_insertion_order = false")
    return database


def keys_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """One row a document: its name, its rank among copies and the hash of its bare words."""
    drafts = read_shard(task.input)
    keys = []
    for number, draft in enumerate(drafts):
        at(number)
        words = normalise(draft.text) or draft.text  # no words at all: only the very same text
        keys.append(hashlib.blake2b(words.encode("utf-8", "replace"), digest_size=16).hexdigest())
    _write_table(task.output, {**_rank(drafts), "key": pa.array(keys, pa.string())})


def bands_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Fourteen rows a document: the keys of its MinHash bands."""
    rows, texts = _read_texts(task.input)
    keys, has_words = sketch(texts)
    at(len(rows) - 1)
    rows, keys = rows[has_words], keys[has_words]
    _write_table(
        task.output,
        {
            "row": pa.array(np.repeat(rows, BANDS), pa.int64()),
            "band": pa.array(np.tile(np.arange(BANDS, dtype=np.uint8), len(rows)), pa.uint8()),
            "key": pa.array(keys.ravel(), pa.uint64()),
        },
    )


def shingles_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The shingles of the documents that some other may resemble."""
    path, pairs = task.input
    rows, texts = _read_texts(path)
    table = pq.read_table(pairs)
    wanted = np.isin(rows, table["a"].to_numpy()) | np.isin(rows, table["b"].to_numpy())
    sets = shingle_sets(texts.filter(pa.array(wanted)))
    at(len(rows) - 1)
    columns = {
        "row": pa.array(rows[wanted], pa.int64()),
        "set": pa.array(sets, pa.list_(pa.uint64())),
    }
    _write_table(task.output, columns)


def _read_texts(path: Path) -> tuple[np.ndarray, pa.LargeStringArray]:
    """Rows and texts of the documents of a shard that are still kept."""
    kept = [("reason", "==", "")]
    table = pq.read_table(path, columns=["row", "text"], schema=SCHEMA, filters=kept)
    return table["row"].to_numpy(), table["text"].combine_chunks()


def similar_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Of the candidate pairs that begin in one shard, those that truly resemble each other.

    The exact Jaccard similarity is computed from the shingles, two shards in memory at a time.
    """
    path, pairs, others = task.input  # others: (first row, file) of every shard, in order
    own = _sets(path)
    span = [("a", ">=", min(own, default=0)), ("a", "<=", max(own, default=-1))]
    firsts = [first for first, _ in others]
    by_file: dict[Path, list[tuple[int, int]]] = {}
    for row in pq.read_table(pairs, filters=span).to_pylist():
        file = others[bisect_right(firsts, row["b"]) - 1][1]
        by_file.setdefault(file, []).append((row["a"], row["b"]))
    similar = []
    for number, (file, candidates) in enumerate(by_file.items()):
        at(number)
        theirs = own if file == path else _sets(file)
        similar += [
            (a, b)
            for a, b in candidates
            if jaccard(own[a], theirs[b]) >= config.near_duplicate_similarity
        ]
    columns = {
        name: pa.array([pair[i] for pair in similar], pa.int64()) for i, name in enumerate("ab")
    }
    _write_table(task.output, columns)


def _sets(path: Path) -> dict[int, Hashes]:
    table = pq.read_table(path)
    sets = [value.values.to_numpy() for value in table["set"]]
    return dict(zip(table["row"].to_pylist(), sets, strict=True))


def first_rows(files: list[Path]) -> list[tuple[int, Path]]:
    """`(first row, file)` of every table that is not empty, in order of rows."""
    rows = [(pq.read_table(path, columns=["row"])["row"], path) for path in files]
    return sorted((column[0].as_py(), path) for column, path in rows if len(column))


def mark_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Drop the documents that a table of losers names, with the id and URL of what was kept."""
    path, losers, reason = task.input
    drafts = read_shard(path)
    rows = [draft.row for draft in drafts]
    span = [("row", ">=", min(rows, default=0)), ("row", "<=", max(rows, default=0))]
    kept_instead = {
        row["row"]: row["kept"] for row in pq.read_table(losers, filters=span).to_pylist()
    }
    for number, draft in enumerate(drafts):
        at(number)
        if draft.row in kept_instead:
            draft.drop(reason, kept_instead[draft.row])
    write_shard(task.output, drafts)


def _rank(drafts: list[Draft]) -> dict[str, pa.Array]:
    return {
        "row": pa.array([draft.row for draft in drafts], pa.int64()),
        "id": pa.array([draft.id for draft in drafts], pa.string()),
        "url": pa.array([draft.url for draft in drafts], pa.string()),
        "source": pa.array([draft.source for draft in drafts], pa.string()),
        "score": pa.array([draft.score for draft in drafts], pa.int32()),
        "length": pa.array([len(draft.text) for draft in drafts], pa.int64()),
    }


def _write_table(path: Path, columns: dict[str, pa.Array]) -> None:
    with atomic_write(path) as handle:
        pq.write_table(pa.table(columns), handle, compression="zstd")


def find_copies(database: duckdb.DuckDBPyConnection, keys: list[Path], out: Path) -> None:
    """Losers among documents with the same bare words: (row, kept)."""
    _find_losers(database, "read_parquet($1)", [_names(keys)], out)


def find_near_copies(
    database: duckdb.DuckDBPyConnection, keys: list[Path], similar: list[Path], out: Path
) -> None:
    """Losers among documents joined by pairs that resemble each other, in any number of steps."""
    tables = [pq.read_table(path) for path in similar]
    pairs = [
        pair
        for table in tables
        for pair in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
    ]
    groups = components(pairs)
    database.register(
        "groups",
        pa.table(
            {
                "row": pa.array(list(groups), pa.int64()),
                "key": pa.array(list(groups.values()), pa.int64()),
            }
        ),
    )
    ranked = "(SELECT k.* REPLACE (g.key AS key) FROM read_parquet($1) k JOIN groups g USING (row))"
    _find_losers(database, ranked, [_names(keys)], out)


def _find_losers(
    database: duckdb.DuckDBPyConnection, ranked: str, params: list[object], out: Path
) -> None:
    found = database.sql(
        f"""
        SELECT row, first_value(trim(id || ' ' || url)) OVER best AS kept,
               row_number() OVER best AS place
        FROM {ranked}
        WINDOW best AS (PARTITION BY key ORDER BY {_BEST})
        QUALIFY place > 1
        ORDER BY row
        """,
        params=params,
    ).to_arrow_table()
    _write_table(out, {"row": found["row"], "kept": found["kept"]})


def find_pairs(database: duckdb.DuckDBPyConnection, bands: list[Path], out: Path) -> None:
    """Candidate pairs: documents that share a band. (a, b) with a < b.

    In a bucket of up to 32 documents every pair is a candidate. In a fuller one (a template filled
    in a thousand times) each document meets the first and its neighbour: the work stays linear and
    real copies are still joined, since they all resemble the first.
    """
    found = database.sql(
        f"""
        WITH places AS (
            SELECT band, key, row,
                   row_number() OVER (PARTITION BY band, key ORDER BY row) AS place,
                   count(*) OVER (PARTITION BY band, key) AS size
            FROM read_parquet($1)
        ), shared AS (SELECT * FROM places WHERE size > 1)
        SELECT DISTINCT a.row AS a, b.row AS b
        FROM shared a JOIN shared b
          ON a.band = b.band AND a.key = b.key AND a.place < b.place
         AND (a.size <= {ALL_PAIRS} OR a.place = 1 OR b.place = a.place + 1)
        ORDER BY a, b
        """,
        params=[_names(bands)],
    ).to_arrow_table()
    _write_table(out, {"a": found["a"], "b": found["b"]})


def components(pairs: list[tuple[int, int]]) -> dict[int, int]:
    """Union-find: every row of any pair -> the smallest row it is connected to."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return {row: root(row) for row in sorted(parent)}


def _names(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]
