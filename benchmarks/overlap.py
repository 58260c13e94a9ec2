"""How fast overlap with test sets is measured, and how right: prints JSON.

usage: python benchmarks/overlap.py CORPUS DATA [--turns 3] [--peer-megabytes 4]

CORPUS is a folder made by `gptwo corpus`, DATA has the evaluation sets under eval/. Measured, in
turns: the whole command with 1 and 2 threads; and, on the first megabytes of the training split,
what a filter is without a kernel of ours: Python's `re` and a set of strings, and pybloom_live's
filter where it is installed, sized for the same rate. The last two also say what is true: the exact
share of each set's 8-grams that those megabytes hold, beside the share that our filter gives.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.corpus.overlap.evaluation import read_set
from gptwo.corpus.overlap.members import WORDS, cut, read_members
from gptwo.corpus.overlap.shares import TestSet, shares
from gptwo.corpus.words import normalise
from gptwo.overlap import Against, OverlapConfig, measure_overlap, read_overlap
from gptwo.world import machine

SETS = {
    "lambada": "lambada/lambada_test.jsonl",
    "ptb": "ptb/ptb.test.txt",
    "wikitext2": "wikitext2/wiki.test.raw",
    "coqa": "coqa/coqa_dev_sample_20.json",
}


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call()
    return time.perf_counter() - start, found


def command(corpus: Path, data: Path, threads: int) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole of it, and its table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        took, _ = timed(
            lambda: measure_overlap(
                corpus, out, OverlapConfig(), Against(data=data), workers=threads
            )
        )
        return took, read_overlap(out)


def grams_of(text: str) -> list[str]:
    words = normalise(text).split()
    return [" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]


def some_texts(corpus: Path, size: int) -> list[str]:
    texts: list[str] = []
    for path in sorted((corpus / "train").glob("part-*.parquet")):
        for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
            if size <= 0:
                return texts
            texts.append(text[:size])
            size -= len(text)
    return texts


def plain(texts: list[str], sets: dict[str, Path]) -> dict[str, float]:
    """Exact shares, by sets of strings: also what the peers are compared with."""
    held = {gram for text in texts for gram in grams_of(text)}
    return plain_shares(held, sets)


def plain_shares(held: Any, sets: dict[str, Path]) -> dict[str, float]:
    found = {}
    for name, path in sets.items():
        grams = [gram for piece in read_set(name, path) for gram in grams_of(piece.text)]
        found[name] = sum(gram in held for gram in grams) / len(grams)
    return found


def bloom(texts: list[str], sets: dict[str, Path]) -> dict[str, float]:
    """pybloom_live, at our rate."""
    from pybloom_live import BloomFilter

    count = sum(max(len(normalise(text).split()) - WORDS + 1, 0) for text in texts)
    held = BloomFilter(capacity=max(count, 1), error_rate=1e-8)
    for text in texts:
        for gram in grams_of(text):
            held.add(gram)
    return plain_shares(held, sets)


def ours(texts: list[str], sets: dict[str, Path]) -> dict[str, float]:
    column = pa.array(texts, pa.large_string())
    with tempfile.TemporaryDirectory() as folder:
        members = read_members([lambda: cut(column)], Path(folder), title="some")
        found = {
            name: shares(TestSet(task=name, files=(path,)), members.filter)
            for name, path in sets.items()
        }
    return {name: int(each.found.sum()) / int(each.ngrams.sum()) for name, each in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peer-megabytes", type=float, default=4.0)
    asked = parser.parse_args()
    sets = {name: asked.data / "eval" / path for name, path in SETS.items()}
    texts = some_texts(asked.corpus, int(1e6 * asked.peer_megabytes))
    ways = {"gptwo": ours, "set of strings": plain, "pybloom_live": bloom}
    try:
        import pybloom_live  # noqa: F401
    except ImportError:
        del ways["pybloom_live"]
    seconds: dict[str, list[float]] = {f"{n} threads": [] for n in (1, 2)} | {w: [] for w in ways}
    tables, found = {}, {}
    for _ in range(asked.turns):
        for threads in (1, 2):
            took, tables[threads] = command(asked.corpus, asked.data, threads)
            seconds[f"{threads} threads"].append(took)
        for name, way in ways.items():
            took, found[name] = timed(lambda way=way: way(texts, sets))
            seconds[name].append(took)
    size = tables[1]["corpus"]["bytes"]
    some = sum(len(text.encode()) for text in texts)
    result = {
        "command": " ".join(["python benchmarks/overlap.py", *sys.argv[1:]]),
        "machine": machine(),
        "corpus_megabytes": round(size / 1e6, 1),
        "seconds": {name: [round(s, 2) for s in each] for name, each in seconds.items()},
        "megabytes_a_minute": {
            name: round((size if "threads" in name else some) / 1e6 * 60 / min(each), 1)
            for name, each in seconds.items()
        },
        "times_faster": {
            name: round(min(seconds[name]) / min(seconds["gptwo"]), 1) for name in ways
        },
        "same_for_both_threads": tables[1] == tables[2],
        "filter": tables[1]["filter"],
        "shares": found,
        "differ_from_exact": max(
            abs(found["gptwo"][name] - found["set of strings"][name]) for name in sets
        ),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
