"""exact-dedup, and what both kinds of de-duplication share: keys, joins, losers.

Each shard is mapped to a small table of keys, DuckDB joins the tables under a memory limit, and a
stage drops the losers. The joins are cut by the keys into parts that fit into the limit, each a
task like any other. Which document stays depends on the documents alone: the highest score, then
the longest text, then the smallest id and URL.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.minhash import BANDS, sketch
from gptwo.corpus.overlap.ngrams import phrases
from gptwo.corpus.shards import Draft, read_table, write_table, writer
from gptwo.errors import ResourceError
from gptwo.lock import disk_errors
from gptwo.pool import Task

MEMORY_LIMIT = "256MB"
PART_DOCUMENTS = 2_000_000  # of which one join holds the keys
RANK = ("row", "id", "url", "source", "score")  # and the length: what decides who stays
BEST = "coalesce(score, -2147483648) DESC, length DESC, id, url, source, row"

LOSERS = pa.schema([("row", pa.int64()), ("kept", pa.string())])


@contextmanager
def connect(temporary: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to a folder below `temporary`, for one task.

    Raises ResourceError when neither the memory nor the disk is enough.
    """
    with disk_errors(temporary):
        temporary.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=temporary) as spill, duckdb.connect() as database:
            database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            database.execute("SET threads = 1")  # the pool runs as many tasks as there are cores
            database.execute("SET temp_directory = $1", [spill])
            database.execute("SET preserve_insertion_order = false")
            yield database
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        raise ResourceError(
            f"a join finds no room in memory or in {temporary}: {str(error).splitlines()[0]}",
            remedy="free some space there and run the same command again",
        ) from error


def keys_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """One row a document that is kept: its rank, two hashes of its words, its MinHash bands.

    The second hash of the words is their first band: what has the same words has the same bands.
    """
    table = kept(task.input, [*RANK, "text"])
    texts = table["text"].combine_chunks()
    words, _ = phrases(texts)
    bands, has_words = sketch(texts)
    at(len(texts) - 1)
    names = np.where(has_words, [words, bands[:, 0]], 0)
    for number in np.flatnonzero(~has_words):  # only the very same text is its copy
        digest = blake2b(texts[number].as_buffer(), digest_size=16).digest()
        names[:, number] = np.frombuffer(digest, np.uint64)
    columns = {
        **rank(table),
        "key": pa.array(names[0]),
        "key2": pa.array(names[1]),
        **{f"band{n}": pa.array(bands[:, n], mask=~has_words) for n in range(BANDS)},
    }
    write_table(task.output, pa.table(columns))


def kept(shard: Path, columns: list[str]) -> pa.Table:
    """Some columns of the documents of a shard that no stage has dropped."""
    table = read_table(shard, [*columns, "reason"])
    return table.filter(pc.field("reason") == "")


def rank(table: pa.Table) -> dict[str, pa.Array]:
    """The columns that decide who stays, of a table of documents."""
    return {
        **{name: table[name] for name in RANK},
        "length": pc.call_function("utf8_length", [table["text"]]).cast(pa.int64()),
    }


def totals_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Documents and characters in all tables of keys, as JSON."""
    sizes = (read_table(path, ["length"])["length"] for path in task.input)
    documents = characters = 0
    for lengths in sizes:
        documents += len(lengths)
        characters += int(lengths.to_numpy().sum())
    write_json(task.output, {"documents": documents, "characters": characters})


def copies_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The losers among documents with the same bare words, of one part of the keys."""
    keys, part, parts = task.input
    ranked = f"""
        (WITH shared AS (
            SELECT key, key2 FROM read_parquet($1) WHERE key % {parts} = {part}
            GROUP BY ALL HAVING count(*) > 1)
        SELECT k.* FROM read_parquet($1) k JOIN shared USING (key, key2))
    """
    with connect(spill_folder(task)) as database:
        find_losers(database, ranked, [names(keys)], task.output)


def find_losers(
    database: duckdb.DuckDBPyConnection, ranked: str, params: list[object], out: Path
) -> None:
    """`(row, kept)` of all but the best of each `key` and `key2` of a table with ranks."""
    found = database.sql(
        f"""
        SELECT row, first_value(trim(id || ' ' || url)) OVER best AS kept,
               row_number() OVER best AS place
        FROM {ranked}
        WINDOW best AS (PARTITION BY key, key2 ORDER BY {BEST})
        QUALIFY place > 1
        """,
        params=params,
    ).to_arrow_table()
    write_table(out, found.select(["row", "kept"]))


def losers_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The losers of all parts in order of their rows, so that a shard finds its own."""
    if not task.input:
        write_table(task.output, LOSERS.empty_table())
        return
    query = "SELECT row, kept FROM read_parquet($1) ORDER BY row"
    with connect(spill_folder(task)) as database:
        write_query(database, query, [names(task.input)], task.output)


def write_query(
    database: duckdb.DuckDBPyConnection, query: str, params: list[object], out: Path
) -> None:
    """The rows of a query as a work file, never all of them in memory."""
    write_queries(database, [query], params, out)


def write_queries(
    database: duckdb.DuckDBPyConnection, queries: list[str], params: list[object], out: Path
) -> None:
    """The rows of some queries, one after another, as one work file."""
    with atomic_write(out) as handle, ExitStack() as stack:
        file = None
        for query in queries:
            batches = database.sql(query, params=params).to_arrow_reader(1 << 14)
            file = file or stack.enter_context(writer(handle, batches.schema, []))
            for batch in batches:
                file.write_batch(batch)


def drop_losers(
    drafts: list[Draft],
    config: CorpusConfig,
    at: Callable[[int], None],
    *,
    losers: Path,
    reason: str,
) -> None:
    """The stage that drops what a table of losers names; `detail` is what was kept instead."""
    rows = [draft.row for draft in drafts]
    span = [("row", ">=", min(rows, default=0)), ("row", "<=", max(rows, default=0))]
    found = pq.read_table(losers, filters=span, use_threads=False)
    kept_instead = dict(zip(found["row"].to_pylist(), found["kept"].to_pylist(), strict=True))
    for draft in drafts:
        if draft.row in kept_instead:
            draft.drop(reason, kept_instead[draft.row])


def names(paths: list[Path]) -> list[str]:
    """File names for DuckDB."""
    return [str(path) for path in paths]


def spill_folder(task: Task) -> Path:
    """Where the database of a task may spill to."""
    return task.output.parent / "spill"
