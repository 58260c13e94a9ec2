"""Link files -> one table of links worth fetching (paper section 2.1: at least 3 karma).

One thread reads a file into blocks of lines, others judge them, and what they found is written in
the order of the file: so the result is the same for any number of threads. What is kept goes to
disk as candidates; DuckDB sorts those by key, spilling where they are many, and of each key the
best one stays. Memory follows neither the number of submissions nor that of links.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import IO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.artifacts import (
    Manifest,
    Stage,
    atomic_write,
    fingerprint_inputs,
    label_paths,
    read_json,
    sha256_file,
    stage,
    write_json,
)
from gptwo.errors import DataError, ResourceError, UsageError
from gptwo.pool import count_workers, in_order
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.streams import position
from gptwo.web.config import LinksConfig
from gptwo.web.rules import ABSENT
from gptwo.web.screen import DROPPED, FAULTS_SHOWN, LINKS, Screened, Screener, repeated, words_of
from gptwo.web.submissions import Block, is_dump, opened, parse, read_blocks

GROUP_ROWS = 100_000  # written together
LIST_ROWS = 10_000  # of a CSV or a list of URLs, judged together
MEMORY_LIMIT = "512MB"  # of the sort; beyond it spills


def collect_links(
    files: list[Path],
    out: Path,
    config: LinksConfig,
    reporter: Reporter = SILENT,
    *,
    workers: int = 0,
) -> Manifest:
    """Filter and de-duplicate `files` into out/links.parquet (by key) and out/dropped.parquet.

    The fingerprint is that of the kept links. A killed run goes on behind the last whole file.
    """
    if not files:
        raise UsageError("no link file is given", remedy="name a Reddit dump or a list of URLs")
    inputs, threads = fingerprint_inputs(files), count_workers(workers)
    with stage(out, kind="links", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        parts = []
        with reporter.bar("links", None, "submissions") as bar:
            for number, (path, label) in enumerate(label_paths(files).items()):
                part = _Part(path, made.work / f"{number:05d}", inputs[label])
                part.make(Screener(config, path.name), threads, bar, reporter)
                parts.append(part)
        return _join(made, parts, threads, reporter)


@dataclass
class _Part:
    """One link file, judged: NAME-kept.parquet and NAME-dropped.parquet, and then NAME.json."""

    path: Path
    name: Path
    sha256: str
    read: int = 0
    expanded_bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def file(self, ending: str) -> Path:
        return self.name.with_name(self.name.name + ending)

    def make(self, screener: Screener, threads: int, bar: Bar, reporter: Reporter) -> None:
        """Judge the file, or take over what a stopped run made of it."""
        if self._recover():
            bar.advance(self.read)
            return
        with (
            _written(self.file("-kept.parquet"), LINKS) as kept,
            _written(self.file("-dropped.parquet"), DROPPED) as dropped,
            opened(self.path) as stream,
        ):

            def store(found: Screened) -> Screened:
                kept.add(found.kept)
                dropped.add(found.dropped)
                return found

            with closing(in_order(store, self._screened(stream, screener, threads), 1)) as stored:
                for found in stored:
                    self._note(found)
                    done = position(stream) / self.path.stat().st_size
                    bar.advance(found.read, file=self.path.name, done=f"{done:.0%}")
                    reporter.check()
        self._check(screener.rules.config)
        names = ("sha256", "read", "expanded_bytes", "reasons", "faults")
        write_json(self.file(".json"), {name: getattr(self, name) for name in names})

    def _recover(self) -> bool:
        if not self.file(".json").exists():
            return False
        note = read_json(self.file(".json"))
        if note["sha256"] != self.sha256:
            return False
        self.read, self.expanded_bytes = note["read"], note["expanded_bytes"]
        self.reasons, self.faults = Counter(note["reasons"]), note["faults"]
        return True

    def _screened(self, stream: IO[bytes], screener: Screener, threads: int) -> Iterator[Screened]:
        blocks = self._watched(read_blocks(stream))
        first = next(blocks, Block(start=0))
        dump, blocks = is_dump(self.path, first), chain((first,), blocks)
        if dump:
            return in_order(screener.block, blocks, threads)
        found = parse(self.path, dump, blocks)
        return map(screener.submissions, iter(lambda: list(islice(found, LIST_ROWS)), []))

    def _note(self, found: Screened) -> None:
        self.read += found.read
        self.reasons.update({reason: n for reason, n in found.reasons.items() if reason})
        self.faults += found.faults[: FAULTS_SHOWN - len(self.faults)]

    def _watched(self, blocks: Iterator[Block]) -> Iterator[Block]:
        for block in blocks:
            self.expanded_bytes = block.start + len(block.data)
            yield block

    def _check(self, config: LinksConfig) -> None:
        bad = self.reasons["unreadable"]
        if bad > max(1, config.max_bad_share * self.read):
            raise DataError(
                f"{self.path}: {bad:,} of {self.read:,} lines cannot be read "
                f"({self.faults[0][:200]})",
                remedy="restore the file, or raise max_bad_share",
            )


def _join(made: Stage, parts: list[_Part], threads: int, reporter: Reporter) -> Manifest:
    """Of all candidates the best of each key, and everything else in one table."""
    reasons: Counter[str] = sum((part.reasons for part in parts), Counter())
    read = sum(part.read for part in parts)
    candidates = read - sum(reasons.values())
    if not candidates:
        why = ", ".join(f"{reason} {n:,}" for reason, n in sorted(reasons.items()))
        names = ", ".join(str(part.path) for part in parts[:3]) + (", ..." if parts[3:] else "")
        raise DataError(
            f"{names}: no link of {read:,} is kept ({why})",
            remedy="give other files, or loosen the rules",
        )
    kept = 0
    with (
        _written(made.folder / "links.parquet", LINKS) as links,
        _written(made.folder / "dropped.parquet", DROPPED) as dropped,
        reporter.bar("links: duplicates", candidates, "links") as bar,
    ):
        for part in parts:
            for table in _row_groups(part.file("-dropped.parquet")):
                dropped.add(table)
                reporter.check()
        files = [part.file("-kept.parquet") for part in parts]
        for best, worse in _by_key(files, made.work / "duckdb", threads):
            links.add(best)
            dropped.add(worse.append_column("reason", repeated("duplicate", len(worse))))
            kept += len(best)
            bar.advance(len(best) + len(worse))
            reporter.check()
    if candidates > kept:
        reasons["duplicate"] = candidates - kept
    return made.commit(
        counts={"read": read, "kept": kept, "dropped": dict(sorted(reasons.items()))},
        details={
            "expanded_bytes": sum(part.expanded_bytes for part in parts),
            "faults": {part.path.name: part.faults for part in parts if part.faults},
        },
        fingerprint=sha256_file(made.folder / "links.parquet"),
    )


def _row_groups(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _by_key(files: list[Path], work: Path, threads: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Candidates sorted by key, some at a time: the best of each key, and the others."""
    last = words_of([""])  # which is no key
    for batch in _sorted(files, work, threads):
        table = pa.Table.from_batches([batch]).cast(LINKS)
        keys = table.column("key").combine_chunks()
        before = pa.concat_arrays([last, keys[:-1]])
        is_best = pc.call_function("not_equal", [keys, before])
        yield table.filter(is_best), table.filter(pc.call_function("invert", [is_best]))
        last = keys[-1:]


def _sorted(files: list[Path], work: Path, threads: int) -> Iterator[pa.RecordBatch]:
    """Candidates by key, of each the better ones first.

    Better is the higher score, then the shorter and smaller address, the earlier day, the file.
    Nothing is left to the order of the files.
    """
    try:
        with duckdb.connect() as database:
            database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            database.execute(f"SET threads = {threads}")
            database.execute("SET temp_directory = $1", [str(work)])
            yield from database.sql(
                f"""SELECT {", ".join(LINKS.names)} FROM read_parquet($1)
                ORDER BY key, coalesce(score, {ABSENT}) DESC, length(url), url, date, source""",
                params=[[str(path) for path in files]],
            ).to_arrow_reader(GROUP_ROWS)
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # no room to spill to, mostly
        raise ResourceError(
            f"cannot sort links in {work}: {str(error).splitlines()[0]}",
            remedy="make room and run the same command again; nothing committed was lost",
        ) from error


class _Groups:
    """A Parquet file whose groups have GROUP_ROWS rows, however these come in."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self.writer, self.waiting, self.rows = writer, [], 0

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += len(table)
        while self.rows >= GROUP_ROWS:
            whole = pa.concat_tables(self.waiting)
            self._write(whole[:GROUP_ROWS])
            self.waiting = [whole[GROUP_ROWS:]]
            self.rows -= GROUP_ROWS

    def close(self) -> None:
        if self.rows:
            self._write(pa.concat_tables(self.waiting))

    def _write(self, table: pa.Table) -> None:
        self.writer.write_table(table.combine_chunks())  # pages must not tell how the rows came


@contextmanager
def _written(path: Path, schema: pa.Schema) -> Iterator[_Groups]:
    repeated = [name for name in schema.names if name not in ("url", "key")]
    with (
        atomic_write(path) as handle,
        pq.ParquetWriter(
            handle,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=repeated,  # type: ignore[arg-type]
        ) as writer,
    ):
        groups = _Groups(writer)
        yield groups
        groups.close()
