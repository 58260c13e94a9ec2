"""Overlap of a corpus with test sets, and of a model's texts with its corpus: paper section 4.

The corpus room reads texts and counts n-grams, the zeroshot room knows test sets, scores and the
model; what they find becomes one folder here. Its format is told in docs/overlap.md.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import (
    WORK,
    Manifest,
    Stage,
    atomic_write,
    digest,
    open_folder,
    read_json,
    sha256_file,
    stage,
    write_json,
)
from gptwo.config import to_dict
from gptwo.corpus.overlap.members import (
    LINES,
    WORDS,
    Members,
    check_filter,
    corpus_parts,
    read_members,
)
from gptwo.corpus.overlap.ngrams import PROBES, VERSION
from gptwo.corpus.overlap.shares import Shares, TestSet, own_parts, shares, text_shares
from gptwo.errors import DataError, UsageError
from gptwo.pool import count_workers
from gptwo.progress import SILENT, Reporter
from gptwo.recipes import BUILT_IN_TASKS
from gptwo.zeroshot.continuations import SPLIT, TOP_K, continuations, lengths, whole_words
from gptwo.zeroshot.overlap import (
    SECTION_4,
    TABLE_6,
    described,
    score_inputs,
    scores_apart,
    share_interval,
    test_files,
    unpack,
)
from gptwo.zeroshot.run import TASKS, Subject

RESULT, EXAMPLES, TEXTS = "overlap.json", "examples.parquet", "continuations.jsonl"
TRAIN, UNPACKED = "train", "unpacked"
FIGURE_5 = {
    "generated": "most samples share under 1%, none over 30%",
    "true_median": 0.026,
}


@dataclass(frozen=True, kw_only=True)
class OverlapConfig:
    """How overlap is measured. N-grams have eight words, as the paper's."""

    documents: int = 200  # held-out ones whose beginnings the model continues
    seed: int = 0  # of their choice, of the texts and of the bootstrap

    def __post_init__(self) -> None:
        if self.documents < 1:
            raise ValueError(f"documents must be at least 1, found {self.documents}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, found {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Against:
    """What a corpus is held against: tasks (all with files), their data, results, a model."""

    tasks: Sequence[str] = ()
    data: Path | None = None
    scores: Path | None = None
    model: Subject | None = None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Where things lie; `scores` and `model` may be absent."""

    corpus: Path
    out: Path
    scores: Path | None
    model: Path | None


def parts_of(source: Path, *, out: Path | None, scores: Path | None, model: Path | None) -> Parts:
    """What is not named is the run's own, where `source` is a run that has it."""
    corpus = source / "corpus"
    if not corpus.exists():
        if out is None:
            raise UsageError(f"{source} is no run, so --out is needed", remedy="name a folder")
        return Parts(corpus=source, out=out, scores=scores, model=model)
    own_scores, own_model = source / "scores", source / "checkpoints"
    return Parts(
        corpus=corpus,
        out=out or source / "overlap",
        scores=scores or (own_scores if own_scores.exists() else None),
        model=model or (source if own_model.exists() else None),
    )


def measure_overlap(
    corpus: Path,
    out: Path,
    config: OverlapConfig,
    against: Against,
    *,
    workers: int = 0,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Write out/overlap.json and what it is made of; kind "overlap".

    The result does not depend on `workers` (threads; 0: one per core) nor on interruptions. A test
    set that is missing or not the published one is left out, with the reason; sets asked for by
    name that were left out raise `DataError` after the others are done.
    """
    fingerprint = open_folder(corpus, "corpus", hashes=False).fingerprint
    if against.scores and not against.scores.is_dir():
        raise DataError(f"{against.scores} does not exist", remedy="name results of gptwo eval")
    sets, left_out = _find_sets(against, out / WORK / UNPACKED, reporter)
    tasks = [test.task for test, _ in sets]
    if not sets and against.model is None:
        raise DataError(
            "; ".join(f"{task}: {why}" for task, why in left_out.items()) or "no test set is named",
            remedy="name the folder of evaluation sets with --data, or a --model",
        )
    inputs = {"corpus": fingerprint, **_inputs(sets, against)}
    settings = {**to_dict(config), "words": WORDS, "ngrams_version": VERSION}
    with stage(out, kind="overlap", config=settings, inputs=inputs) as made:
        manifest = made.done
        if not manifest:
            work = _Work(made, corpus, config, count_workers(workers), reporter)
            result = work.measure(sets, left_out, against)
            write_json(made.folder / RESULT, result)
            manifest = made.commit(counts=_counts(result))
    missing = [task for task in against.tasks if task in left_out]
    if missing:
        raise DataError(
            "; ".join(f"{task}: {left_out[task]}" for task in missing)
            + f" (finished: {', '.join(tasks) or 'the model'})",
            remedy="put the files there, delete the folder and run the command again",
        )
    return manifest


def _inputs(sets: Sequence[tuple[TestSet, dict[str, Any]]], against: Against) -> dict[str, str]:
    """What the result is made from besides the corpus: name -> fingerprint."""
    found = {test.task: digest(about) for test, about in sets}
    for test, _ in sets:
        if test.train and test.train not in test.files:
            found[f"{test.task} train"] = sha256_file(test.train)
    if against.scores:
        found |= score_inputs(against.scores, [test.task for test, _ in sets])
    if against.model:
        found["model"] = str(against.model.description["weights_sha256"])
    return found


def _find_sets(
    against: Against, unpacked: Path, reporter: Reporter
) -> tuple[list[tuple[TestSet, dict[str, Any]]], dict[str, str]]:
    """The sets that are there with how they are described, and why others are not."""
    sets, left_out = [], {}
    if not against.tasks and against.data is None:
        return sets, left_out
    for task in against.tasks or [task for task in TASKS if task not in BUILT_IN_TASKS]:
        try:
            about = described(task, against.data)
        except DataError as error:
            reporter.say(f"{task}: left out, {error.message}")
            left_out[task] = error.message
            continue
        files = test_files(about, against.data, unpacked)
        sets.append((TestSet(task=task, files=files), about))
    return sets, left_out


def _counts(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "filter": result["filter"],
        "table": {row["task"]: round(row["share"], 6) for row in result["table"]},
        "left_out": result["left_out"],
        "scores": {
            f"{row['task']}, {row['part']} (n={row['n']:,})": row["metrics"]
            for row in result["scores"]["rows"]
        },
        "medians": (result["curve"] or {}).get("medians", {}),
    }


class _Work:
    """One measurement: the folder being made, and what every step of it needs."""

    def __init__(
        self, made: Stage, corpus: Path, config: OverlapConfig, threads: int, reporter: Reporter
    ) -> None:
        self.made, self.corpus, self.config = made, corpus, config
        self.threads, self.reporter = threads, reporter

    def measure(
        self,
        sets: list[tuple[TestSet, dict[str, Any]]],
        left_out: dict[str, str],
        against: Against,
    ) -> dict[str, Any]:
        """The value of overlap.json."""
        members = self._members()
        found: dict[str, Shares] = {}
        rows = []
        for test, about in sets:
            self.reporter.check()
            try:
                unpack(about, against.data, self._folder(UNPACKED))
                found[test.task] = shares(test, members.filter)
                rows.append(self._row(test, found[test.task]))
            except DataError as error:
                self.reporter.say(f"{test.task}: left out, {error.message}")
                left_out[test.task] = error.message
        self._write_examples(found)
        scores = self._scores(sets, found, against.scores) if against.scores else []
        curve = self._curve(against.model, members) if against.model else None
        return {
            "words": WORDS,
            "corpus": {
                "fingerprint": self.made.inputs["corpus"],
                "split": TRAIN,
                **{k: v for k, v in vars(members).items() if k != "filter"},
            },
            "filter": _describe(members),
            "table": rows,
            "left_out": left_out,
            "mean_overlap": {task: float(each.of_each.mean()) for task, each in found.items()},
            "scores": {"rows": scores, "paper": SECTION_4},
            "curve": curve,
        }

    def _members(self) -> Members:
        documents = open_folder(self.corpus, "corpus", hashes=False).counts["documents"][TRAIN]
        return read_members(
            corpus_parts(self.corpus, TRAIN),
            self._folder("corpus"),
            title="the training split",
            documents=documents,
            threads=self.threads,
            reporter=self.reporter,
        )

    def _folder(self, name: str) -> Path:
        path = self.made.work / name
        path.mkdir(exist_ok=True)
        return path

    def _row(self, test: TestSet, found: Shares) -> dict[str, Any]:
        paper = TABLE_6.get(test.task)
        return {
            "task": test.task,
            "files": [path.name for path in test.files],
            "examples": len(found.examples),
            "too_short": int((found.ngrams == 0).sum()),
            "examples_hit": int((found.found > 0).sum()),
            "ngrams": int(found.ngrams.sum()),
            "found": int(found.found.sum()),
            **self._share(found),
            "own_train": self._own_share(test) if test.train else None,
            "paper": {"own_train": paper[0], "webtext": paper[1]} if paper else None,
        }

    def _own_share(self, test: TestSet) -> dict[str, Any] | None:
        """The same of the set's own training split; None where that cannot be read."""
        try:
            members = read_members(
                own_parts(test),
                self._folder(test.task),
                title=f"{test.task}'s own training split",
                threads=self.threads,
                reporter=self.reporter,
            )
        except DataError as error:
            self.reporter.say(f"{test.task}: own training split left out, {error.message}")
            return None
        return self._share(shares(test, members.filter))

    def _share(self, found: Shares) -> dict[str, Any]:
        counts = found.found.tolist(), found.ngrams.tolist()
        between = share_interval(*counts, seed=self.config.seed)
        return {"share": sum(counts[0]) / sum(counts[1]), "interval": asdict(between)}

    def _write_examples(self, found: dict[str, Shares]) -> None:
        table = pa.table(
            {
                "task": pa.array(
                    [task for task, each in found.items() for _ in each.examples], pa.string()
                ),
                **{
                    name: pa.array(
                        [n for each in found.values() for n in getattr(each, of).tolist()],
                        pa.int64(),
                    )
                    for name, of in (
                        ("example", "examples"),
                        ("ngrams", "ngrams"),
                        ("found", "found"),
                    )
                },
            }
        )
        with atomic_write(self.made.folder / EXAMPLES) as handle:
            pq.write_table(table, handle)

    def _scores(
        self, sets: list[tuple[TestSet, dict[str, Any]]], found: dict[str, Shares], scores: Path
    ) -> list[dict[str, Any]]:
        """Rows of all tasks whose results are there; what is not is told and left out."""
        rows = []
        for test, about in sets:
            if test.task not in found or not (scores / f"{test.task}.json").exists():
                continue
            each = found[test.task]
            share = dict(zip(each.examples.tolist(), each.of_each.tolist(), strict=True))
            try:
                rows += scores_apart(scores, test.task, share, about)
            except DataError as error:
                self.reporter.say(f"scores of {test.task}: left out, {error.message}")
        return rows

    def _curve(self, model: Subject, members: Members) -> dict[str, Any]:
        config = self.config
        texts = continuations(
            model,
            self.corpus,
            self.made.work / "continuations.jsonl.zst",
            documents=config.documents,
            seed=config.seed,
            reporter=self.reporter,
        )
        curve: dict[str, Any] = {}
        for kind in ("generated", "true"):
            each = text_shares([whole_words(text[kind]) for text in texts], members.filter)
            for text, share in zip(texts, each.of_each.tolist(), strict=True):
                text[f"{kind}_share"] = share
            curve[kind] = sorted(each.of_each[each.ngrams > 0].tolist())
        with atomic_write(self.made.folder / TEXTS, "w") as handle:
            handle.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
        prompt, more = lengths(model)
        return {
            "model": model.description,
            "split": SPLIT,
            "documents": len(texts),
            "prompt_tokens": prompt,
            "continuation_tokens": more,
            "top_k": TOP_K,
            "temperature": 1.0,
            "seed": config.seed,
            **curve,
            "medians": {k: float(np.median(v)) if v else None for k, v in curve.items()},
            "paper": FIGURE_5,
        }


def _describe(members: Members) -> dict[str, Any]:
    return {
        "bytes": members.filter.nbytes,
        "probes": LINES * PROBES,
        "bits_per_ngram": round(8 * members.filter.nbytes / members.distinct_ngrams, 1),
        **check_filter(members.filter),
    }


def read_overlap(folder: Path) -> dict[str, Any]:
    """overlap.json of a finished folder."""
    open_folder(folder, "overlap")
    return read_json(folder / RESULT)
