"""What test sets there are, and what a model scores without the examples that its corpus holds.

Paper section 4: of LAMBADA 1.2% of the 8-grams are in WebText; without every example that shares
one, perplexity went from 8.6 to 8.7 and accuracy from 63.2% to 62.9%.
"""

import difflib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np

from gptwo.artifacts import atomic_write
from gptwo.errors import DataError, UsageError
from gptwo.records import Interval
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.intervals import bootstrap, wilson
from gptwo.zeroshot.log import read_frames
from gptwo.zeroshot.run import TASKS, read_result
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench, Record

# Tasks whose log has a line for every example of their file, in its order.
BY_EXAMPLE = ("lambada", "coqa", "cnn-dailymail", "wmt14-en-fr", "wmt14-fr-en", "wsc273", "nq")
BY_EXAMPLE += ("hellaswag",)
MUCH = 0.15  # of an example: the paper's bound for LAMBADA

# Paper table 6: shares of a test set's 8-grams in its own training split, and in WebText's.
TABLE_6 = {
    "ptb": (0.0267, 0.0088),
    "wikitext2": (0.0066, 0.0163),
    "enwik8": (0.0750, 0.0631),
    "text8": (0.0234, 0.0394),
    "wikitext103": (0.0909, 0.0242),
    "1bw": (0.1319, 0.0375),
}
SECTION_4 = {
    "lambada": "mean overlap 1.2%; examples over 15% about 2 perplexity better; without all that "
    "overlap perplexity 8.6 -> 8.7, accuracy 63.2% -> 62.9% (1542M)",
    "coqa": "about 15% of the news documents are in WebText, +3 F1 there, +0.5 to 1.0 F1 over all",
    "wsc273": "10 schemata share an 8-gram with WebText, 1 gives the answer away",
}


def bench(data: Path | None, config: EvalConfig = EvalConfig()) -> Bench:  # noqa: B008 - frozen
    """What tasks need to name their data and to sum records; nothing here reads tokens."""
    none = cast(Tokenizer, None)
    return Bench(sources=Sources(data, None), tokenizer=none, n_ctx=1, config=config)


def described(task: str, data: Path | None) -> dict[str, Any]:
    """How a task describes its files, which are proven to be the published ones.

    Raises `DataError` where one is missing or another, `UsageError` for a task that is none.
    """
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1, cutoff=0.0)
        raise UsageError(
            f"unknown task {task!r}; the nearest is {near[0]!r}",
            remedy=f"tasks are: {', '.join(TASKS)}",
        )
    return TASKS[task].data(bench(data))


def test_files(about: Mapping[str, Any], data: Path | None, unpacked: Path) -> tuple[Path, ...]:
    """Where the files of a description lie; what is inside an archive will be in `unpacked`."""
    return tuple(
        unpacked / Path(file["member"]).name
        if file.get("member")
        else (data or Path()) / file["file"]
        for file in _files(about)
    )


def unpack(about: Mapping[str, Any], data: Path | None, unpacked: Path) -> None:
    """Put the files that are inside archives where `test_files` says."""
    for file in _files(about):
        if file.get("member"):
            source = DataFile(
                path=file["file"], size=file["bytes"], sha256=file["sha256"], member=file["member"]
            )
            with atomic_write(unpacked / Path(source.member).name) as handle:
                handle.write(source.read(data))


def _files(about: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "file" in about:
        yield about
    for value in about.values():
        if isinstance(value, dict):
            yield from _files(value)


def share_interval(found: Sequence[float], ngrams: Sequence[float], seed: int) -> Interval:
    """Of the share of all n-grams, when examples that have some are drawn anew.

    Where nothing is found, drawing anew tells nothing: at most as many examples are hit as Wilson's
    interval for none of them allows.
    """
    held = [pair for pair in zip(found, ngrams, strict=True) if pair[1]]
    if not any(n for n, _ in held):
        return wilson(0, len(held))
    parts = [n for n, _ in held], [n for _, n in held]
    return bootstrap(*parts, float, resamples=EvalConfig().resamples, seed=seed)


def scores_apart(
    scores: Path, task: str, share: Mapping[int, float], about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A task's metrics and intervals over all its examples, and over those apart by their overlap.

    `share` is that of each example by its number from 1 on; `about` describes the task's data.
    Empty for a running text, which has no examples to leave out.

    Raises `DataError` where the result is missing, torn or of other data.
    """
    if task not in BY_EXAMPLE:
        return []
    records = _records(scores, task, about)
    of_each = np.array([share.get(number, 0.0) for number in range(1, len(records) + 1)])
    parts = {
        "all": np.ones(len(records), np.bool_),
        "without overlap": of_each == 0,
        "with overlap": of_each > 0,
        f"over {MUCH:.0%}": of_each > MUCH,
    }
    rows = []
    for name, chosen in parts.items():
        held = [record for record, is_in in zip(records, chosen, strict=True) if is_in]
        if held:
            metrics, intervals = TASKS[task].summary(held, bench(None))
            rows.append(
                {
                    "task": task,
                    "part": name,
                    "n": len(held),
                    "metrics": metrics,
                    "intervals": {key: asdict(each) for key, each in intervals.items()},
                }
            )
    return rows


def _records(scores: Path, task: str, about: Mapping[str, Any]) -> list[Record]:
    path, log = scores / f"{task}.json", scores / f"{task}.samples.jsonl.zst"
    if not path.exists():
        raise DataError(f"{path} is missing", remedy=f"score it: gptwo eval MODEL {task}")
    result = read_result(path)
    if [dict(file) for file in _files(result.data)] != [dict(file) for file in _files(about)]:
        raise DataError(f"{path} is of other data", remedy="score it again with the same --data")
    version = TASKS[task].protocol(bench(None))["version"]
    if result.protocol.get("version") != version:
        raise DataError(
            f"{path} is by version {result.protocol.get('version')} of the protocol, not {version}",
            remedy="score it again",
        )
    if str(result.protocol.get("mode", "")).startswith("harness"):
        raise DataError(f"{path} is of harness mode", remedy="score it again in paper mode")
    frames, _ = read_frames(log)
    records = [record for frame in frames[1:] for record in frame]
    if len(records) != result.n:
        raise DataError(
            f"{log} has {len(records):,} samples, the result is of {result.n:,}",
            remedy=f"delete both and run gptwo eval MODEL {task} again",
        )
    return records


def score_inputs(scores: Path, tasks: Sequence[str]) -> dict[str, str]:
    """What identifies the results that `scores_apart` would read: name -> SHA-256."""
    names = [f"{task}{end}" for task in tasks for end in (".json", ".samples.jsonl.zst")]
    there = [name for name in names if (scores / name).exists()]
    return {
        f"scores/{name}": hashlib.sha256((scores / name).read_bytes()).hexdigest() for name in there
    }
