"""How documents lie on disk between the stages: Parquet files of drafts, a shard each.

A stage looks at a shard's drafts in memory and drops some; several stages run one after another
before the shard is written again. A dropped draft stays in its shard, with the stage and the
reason; later stages do not see it.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write
from gptwo.corpus.config import CorpusConfig
from gptwo.pool import Task

SHARD_DOCUMENTS = 1024  # documents per work file ...
GROUP_ROWS = 1 << 14  # of a row group
SHARD_BYTES = 8_000_000  # ... and no more bytes than this: what is redone after a kill, and memory

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("text", pa.large_string()),
        ("score", pa.int32()),
        ("date", pa.string()),
        ("lang", pa.string()),
        ("source", pa.string()),
        ("meta", pa.string()),
        ("payload", pa.large_binary()),
        ("charset", pa.string()),
        ("final_url", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
_LONG = ("text", "payload", "set", "detail", "id")  # hardly two alike: a dictionary would only cost


@dataclass(slots=True)
class Draft:
    """A document on its way; its fields are the columns of SCHEMA.

    `payload` is HTML still to be extracted, None where text came in.
    """

    row: int = -1  # position among all that was read: a name for joins, never in the result
    id: str = ""
    url: str = ""
    text: str = ""
    score: int | None = None
    date: str = ""
    lang: str = ""
    source: str = ""
    meta: str = "{}"
    payload: bytes | None = None
    charset: str = ""
    final_url: str = ""  # where a redirect led, when it led elsewhere
    stage: str = ""  # that dropped it, filled in by `run_stages`
    reason: str = ""  # why it was dropped; empty while it is kept
    detail: str = ""

    def drop(self, reason: str, detail: str = "") -> None:
        """Set the draft aside; `detail` holds the number or the place that decided."""
        self.reason, self.detail = reason, detail


# Looks at the drafts that are still kept and drops some: `stage(drafts, config, at)` calls
# `at(number)` before it touches drafts[number]. May be a `functools.partial` that holds file names.
Stage = Callable[[list[Draft], CorpusConfig, Callable[[int], None]], None]


def run_stages(
    drafts: list[Draft],
    stages: Sequence[tuple[str, Stage]],
    config: CorpusConfig,
    at: Callable[[int], None],
    skip: Iterable[tuple[int, str]] = (),
) -> None:
    """Put the drafts of a shard through named stages, each without those dropped before.

    `skip` are numbers of drafts that killed a worker, each with how.
    """
    killers = dict(skip)
    for number, draft in enumerate(drafts):
        if number in killers and stages and not draft.reason:
            page = draft.payload is not None
            draft.drop("killed-the-extractor" if page else "killed-a-worker", killers[number])
            draft.stage = stages[0][0]
    for name, stage in stages:
        numbers = [number for number, draft in enumerate(drafts) if not draft.reason]
        kept = [drafts[number] for number in numbers]
        stage(kept, config, lambda place, numbers=numbers: at(numbers[place]))
        for draft in kept:
            if draft.reason:
                draft.stage = name
    at(-1)  # what kills a worker now is no document


def stages_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """A shard in, the same documents out after some stages; the input is `(shard, stages)`."""
    shard, stages = task.input
    drafts = read_shard(shard, kept=False)
    run_stages(drafts, stages, config, at, task.skip)
    write_shard(task.output, drafts)


def document_id(text: str) -> str:
    """128-bit hash of a text, 32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """One form for what no text should hold: CRLF, NUL, byte-order mark, lone surrogates."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.replace("\0", "").removeprefix("\ufeff").strip()
    try:
        if not text.isascii():
            text.encode()
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text


def columns_of(drafts: Sequence[Draft], schema: pa.Schema = SCHEMA) -> dict[str, pa.Array]:
    """The fields of drafts as Arrow columns of some schema whose names are fields."""
    return {
        field.name: pa.array([getattr(draft, field.name) for draft in drafts], field.type)
        for field in schema
    }


def write_shard(path: Path, drafts: Iterable[Draft]) -> None:
    """Write drafts to a Parquet file that appears whole."""
    write_table(path, pa.table(columns_of(list(drafts)), SCHEMA))


def read_shard(path: Path, *, kept: bool = True) -> list[Draft]:
    """The drafts of a file; with `kept` only those that no stage has dropped."""
    columns = [column.to_pylist() for column in read_table(path).select(SCHEMA.names).columns]
    drafts = [Draft(*values) for values in zip(*columns, strict=True)]
    return [draft for draft in drafts if not draft.reason] if kept else drafts


def write_table(
    path: Path, table: pa.Table, *, part: str = "", group_rows: int = GROUP_ROWS
) -> None:
    """Write a work file that appears whole.

    With `part` the table is in order of that column, and each of its values is a row group, which
    `read_part` finds without reading the others.
    """
    schema = table.schema
    with atomic_write(path) as handle, writer(handle, schema, _short(schema)) as out:
        for group in by_part(table, part) if part else (table,):
            out.write_table(group, group_rows)


def _short(schema: pa.Schema) -> list[str]:
    """Columns whose values recur, so that a dictionary of them saves room."""
    return [name for name in schema.names if name not in _LONG]


def writer(handle: IO[bytes], schema: pa.Schema, dictionaries: list[str]) -> pq.ParquetWriter:
    return pq.ParquetWriter(handle, schema, compression="zstd", use_dictionary=dictionaries)  # type: ignore[arg-type]


def by_part(table: pa.Table, part: str) -> Iterator[pa.Table]:
    """The stretches of equal values of a sorted column."""
    start = 0
    for run in table[part].combine_chunks().value_counts().to_pylist() if table.num_rows else ():
        yield table.slice(start, run["counts"])
        start += run["counts"]


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A work file in memory, without the threads that `pyarrow.parquet.read_table` would start."""
    with pq.ParquetFile(path) as file:
        return file.read(list(columns) if columns else None, use_threads=False)


def read_part(paths: Iterable[Path], part: str, number: int) -> Iterator[pa.Table]:
    """The rows where the column `part` is `number`, of files that `write_table` made with it."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for group, found in enumerate(parts_of(file, part)):
                if found == number:
                    yield file.read_row_group(group, use_threads=False)


def parts_of(file: pq.ParquetFile, part: str) -> list[int]:
    """The value of the column `part` in each row group."""
    column = file.schema_arrow.get_field_index(part)
    groups = range(file.metadata.num_row_groups)
    return [file.metadata.row_group(group).column(column).statistics.min for group in groups]


def merge_parts(paths: Sequence[Path], part: str, out: Path) -> None:
    """Files that `write_table` made with `part` as one such file, a part in memory at a time."""
    with ExitStack() as opened:
        files = [opened.enter_context(pq.ParquetFile(path)) for path in paths]
        places: dict[int, list[tuple[pq.ParquetFile, int]]] = {}
        for file in files:
            for group, found in enumerate(parts_of(file, part)):
                places.setdefault(found, []).append((file, group))
        schema = files[0].schema_arrow
        with atomic_write(out) as handle, writer(handle, schema, _short(schema)) as merged:
            for _, groups in sorted(places.items()):
                tables = [file.read_row_group(group, use_threads=False) for file, group in groups]
                merged.write_table(pa.concat_tables(tables), GROUP_ROWS)
