"""split: 90% for training, 5% to choose by, 5% to report; dropped documents beside them.

Texts are put in order of their ids without a sort larger than memory: each shard is cut by ranges
of ids, and one task gathers a range from all shards into one part file of each split. Ids are
hashes, so the ranges are equally full.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import SCHEMA, Draft, read_shard
from gptwo.pool import Task
from gptwo.urls import canonical_key

PART_CHARACTERS = 32_000_000  # per range of ids, over all splits
GROUP_ROWS = 1_024
SPLITS = ("train", "valid", "test")
DROPPED = "dropped"
_KEPT = ("id", "url", "text", "score", "date", "lang", "source", "meta")
_SET_ASIDE = (*_KEPT, "stage", "reason", "detail")
_CUT = pa.schema(
    [SCHEMA.field(name) for name in (*_KEPT, "reason", "detail")]
    + [
        pa.field("stage", pa.string()),
        pa.field("split", pa.string()),
        pa.field("range", pa.int32()),
        pa.field("characters", pa.int64()),
    ]
)


def cut_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """All documents of one shard, kept and dropped at whatever stage, in order of their ids.

    `task.input` is the shard's file in each stage, in order, and the number of ranges.
    """
    files, ranges = task.input
    rows = []
    for stage, path in files:
        last = path == files[-1][1]
        for draft in read_shard(path, kept=False):
            if draft.reason or last:
                at(len(rows))
                rows.append(_row(draft, stage, ranges, config))
    rows.sort(key=lambda row: row["id"])
    with atomic_write(task.output) as handle, pq.ParquetWriter(handle, _CUT) as writer:
        for number in sorted({row["range"] for row in rows}):
            group = [row for row in rows if row["range"] == number]
            writer.write_table(pa.Table.from_pylist(group, schema=_CUT))


def _row(draft: Draft, stage: str, ranges: int, config: CorpusConfig) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(draft, name) for name in (*_KEPT, "reason", "detail")}
    return row | {
        "stage": stage if draft.reason else "",
        "split": DROPPED if draft.reason else split_of(draft.id, draft.url, config),
        "range": int(draft.id[:8], 16) * ranges >> 32,
        "characters": len(draft.text),
    }


def gather_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """One range of ids from all shards -> `part-NNNNN.parquet` of each split, the output last."""
    cuts, number = task.input
    parts = [pq.read_table(path, filters=[("range", "==", number)], schema=_CUT) for path in cuts]
    order = ("id", "stage", "reason", "url", "source", "detail", "date", "score", "meta")
    table = pa.concat_tables(parts).sort_by([(name, "ascending") for name in order])
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


def count_ranges(files: list[Path]) -> int:
    """Into how many part files the texts of some shards go; it depends on the texts alone."""
    total = 0
    for path in files:
        total += sum(pq.read_table(path, columns=["length"])["length"].to_pylist())
    return total // PART_CHARACTERS + 1


def count_documents(
    database: duckdb.DuckDBPyConnection, cuts: list[Path]
) -> tuple[dict[str, int], dict[str, int]]:
    """Documents and characters of each split."""
    rows = database.sql(
        "SELECT split, count(*), sum(characters)::BIGINT FROM read_parquet($1) GROUP BY split",
        params=[[str(path) for path in cuts]],
    ).fetchall()
    found = {name: (documents, characters) for name, documents, characters in rows}
    return (
        {name: found.get(name, (0, 0))[0] for name in SPLITS},
        {name: found.get(name, (0, 0))[1] for name in SPLITS},
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
