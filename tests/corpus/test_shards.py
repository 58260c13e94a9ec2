"""Shards: drafts on disk, and stages over them in memory."""

from pathlib import Path

import pyarrow as pa
import pytest

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import (
    SCHEMA,
    Draft,
    merge_parts,
    read_part,
    read_shard,
    read_table,
    run_stages,
    stages_file,
    write_shard,
    write_table,
)
from gptwo.pool import Task


def odd(drafts: list[Draft], config: CorpusConfig, at: object) -> None:
    for number, draft in enumerate(drafts):
        at(number)  # type: ignore[operator]
        if draft.row % 2:
            draft.drop("odd", str(draft.row))


def large(drafts: list[Draft], config: CorpusConfig, at: object) -> None:
    for number, draft in enumerate(drafts):
        at(number)  # type: ignore[operator]
        if draft.row > 5:
            draft.drop("large")


def test_stages_see_what_is_left_and_sign_what_they_drop() -> None:
    drafts = [Draft(row=row) for row in range(9)]
    drafts[0].drop("damaged")
    drafts[0].stage = "read"
    touched: list[int] = []
    run_stages(drafts, [("parity", odd), ("size", large)], CorpusConfig(), touched.append)
    assert [(d.stage, d.reason) for d in drafts] == [
        ("read", "damaged"), ("parity", "odd"), ("", ""), ("parity", "odd"), ("", ""),
        ("parity", "odd"), ("size", "large"), ("parity", "odd"), ("size", "large"),
    ]  # fmt: skip
    # Numbers are places in the shard, whatever was dropped before; then no document is at fault.
    assert touched == [1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 6, 8, -1]


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"<p>", "killed-the-extractor"), (None, "killed-a-worker")]
)
def test_what_killed_workers_is_set_aside(payload: bytes | None, reason: str) -> None:
    drafts = [Draft(row=0, payload=payload), Draft(row=2, payload=payload), Draft(row=4)]
    skip = [(1, "SIGSEGV"), (7, "SIGKILL")]
    run_stages(drafts, [("extract", odd), ("size", large)], CorpusConfig(), [].append, skip)
    assert [draft.reason for draft in drafts] == ["", reason, ""]
    assert (drafts[1].stage, drafts[1].detail) == ("extract", "SIGSEGV")


def test_a_shard_comes_back_as_it_was(tmp_path: Path) -> None:
    drafts = [
        Draft(row=1 << 50, id="a", url="u", text="té\n", score=-3, date="d", lang="en"),
        Draft(source="s", meta='{"a": 1}', payload=b"\x00\xff", charset="x", final_url="f"),
        Draft(stage="read", reason="empty", detail="line 3"),
    ]
    write_shard(tmp_path / "s.parquet", drafts)
    assert read_shard(tmp_path / "s.parquet", kept=False) == drafts
    assert read_shard(tmp_path / "s.parquet") == drafts[:2]
    assert SCHEMA.names == list(Draft.__slots__)
    task = Task(input=(tmp_path / "s.parquet", [("size", large)]), output=tmp_path / "t.parquet")
    stages_file(task, CorpusConfig(), lambda number: None)
    assert [d.stage for d in read_shard(task.output, kept=False)] == ["size", "", "read"]
    write_shard(tmp_path / "none.parquet", [])
    assert read_shard(tmp_path / "none.parquet") == []


def test_parts_are_found_in_every_file(tmp_path: Path) -> None:
    files = []
    for number in range(3):
        rows = sorted((row * 7 + number) % 4 for row in range(number * 10))
        table = pa.table({"part": pa.array(rows, pa.int64()), "from": pa.array(rows, pa.int8())})
        files.append(tmp_path / f"{number}.parquet")
        write_table(files[-1], table, part="part")
    everything = pa.concat_tables(map(read_table, files))
    for part in range(5):
        found = [row for table in read_part(files, "part", part) for row in table.to_pylist()]
        assert found == [row for row in everything.to_pylist() if row["part"] == part]


def test_many_cut_files_become_one(tmp_path: Path) -> None:
    """Merging changes no row; each part is found as before, in files that lack it too."""
    paths = []
    for number in range(7):
        ranges = sorted(n for n in range(5) if (n + number) % 3)
        rows = {"range": pa.array(ranges, pa.int32()), "text": [f"{number}-{n}" for n in ranges]}
        paths.append(tmp_path / f"{number}.parquet")
        write_table(paths[-1], pa.table(rows), part="range")
    write_table(tmp_path / "none.parquet", pa.table(rows).slice(0, 0), part="range")
    paths.append(tmp_path / "none.parquet")
    merge_parts(paths, "range", tmp_path / "merged.parquet")
    for number in range(6):
        apart, together = (
            [row for table in read_part(files, "range", number) for row in table.to_pylist()]
            for files in (paths, [tmp_path / "merged.parquet"])
        )
        assert apart == together and bool(apart) == (number < 5)
