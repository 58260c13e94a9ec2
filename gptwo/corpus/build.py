"""The whole corpus: sources in, splits and set-aside documents out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from gptwo.artifacts import Manifest, fingerprint_inputs, stage
from gptwo.config import to_dict
from gptwo.corpus import dedup, minhash, split
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.extract import extract_file
from gptwo.corpus.language import language_file
from gptwo.corpus.read import read_unit, shards_of
from gptwo.corpus.rules import rules_file
from gptwo.corpus.sources import Unit, find_units
from gptwo.corpus.wikipedia import wikipedia_file
from gptwo.errors import DataError
from gptwo.pool import Job, Pool, Task
from gptwo.progress import SILENT, Reporter


def build_corpus(
    sources: list[Path],
    out: Path,
    config: CorpusConfig,
    *,
    workers: int = 0,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Clean, de-duplicate and split what `sources` hold (paper section 2.1).

    The result does not depend on `workers` (0: one per core), on the order of the sources or on how
    often the work was interrupted. A script that calls this needs `if __name__ == "__main__":`,
    because worker processes import it.

    Raises:
        DataError: a source is missing, empty, of a kind we cannot read, or mostly damaged.
        ResourceError: the disk is full, or a worker dies without a document to blame.
    """
    units = find_units(sources)
    inputs = fingerprint_inputs(sources)
    settings = {**to_dict(config), "minhash_version": minhash.VERSION}
    with stage(out, kind="corpus", config=settings, inputs=inputs) as made:
        if made.done:
            return made.done
        with Pool(config, workers, reporter, preload=__name__) as pool:
            line = _Line(made.work, pool)
            line.read(units)
            line.each("extract", extract_file)
            line.each("language", language_file)
            line.each("rules", rules_file)
            line.drop_copies()
            line.drop_near_copies()
            line.each("wikipedia", wikipedia_file)
            line.split(out)
            counts = line.count()
        _refuse_nothing(counts)
        return made.commit(counts=counts)


def _refuse_nothing(counts: dict[str, Any]) -> None:
    if sum(counts["documents"].values()):
        return
    reasons = [f"{reason} {n:,}" for s in counts["stages"] for reason, n in s["dropped"].items()]
    raise DataError(
        f"none of {counts['stages'][0]['in']:,} documents is kept ({', '.join(reasons)})",
        remedy="give more text, or loosen the rules: see them with --dry-run",
    )


class _Line:
    """The shards on their way through the stages, as files `.work/STAGE/SHARD.parquet`."""

    def __init__(self, work: Path, pool: Pool) -> None:
        self.work, self.pool = work, pool
        self.stages: dict[str, list[Path]] = {}  # finished ones, in the order they were run
        self.shards: list[Path] = []  # of the latest of them

    def read(self, units: list[Unit]) -> None:
        """One task a unit; it alone knows how many shards it makes."""
        marks = [self.work / "read" / f"{number:05}.json" for number in range(len(units))]
        tasks = [Task(input=unit, output=mark) for unit, mark in zip(units, marks, strict=True)]
        self.pool.run("corpus: read", read_unit, tasks)
        self._finish("read", [shard for mark in marks for shard in shards_of(mark)])

    def each(self, name: str, job: Job, inputs: Sequence[Any] = ()) -> None:
        """A stage that looks at each document by itself."""
        self._finish(name, self._map(name, job, inputs or self.shards))

    def drop_copies(self) -> None:
        """exact-dedup: one of all documents with the same words, whatever lies between them."""
        keys = self._map("exact-dedup/keys", dedup.keys_file, self.shards)
        losers = self.work / "exact-dedup" / "losers" / "all.parquet"
        if not losers.exists():
            with self._database() as database:
                dedup.find_copies(database, keys, losers)
        self._mark("exact-dedup", losers, "exact-copy")

    def drop_near_copies(self) -> None:
        """near-dedup: one of all documents that share most of their word 5-grams."""
        folder = self.work / "near-dedup"
        ranks = self._names("exact-dedup/keys")
        bands = self._map("near-dedup/bands", dedup.bands_file, self.shards)
        pairs, losers = folder / "pairs" / "all.parquet", folder / "losers" / "all.parquet"
        if not pairs.exists():
            with self._database() as database:
                dedup.find_pairs(database, bands, pairs)
        asked = [(shard, pairs) for shard in self.shards]
        sets = self._map("near-dedup/shingles", dedup.shingles_file, asked)
        others = dedup.first_rows(sets)
        asked = [(path, pairs, others) for path in sets]
        similar = self._map("near-dedup/similar", dedup.similar_file, asked)
        if not losers.exists():
            with self._database() as database:
                dedup.find_near_copies(database, ranks, similar, losers)
        self._mark("near-dedup", losers, "near-copy")

    def split(self, out: Path) -> None:
        """Every document of every stage into the part files of its split, or of the dropped."""
        ranges = split.count_ranges(self._names("exact-dedup/keys"))
        asked = [
            ([(name, files[number]) for name, files in self.stages.items()], ranges)
            for number in range(len(self.shards))
        ]
        self.cuts = self._map("split", split.cut_file, asked)
        tasks = [
            Task(input=(self.cuts, number), output=path)
            for number, path in enumerate(split.part_files(out, ranges))
        ]
        self.pool.run("corpus: parts", split.gather_file, tasks)

    def count(self) -> dict[str, Any]:
        """The manifest's counts: documents in, out and dropped by reason, stage by stage."""
        with self._database() as database:
            documents, characters = split.count_documents(database, self.cuts)
            stages = [_count(database, name, files) for name, files in self.stages.items()]
        kept = sum(documents.values())
        stages.append({"stage": "split", "in": kept, "out": kept, "dropped": {}})
        return {"stages": stages, "documents": documents, "characters": characters}

    def _map(self, name: str, job: Job, inputs: Sequence[Any]) -> list[Path]:
        outputs = self._names(name)
        tasks = [Task(input=i, output=path) for i, path in zip(inputs, outputs, strict=True)]
        self.pool.run(f"corpus: {name}", job, tasks)
        return outputs

    def _names(self, name: str) -> list[Path]:
        return [self.work / name / shard.name for shard in self.stages["read"]]

    def _mark(self, name: str, losers: Path, reason: str) -> None:
        self.each(name, dedup.mark_file, [(shard, losers, reason) for shard in self.shards])

    def _finish(self, name: str, shards: list[Path]) -> None:
        self.stages[name] = self.shards = shards

    def _database(self) -> duckdb.DuckDBPyConnection:
        return dedup.connect(self.work / "duckdb", self.pool.workers)


def _count(database: duckdb.DuckDBPyConnection, name: str, files: list[Path]) -> dict[str, Any]:
    rows = database.sql(
        "SELECT reason, count(*) FROM read_parquet($1) GROUP BY reason ORDER BY reason",
        params=[[str(path) for path in files]],
    ).fetchall()
    dropped = {reason: n for reason, n in rows if reason}
    total = sum(n for _, n in rows)
    return {
        "stage": name,
        "in": total,
        "out": total - sum(dropped.values()),
        "dropped": dropped,
    }
