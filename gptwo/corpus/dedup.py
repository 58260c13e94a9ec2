"""exact-dedup and near-dedup: of documents that say the same, one stays.

Both find losers in two steps: each shard is mapped to a small table of keys, then DuckDB joins the
tables under a memory limit. Which one stays depends on the documents alone: the highest score, then
the longest text, then the smallest id and URL.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.minhash import band_keys, normalise, shingles, signature
from gptwo.corpus.pool import Task
from gptwo.corpus.shards import Draft, read_shard, write_shard

MEMORY_LIMIT = "400MB"
ALL_PAIRS = 32  # documents of one bucket compared each with each; in fuller ones, see `_PAIRS`
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
    drafts = read_shard(task.input)
    rows, bands, keys = [], [], []
    for number, draft in enumerate(drafts):
        at(number)
        hashes = shingles(draft.text)
        if hashes.size:
            found = band_keys(signature(hashes))
            rows.append(np.full(len(found), draft.row, np.int64))
            bands.append(np.arange(len(found), dtype=np.uint8))
            keys.append(found)
    _write_table(
        task.output,
        {
            "row": pa.array(_joined(rows, np.int64), pa.int64()),
            "band": pa.array(_joined(bands, np.uint8), pa.uint8()),
            "key": pa.array(_joined(keys, np.uint64), pa.uint64()),
        },
    )


def shingles_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The shingles of the documents that some other may resemble."""
    path, candidates = task.input
    wanted = set(pq.read_table(candidates)["row"].to_pylist())
    drafts = read_shard(path)
    rows, sets = [], []
    for number, draft in enumerate(drafts):
        at(number)
        if draft.row in wanted:
            rows.append(draft.row)
            sets.append(shingles(draft.text))
    _write_table(
        task.output,
        {
            "row": pa.array(rows, pa.int64()),
            "shingles": pa.array(sets, pa.list_(pa.uint64())),
        },
    )


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


def _joined(arrays: list[np.ndarray], kind: type) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, kind)


def _write_table(path: Path, columns: dict[str, pa.Array]) -> None:
    with atomic_write(path) as handle:
        pq.write_table(pa.table(columns), handle, compression="zstd")


def find_copies(database: duckdb.DuckDBPyConnection, keys: list[Path], out: Path) -> None:
    """Losers among documents with the same key: (row, kept)."""
    found = database.sql(
        f"""
        SELECT row, first_value(trim(id || ' ' || url)) OVER best AS kept,
               row_number() OVER best AS place
        FROM read_parquet($1)
        QUALIFY place > 1
        WINDOW best AS (PARTITION BY key ORDER BY {_BEST})
        ORDER BY row
        """,
        params=[_names(keys)],
    )
    table = found.to_arrow_table()
    _write_table(out, {"row": table["row"], "kept": table["kept"]})


# In a bucket of up to 32 documents every pair is a candidate. In a fuller one (a template filled in
# a thousand times) each document meets the first and its neighbour, which keeps the work linear and
# still joins real copies, since they all resemble the first.
_PAIRS = f"""
    WITH places AS (
        SELECT band, key, row,
               row_number() OVER (PARTITION BY band, key ORDER BY row) AS place,
               count(*) OVER (PARTITION BY band, key) AS size
        FROM read_parquet($1)
    ), full_buckets AS (SELECT * FROM places WHERE size > 1)
    SELECT DISTINCT a.row AS a, b.row AS b
    FROM full_buckets a JOIN full_buckets b
      ON a.band = b.band AND a.key = b.key AND a.place < b.place
     AND (a.size <= {ALL_PAIRS} OR a.place = 1 OR b.place = a.place + 1)
    ORDER BY a, b
"""


def find_pairs(database: duckdb.DuckDBPyConnection, bands: list[Path], out: Path) -> None:
    """Candidate pairs: documents that share a band. (a, b) with a < b."""
    table = database.sql(_PAIRS, params=[_names(bands)]).to_arrow_table()
    _write_table(out, {"a": table["a"], "b": table["b"]})


def find_candidates(pairs: Path, out: Path) -> None:
    """The documents of any pair, each once."""
    table = pq.read_table(pairs)
    rows = np.union1d(table["a"].to_numpy(), table["b"].to_numpy())
    _write_table(out, {"row": pa.array(rows, pa.int64())})


def find_resembling(
    database: duckdb.DuckDBPyConnection, pairs: Path, shingle_files: list[Path], least: float
) -> list[tuple[int, int]]:
    """The pairs whose exact Jaccard similarity is at least `least`."""
    found = database.sql(
        """
        SELECT p.a, p.b, x.shingles AS xs, y.shingles AS ys
        FROM read_parquet($1) p
        JOIN read_parquet($2) x ON x.row = p.a
        JOIN read_parquet($2) y ON y.row = p.b
        """,
        params=[str(pairs), _names(shingle_files)],
    )
    return []


def _names(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]
