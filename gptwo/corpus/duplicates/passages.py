"""passages: paragraphs or lines that stand in many documents, or twice in one, stay once.

Near-dedup removes documents that are alike as a whole. What this finds are the parts they share:
notices, teasers, quotations, the same report under two introductions. Words are compared as
near-dedup compares them, all words of a passage by one 64-bit hash: among a billion different
passages it takes two for each other with probability 0.03. Which document keeps a passage depends
on the documents alone, as in de-duplication.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import BEST, connect, names, spill_folder, write_queries
from gptwo.corpus.overlap.ngrams import phrases
from gptwo.corpus.shards import Draft, document_id, read_shard, run_stages, write_table
from gptwo.pool import Task

LEAST_LEFT = 200  # characters of a document after a cut; fewer, and it is dropped (GPT-3)
PART_DOCUMENTS = 400_000  # of which one join holds the passages
SEPARATORS = {"line": re.compile(r"(\n)"), "paragraph": re.compile(r"(\n[^\S\n]*\n\s*)")}


def passages_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """A row for every passage of a shard's documents that has enough words: its hash and place.

    `task.input` is the shard and the stages to run first.
    """
    shard, stages = task.input
    drafts = read_shard(shard)
    run_stages(drafts, stages, config, at, task.skip)
    kept = [draft for draft in drafts if not draft.reason]
    units = [SEPARATORS[config.passages].split(draft.text)[::2] for draft in kept]
    hashes, words = phrases(pa.array([unit for each in units for unit in each], pa.large_string()))
    counts = [len(each) for each in units]
    rows = np.repeat(np.array([draft.row for draft in kept], np.int64), counts)
    places = np.concatenate([np.empty(0, np.int64), *map(np.arange, counts)])
    long = words >= config.passage_words
    columns = {"key": hashes[long], "row": rows[long], "place": places[long].astype(np.int32)}
    write_table(task.output, pa.table(columns))


def repeats_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Which passages are to be cut, of one part of the hashes.

    `task.input` is the tables of passages, those of the documents' ranks, part and parts. A passage
    of too many documents stays in the best of them, where it stands first; any other stays in each
    of its documents, where it stands first.
    """
    passages, ranks, part, parts = task.input
    query = f"""
        WITH own AS (
            SELECT key, row, place FROM read_parquet($1) WHERE key % {parts} = {part}),
        twice AS (
            SELECT key, count(DISTINCT row) > {config.passage_documents} AS spread
            FROM own GROUP BY key HAVING count(*) > 1),
        copies AS (
            SELECT own.*, spread, ranks.* EXCLUDE (row)
            FROM own JOIN twice USING (key)
            JOIN (SELECT row, id, url, source, score, length FROM read_parquet($2)) ranks
              USING (row))
        SELECT row, place, first_value(trim(id || ' ' || url)) OVER best AS kept
        FROM copies
        WINDOW best AS (PARTITION BY key, CASE WHEN spread THEN 0 ELSE row + 1 END
                        ORDER BY {BEST}, place)
        QUALIFY row_number() OVER best > 1
    """
    with connect(spill_folder(task)) as database:
        write_queries(database, [query], [names(passages), names(ranks)], task.output)


def sorted_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Tables as one, in order of the rows and what else `task.input` names: (tables, order)."""
    tables, order = task.input
    query = f"SELECT * FROM read_parquet($1) ORDER BY row, {order}"
    with connect(spill_folder(task)) as database:
        write_queries(database, [query], [names(tables)], task.output)


def of_rows(table: Path, drafts: list[Draft]) -> dict[int, list[dict[str, Any]]]:
    """What a table in order of rows holds of some drafts: row -> its lines."""
    rows = [draft.row for draft in drafts]
    span = [("row", ">=", min(rows, default=0)), ("row", "<=", max(rows, default=-1))]
    found: dict[int, list[dict[str, Any]]] = {}
    for line in pq.read_table(table, filters=span, use_threads=False).to_pylist():
        found.setdefault(line["row"], []).append(line)
    return found


def cut_passages(
    drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None], *, repeats: Path
) -> None:
    """The stage that cuts what a table of repeats names, and drops what little is left then."""
    found = of_rows(repeats, drafts)
    for number, draft in enumerate(drafts):
        at(number)
        if draft.row not in found:
            continue
        lines = found[draft.row]
        pieces = [*SEPARATORS[config.passages].split(draft.text), ""]  # each with what follows it
        for line in lines:
            pieces[2 * line["place"] : 2 * line["place"] + 2] = "", ""
        text = "".join(pieces).strip()
        if len(text) < LEAST_LEFT:
            share = f"{len(lines)} of {len(pieces) // 2} {config.passages}s"
            draft.drop("repeated-passages", f"{share} stand elsewhere: {lines[0]['kept']}")
        else:
            draft.text, draft.id = text, document_id(text)


def repeats_counts_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """How many passages are cut from how many documents, as JSON."""
    query = "SELECT count(*), count(DISTINCT row) FROM read_parquet($1)"
    with connect(spill_folder(task)) as database:
        passages, documents = database.sql(query, params=[str(task.input)]).fetchall()[0]
    write_json(task.output, {"cut": passages, "documents": documents})
