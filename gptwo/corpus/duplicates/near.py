"""near-dedup: of documents that share most of their word 5-grams, one stays.

Documents that share a MinHash band are candidate pairs. What candidates join is a group, and groups
are gathered in buckets that fit into memory: the shingles of a bucket's documents are brought
together from all shards, the exact Jaccard similarity of each pair decides, and of what is then
still joined one stays.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gptwo.artifacts import read_json, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import (
    RANK,
    connect,
    find_losers,
    kept,
    names,
    rank,
    spill_folder,
    write_queries,
    write_query,
)
from gptwo.corpus.duplicates.minhash import BANDS, Hashes, jaccard, shingle_sets
from gptwo.corpus.shards import read_part, read_table, write_table
from gptwo.pool import Task

ALL_PAIRS = 32  # documents of one band's key that are compared each with each
BUCKET_CHARACTERS = 16_000_000  # of the documents whose shingles one task holds
TASK_DOCUMENTS = 20_000  # of one band: of fewer several bands are one task

Rows = NDArray[np.int64]


def band_groups(documents: int) -> list[list[int]]:
    """The bands that a task takes together."""
    groups = min(documents // TASK_DOCUMENTS + 1, BANDS)
    return [list(range(first, BANDS, groups)) for first in range(groups)]


def pairs_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Candidate pairs of some bands and one part of their keys: (a, b) with a < b.

    Of up to 32 documents with the same key every pair is a candidate. Of more (a template filled
    in a thousand times) each document meets the first and its neighbour: the work stays linear and
    real copies are still joined, since they all resemble the first.
    """
    keys, losers, bands, part, parts = task.input
    queries = [_pairs(f"band{band}", part, parts) for band in bands]
    with connect(spill_folder(task)) as database:
        write_queries(database, queries, [names(keys), str(losers)], task.output)


def _pairs(key: str, part: int, parts: int) -> str:
    return f"""
        WITH known AS (
            SELECT row, {key} AS key FROM read_parquet($1)
            WHERE {key} IS NOT NULL AND {key} % {parts} = {part}),
        twice AS (SELECT key FROM known GROUP BY key HAVING count(*) > 1),
        places AS (
            SELECT key, row, row_number() OVER (PARTITION BY key ORDER BY row) AS place,
                   count(*) OVER (PARTITION BY key) AS size
            FROM known SEMI JOIN twice USING (key) ANTI JOIN read_parquet($2) USING (row))
        SELECT a.row AS a, b.row AS b
        FROM places a JOIN places b
          ON a.key = b.key AND a.place < b.place
         AND (a.size <= {ALL_PAIRS} OR a.place = 1 OR b.place = a.place + 1)
        """


def buckets_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Which document is in which bucket, `rows.parquet`, and which pair, `pairs.parquet`.

    The output, written last, says how many buckets there are.
    """
    keys, pairs = task.input
    rows_path, pairs_path = bucket_files(task.output)
    with connect(spill_folder(task)) as database:
        found = database.sql(
            """
            SELECT row, length FROM read_parquet($1)
            SEMI JOIN (SELECT a AS row FROM read_parquet($2)
                       UNION SELECT b AS row FROM read_parquet($2)) USING (row)
            ORDER BY row
            """,
            params=[names(keys), names(pairs)],
        ).to_arrow_table()
        rows, lengths = found["row"].to_numpy(), found["length"].to_numpy()
        roots = components(rows, map(_ends, pairs))
        sizes = np.bincount(roots, lengths, len(rows))
        before = np.cumsum(sizes) - sizes  # characters of the groups before this one
        bucket = (before[roots] // BUCKET_CHARACTERS).astype(np.int64)
        bucket = np.unique(bucket, return_inverse=True)[1]  # a very large group leaves gaps
        table = pa.table({"row": rows, "bucket": bucket})
        write_table(rows_path, table)
        database.register("rows", table)
        sorted_pairs = """
            SELECT DISTINCT bucket, a, b FROM read_parquet($1) JOIN rows ON a = row
            ORDER BY bucket, a, b
        """
        write_query(database, sorted_pairs, [names(pairs)], pairs_path)
    write_json(task.output, {"buckets": int(bucket.max(initial=-1)) + 1})


def bucket_files(mark: Path) -> tuple[Path, Path]:
    """The tables that lie beside what `buckets_file` writes last."""
    return mark.with_name("rows.parquet"), mark.with_name("pairs.parquet")


def count_buckets(mark: Path) -> int:
    """How many buckets `buckets_file` has made."""
    return read_json(mark)["buckets"]


def _ends(path: Path) -> tuple[Rows, Rows]:
    table = read_table(path)
    return table["a"].to_numpy(), table["b"].to_numpy()


def components(rows: Rows, pairs: Iterator[tuple[Rows, Rows]]) -> Rows:
    """For each of some sorted rows the place of the smallest row it is connected to.

    Union-find over whole arrays: in each round every group that is joined to a smaller one goes to
    it, so the number of groups with a pair left at least halves.
    """
    parent = np.arange(len(rows))
    for left, right in pairs:
        a, b = np.searchsorted(rows, left), np.searchsorted(rows, right)
        while len(a):
            a, b = parent[a], parent[b]
            apart = a != b
            a, b = a[apart], b[apart]
            np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
            while not np.array_equal(higher := parent[parent], parent):
                parent = higher
    return parent


def sets_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The ranks and shingles of a shard's candidates, bucket by bucket."""
    shard, rows_path = task.input
    table = kept(shard, [*RANK, "text"])
    span = table["row"].to_numpy()
    near = _between(rows_path, span)
    place = np.searchsorted(near[0], span)
    place[place == len(near[0])] = 0
    wanted = near[0][place] == span if len(near[0]) else np.zeros(len(span), np.bool_)
    table = table.filter(pa.array(wanted))
    sets = shingle_sets(table["text"].combine_chunks())
    columns = {
        **rank(table),
        "bucket": pa.array(near[1][place[wanted]], pa.int64()),
        "set": _packed(sets),
    }
    write_table(task.output, pa.table(columns).sort_by("bucket"), part="bucket")


def _packed(sets: list[Hashes]) -> pa.Array:
    """Sets as binary values: Parquet packs lists of numbers slowly."""
    ends = np.cumsum([0, *map(len, sets)], dtype=np.int64) * 8
    values = np.concatenate([np.empty(0, np.uint64), *sets])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.large_binary(), len(sets), buffers)


def _between(path: Path, span: Rows) -> tuple[Rows, Rows]:
    """Rows and buckets of the candidates between the first and the last of some rows."""
    limits = [("row", ">=", span.min(initial=0)), ("row", "<=", span.max(initial=-1))]
    found = pq.read_table(path, filters=limits, use_threads=False)
    return found["row"].to_numpy(), found["bucket"].to_numpy()


def near_copies_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The losers among the documents of one bucket."""
    sets, pairs_path, bucket = task.input
    table = read_bucket(sets, bucket)
    rows = table["row"].to_numpy()
    a, b = similar_pairs(table, pairs_path, bucket, config.near_duplicate_similarity)
    group = components(rows, iter([(a, b)]))
    ranked = table.drop_columns(["set", "bucket"]).append_column("key", pa.array(group))
    ranked = ranked.append_column("key2", pa.array(group))
    with connect(spill_folder(task)) as database:
        database.register("ranked", ranked)
        find_losers(database, "ranked", [], task.output)


def read_bucket(sets: list[Path], bucket: int) -> pa.Table:
    """What `sets_file` found of the documents of one bucket, in order of their rows."""
    return pa.concat_tables(list(read_part(sets, "bucket", bucket))).sort_by("row")


def similar_pairs(
    table: pa.Table, pairs_path: Path, bucket: int, least: float
) -> tuple[Rows, Rows]:
    """Of the candidate pairs of a bucket those that truly resemble each other.

    `table` holds the `row`s, in order, and the `set`s of the bucket.
    """
    here = [("bucket", "==", bucket)]
    pairs = pq.read_table(pairs_path, filters=here, use_threads=False)
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    rows = table["row"].to_numpy()
    _, offsets, data = table["set"].combine_chunks().buffers()
    values, ends = np.frombuffer(data, np.uint64), np.frombuffer(offsets, np.int64) // 8
    sets = [values[start:end] for start, end in pairwise(ends)]
    places = zip(np.searchsorted(rows, a), np.searchsorted(rows, b), strict=True)
    found = np.array([jaccard(sets[i], sets[j]) >= least for i, j in places], np.bool_)
    return a[found], b[found]
