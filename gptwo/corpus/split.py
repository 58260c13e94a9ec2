"""split: 90% for training, 5% to choose by, 5% to report; dropped documents beside them.

Texts are put in order of their ids without a sort larger than memory: each shard is cut by ranges
of ids, many cut shards become one file, and one task gathers a range from all of those into one
part file of each split. Ids are hashes, so the ranges are equally full.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import connect, names, spill_folder
from gptwo.corpus.shards import (
    SCHEMA,
    columns_of,
    merge_parts,
    read_part,
    read_shard,
    run_stages,
    write_table,
)
from gptwo.pool import Task
from gptwo.urls import canonical_key

PART_CHARACTERS = 8_000_000  # per range of ids, over all splits; a task takes five times the bytes
GROUP_ROWS = 1_024
MERGED = 64  # files as one: every part looks into all files, so there must not be many
SPLITS = ("train", "valid", "test")
DROPPED = "dropped"
_KEPT = ("id", "url", "text", "score", "date", "lang", "source", "meta")
_SET_ASIDE = (*_KEPT, "stage", "reason", "detail")
_CUT = pa.schema([SCHEMA.field(name) for name in _SET_ASIDE])


def cut_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """All documents of one shard, kept and dropped, in order of their ids and cut by ranges.

    `task.input` is the shard, the stages that it has still to go through, and how many ranges there
    are.
    """
    shard, stages, ranges = task.input
    drafts = read_shard(shard, kept=False)
    run_stages(drafts, stages, config, at, task.skip)
    drafts.sort(key=lambda draft: draft.id)
    splits = [DROPPED if d.reason else split_of(d.id, d.url, config) for d in drafts]
    places = [int(draft.id[:8], 16) * ranges >> 32 for draft in drafts]
    columns = {
        **columns_of(drafts, _CUT),
        "split": pa.array(splits, pa.string()),
        "range": pa.array(places, pa.int32()),
        "characters": pa.array([len(draft.text) for draft in drafts], pa.int64()),
    }
    write_table(task.output, pa.table(columns), part="range")


def merge_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """What was cut of many shards as one file."""
    merge_parts(task.input, "range", task.output)


def gather_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """One range of ids from all shards -> `part-NNNNN.parquet` of each split, the output last."""
    cuts, number = task.input
    parts = list(read_part(cuts, "range", number))
    table = pa.concat_tables(parts) if parts else _CUT.empty_table()
    order = ("id", "stage", "reason", "url", "source", "detail", "date", "score", "meta")
    table = table.sort_by([(name, "ascending") for name in order])
    folder = task.output.parent.parent
    for name in (DROPPED, *reversed(SPLITS)):
        columns = list(_SET_ASIDE if name == DROPPED else _KEPT)
        chosen = table.filter(pc.field("split") == name).select(columns)
        with atomic_write(folder / name / task.output.name) as handle:
            pq.write_table(  # no two texts are alike: a dictionary of them would only take memory
                chosen,
                handle,
                compression="zstd",
                row_group_size=GROUP_ROWS,
                use_dictionary=[name for name in columns if name != "text"],  # type: ignore[arg-type]
            )
        at(chosen.num_rows)


def part_files(out: Path, ranges: int) -> list[Path]:
    """The file of the first split that ends each range's task."""
    return [out / SPLITS[0] / f"part-{number:05}.parquet" for number in range(ranges)]


def count_ranges(characters: int) -> int:
    """Into how many part files the texts go; it depends on the texts alone."""
    return characters // PART_CHARACTERS + 1


def counts_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The manifest's counts, as JSON: documents in, out and dropped by reason, stage by stage.

    `task.input` is the names of all stages and what `cut_file` made of the shards.
    """
    stages, cuts = task.input
    with connect(spill_folder(task)) as database:
        rows = database.sql(
            """
            SELECT split, stage, reason, count(*), sum(characters)::BIGINT
            FROM read_parquet($1) GROUP BY ALL ORDER BY ALL
            """,
            params=[names(cuts)],
        ).fetchall()
    left, counts = sum(row[3] for row in rows), []
    for stage in stages:
        dropped = {row[2]: row[3] for row in rows if row[0] == DROPPED and row[1] == stage}
        out = left - sum(dropped.values())
        counts.append({"stage": stage, "in": left, "out": out, "dropped": dropped})
        left = out
    kept = {row[0]: row for row in rows}
    write_json(
        task.output,
        {
            "stages": counts,
            "documents": {name: kept[name][3] if name in kept else 0 for name in SPLITS},
            "characters": {name: kept[name][4] if name in kept else 0 for name in SPLITS},
        },
    )


def split_of(identity: str, url: str, config: CorpusConfig) -> str:
    """`"train"`, `"valid"` or `"test"`, by a hash of the URL, or of the id where there is none.

    It depends on nothing else, so a document stays on its side whatever joins the corpus later.
    """
    try:
        key = canonical_key(url)
    except ValueError:  # a file's name, or none at all
        key = url or identity
    number = int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest())
    share = number / 2**64
    if share < config.test_share:
        return "test"
    return "valid" if share < config.test_share + config.valid_share else "train"
