"""The whole corpus: sources in, splits and set-aside documents out.

All work is done by tasks, each a pure function from input files to an output file in `.work`. A
task whose output is there is not done again.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gptwo.artifacts import Manifest, fingerprint_inputs, label_paths, read_json, stage
from gptwo.cluster import Cluster, check_executor, open_executor
from gptwo.config import to_dict
from gptwo.corpus import datasheet, split
from gptwo.corpus.cleaning.language import language
from gptwo.corpus.cleaning.rules import rules
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates import dedup, minhash, near, passages
from gptwo.corpus.extraction.extract import extract
from gptwo.corpus.overlap import decontaminate, encyclopedia, hits, ngrams
from gptwo.corpus.overlap.evaluation import find_sets
from gptwo.corpus.overlap.wikipedia import wikipedia
from gptwo.corpus.read import read_unit, shards_of
from gptwo.corpus.shards import Stage, stages_file
from gptwo.corpus.sources import Unit, find_units
from gptwo.errors import DataError
from gptwo.pool import Job, Pool, Task
from gptwo.progress import SILENT, Reporter

LAYOUT = "2"  # of the files in `.work`: unfinished work of another is not gone on with


def build_corpus(
    sources: list[Path],
    out: Path,
    config: CorpusConfig,
    *,
    workers: int = 0,
    reporter: Reporter = SILENT,
    executor: str = "pool",
    address: str = "",
) -> Manifest:
    """Clean, de-duplicate and split what `sources` hold (paper section 2.1).

    The result does not depend on `workers` (0: one per core), on the `executor` ("pool": processes
    of this machine; "ray": a Ray cluster, that at `address` or one of our own), on the order of the
    sources or on how often the work was interrupted. A script that calls this needs
    `if __name__ == "__main__":`, because worker processes import it.

    Raises:
        DataError: a source is missing, empty, of a kind we cannot read, or mostly damaged.
        ResourceError: the disk is full, or a worker dies without a document to blame.
    """
    check_executor(executor, address)
    units = find_units(sources)
    dumps = sorted(Path(path) for path in config.wikipedia_dump)
    evaluation = [Path(path) for path in config.decontaminate]
    sets = find_sets(evaluation)
    inputs = fingerprint_inputs([*sources, *dumps, *evaluation], reporter)
    settings = {
        **to_dict(config),
        "decontaminate": list(sets),  # names, not places
        "wikipedia_dump": sorted(label_paths(dumps).values()),
        "minhash_version": minhash.VERSION,
        "ngrams_version": ngrams.VERSION,
    }
    with stage(out, kind="corpus", config=settings, inputs=inputs) as made:
        if made.done:
            return made.done
        with open_executor(executor, address, config, workers, reporter, __name__) as pool:
            line = _Line(made.work / LAYOUT, pool)
            encyclopedic, evaluated = line.index_dumps(dumps), line.index_sets(sets)
            line.read(units)
            line.then("extract", extract)
            line.then("language", language)
            line.then("rules", rules)
            line.settle("clean")
            line.drop_copies()
            line.drop_near_copies()
            if config.passages != "off":
                line.cut_passages()
            line.then("wikipedia", partial(wikipedia, index=encyclopedic))
            if evaluated:
                line.decontaminate(evaluated, out)
            counts = line.split(out)
            _refuse_nothing(counts)
            line.describe(out, counts)
        return made.commit(counts=counts, details=line.details)


def _refuse_nothing(counts: dict[str, Any]) -> None:
    if sum(counts["documents"].values()):
        return
    reasons = [f"{reason} {n:,}" for s in counts["stages"] for reason, n in s["dropped"].items()]
    raise DataError(
        f"none of {counts['stages'][0]['in']:,} documents is kept ({', '.join(reasons)})",
        remedy="give more text, or loosen the rules: see them with --dry-run",
    )


class _Line:
    """The shards on their way through the stages.

    Stages that look at each document by itself wait (`then`) until `settle` or `split` puts every
    shard through all that have waited, in one go; a join over all documents becomes such a stage.
    """

    def __init__(self, work: Path, pool: Pool | Cluster) -> None:
        self.work, self.pool = work, pool
        self.names: list[str] = []  # of all stages so far
        self.waiting: list[tuple[str, Stage]] = []
        self.shards: list[Path] = []
        self.details: dict[str, Any] = {}  # for the manifest

    def read(self, units: list[Unit]) -> None:
        """One task a unit; it alone knows how many shards it makes."""
        marks = [self.work / "read" / f"{number:05}.json" for number in range(len(units))]
        self._run("read", read_unit, zip(units, marks, strict=True))
        self.shards = [shard for mark in marks for shard in shards_of(mark)]
        self.names.append("read")

    def then(self, name: str, stage: Stage) -> None:
        """A stage that looks at each document by itself."""
        self.names.append(name)
        self.waiting.append((name, stage))

    def settle(self, folder: str) -> None:
        """Put every shard through the stages that wait; what follows sees the result."""
        self.shards = self._each(folder, stages_file, [(s, self.waiting) for s in self.shards])
        self.waiting = []

    def drop_copies(self) -> None:
        """exact-dedup: one of all documents with the same words, whatever lies between them."""
        self.keys = self._each("keys", dedup.keys_file, self.shards)
        totals = self._one("keys/totals.json", dedup.totals_file, self.keys)
        self.totals = read_json(totals)
        self.parts = self.totals["documents"] // dedup.PART_DOCUMENTS + 1
        asked = [(self.keys, part, self.parts) for part in range(self.parts)]
        self._drop("exact-dedup", dedup.copies_file, asked, "exact-copy")

    def drop_near_copies(self) -> None:
        """near-dedup: one of all documents that share most of their word 5-grams."""
        copies = self.work / "exact-dedup" / "losers.parquet"
        asked = [
            (self.keys, copies, bands, part, self.parts)
            for bands in near.band_groups(self.totals["documents"])
            for part in range(self.parts)
        ]
        pairs = self._many("near-dedup/pairs", near.pairs_file, asked)
        mark = self._one("near-dedup/buckets.json", near.buckets_file, (self.keys, pairs))
        rows, pairs_path = near.bucket_files(mark)
        sets = self._each("near-dedup/sets", near.sets_file, [(s, rows) for s in self.shards])
        buckets = [(sets, pairs_path, bucket) for bucket in range(near.count_buckets(mark))]
        self._drop("near-dedup", near.near_copies_file, buckets, "near-copy")

    def cut_passages(self) -> None:
        """passages: parts that several documents share, or that stand twice in one."""
        asked = [(shard, self.waiting) for shard in self.shards]
        found = self._each("passages/all", passages.passages_file, asked)
        parts = self.totals["documents"] // passages.PART_DOCUMENTS + 1
        asked = [(found, self.keys, part, parts) for part in range(parts)]
        cuts = self._many("passages/parts", passages.repeats_file, asked)
        repeats = self._one("passages/repeats.parquet", passages.sorted_file, (cuts, "place"))
        counts = self._one("passages/counts.json", passages.repeats_counts_file, repeats)
        self.details["passages"] = read_json(counts)
        self.then("passages", partial(passages.cut_passages, repeats=repeats))

    def index_dumps(self, dumps: list[Path]) -> Path | None:
        """What `wikipedia` looks for; made first, so that a bad dump is known at once."""
        if not dumps:
            return None
        every = encyclopedia.sampling(dumps)
        asked = [(path, every) for path in dumps]
        tables = self._many("wikipedia/articles", encyclopedia.articles_file, asked)
        return self._one("wikipedia/index.json", encyclopedia.encyclopedia_file, (tables, every))

    def index_sets(self, sets: dict[str, Path]) -> Path | None:
        """What `decontaminate` looks for; made first, so that a bad set is known at once."""
        if not sets:
            return None
        return self._one("decontaminate/index.json", hits.index_file, list(sets.items()))

    def decontaminate(self, index: Path, out: Path) -> None:
        """decontaminate: what evaluation sets hold; which documents and spans, and how much."""
        asked = [(shard, self.waiting, index) for shard in self.shards]
        held = self._each("decontaminate/hits", hits.hits_file, asked)
        common = self._one("decontaminate/common.parquet", decontaminate.common_file, held)
        asked = [(path, common, index) for path in held]
        found = self._each("decontaminate/spans", decontaminate.spans_file, asked)
        spans = self._one("decontaminate/spans.parquet", passages.sorted_file, (found, "begin"))
        listed = out / "contaminated.parquet"
        self._run("contaminated", decontaminate.contaminated_file, [(spans, listed)])
        source = (index, held, found)
        shares = self._one("decontaminate/overlap.json", decontaminate.table_file, source)
        self.details["overlap"] = read_json(shares)["sets"]
        self.then("decontaminate", partial(decontaminate.decontaminate, spans=spans))

    def split(self, out: Path) -> dict[str, Any]:
        """Every document into the part files of its split, or of the dropped; the counts."""
        ranges = split.count_ranges(self.totals["characters"])
        asked = [(shard, self.waiting, ranges) for shard in self.shards]
        cuts = self._each("split", split.cut_file, asked)
        merged, level = cuts, 0
        while len(merged) > split.MERGED:
            level += 1
            batches = [merged[i : i + split.MERGED] for i in range(0, len(merged), split.MERGED)]
            merged = self._many(f"split/merged-{level}", split.merge_file, batches)
        parts = split.part_files(out, ranges)
        gathered = [((merged, number), path) for number, path in enumerate(parts)]
        self._run("parts", split.gather_file, gathered)
        stages = [*self.names, "split"]
        return read_json(self._one("split/counts.json", split.counts_file, (stages, cuts)))

    def describe(self, out: Path, counts: dict[str, Any]) -> None:
        """The datasheet, beside the splits."""
        self._run("datasheet", datasheet.datasheet_file, [(counts, out / datasheet.JSON)])

    def _drop(self, name: str, job: Job, inputs: Sequence[Any], reason: str) -> None:
        """A stage that drops what some join finds, in as many parts as there are inputs."""
        found = self._many(f"{name}/parts", job, inputs)
        losers = self._one(f"{name}/losers.parquet", dedup.losers_file, found)
        self.then(name, partial(dedup.drop_losers, losers=losers, reason=reason))

    def _each(self, name: str, job: Job, inputs: Sequence[Any]) -> list[Path]:
        """A task for every shard: `.work/NAME/SHARD.parquet`."""
        outputs = [self.work / name / shard.name for shard in self.shards]
        return self._run(name, job, zip(inputs, outputs, strict=True))

    def _many(self, name: str, job: Job, inputs: Sequence[Any]) -> list[Path]:
        """A task for every part of a join: `.work/NAME/PART.parquet`."""
        outputs = [self.work / name / f"{part:05}.parquet" for part in range(len(inputs))]
        return self._run(name, job, zip(inputs, outputs, strict=True))

    def _one(self, name: str, job: Job, source: Any) -> Path:
        return self._run(name, job, [(source, self.work / name)])[0]

    def _run(self, name: str, job: Job, files: Iterable[tuple[Any, Path]]) -> list[Path]:
        tasks = [Task(input=source, output=path) for source, path in files]
        self.pool.run(f"corpus: {name}", job, tasks)
        return [task.output for task in tasks]
