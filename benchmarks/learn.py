"""How fast a vocabulary is learned, in how much memory, and whether it is the right one: JSON.

usage: python benchmarks/learn.py DATA [--mb 40] [--rounds 3]
       python benchmarks/learn.py --stream GB

With DATA (a folder with text/classic_books and text/news_articles_3824.jsonl.xz): 50,000 merges are
learned from news and books by ours, rustbpe and tokenizers in turns, each in a fresh process. Ours
starts from a Parquet file, the others from a list of strings in memory. Seconds are of processor
time, user and system, of all threads. Ends with an error unless all merges of ours and of
tokenizers are the same. (rustbpe breaks ties by another rule.)

With --stream: text of that size is made up shard by shard, counted and thrown away; then the counts
are added and 50,000 merges learned. Words follow Zipf's law, and new ones appear for ever, faster
than in real books: their number grows with the 0.62th power of the text, against 0.55 in the books.
Memory is what the process that counts and merges held at most, in resident pages.
"""

import argparse
import json
import lzma
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.pool import Task
from gptwo.progress import Reporter
from gptwo.tokens.bpe import CHAR_TO_BYTE, PIECES
from gptwo.tokens.count import count_file
from gptwo.tokens.learn import Merge, learn_counted
from gptwo.world import machine

MERGES = 50_000
SHARD_WORDS = 40_000_000  # about 190 MB
HEAD = 10_000  # words of Zipf's law proper
TAIL_SHARE, TAIL_EXPONENT = 0.05, 1.6  # rarer words, without end


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--mb", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", type=float, metavar="GB")
    parser.add_argument("--one", choices=LEARNERS)  # a fresh process of ours
    parser.add_argument("--shard", type=int)  # another
    arguments = parser.parse_args()
    if arguments.one:
        one(LEARNERS[arguments.one], arguments.data)
    elif arguments.shard is not None:
        write_made_up(arguments.data, arguments.shard)
    elif arguments.stream:
        print(json.dumps(stream(arguments.stream), indent=2))
    elif arguments.data:
        print(json.dumps(compare(arguments.data, arguments.mb, arguments.rounds), indent=2))
    else:
        parser.error("give DATA or --stream")


# ---- the comparison ----


def compare(data: Path, megabytes: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.parquet"
        size = write_texts(data, texts, megabytes * 1_000_000)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in LEARNERS}
        for _ in range(rounds):
            for name in LEARNERS:
                runs[name].append(fresh(["--one", name, str(texts)]))
        ours, theirs = (
            json.loads(texts.with_suffix(f".{name}.json").read_text())
            for name in ("ours", "tokenizers")
        )
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), MERGES)
    if len(ours) != len(theirs) or same < MERGES:
        raise SystemExit(f"merges differ: {len(ours)} and {len(theirs)}, the first {same} equal")
    best = {name: min(each, key=lambda run: run["cpu_seconds"]) for name, each in runs.items()}
    return {
        "machine": machine(),
        "text_mb": round(size / 1e6, 1),
        "merges_equal_to_tokenizers": f"{same:,} of {MERGES:,}",
        "best": best,
        "times_ours": {
            name: round(run["cpu_seconds"] / best["ours"]["cpu_seconds"], 1)
            for name, run in best.items()
        },
        "all_cpu_seconds": {
            name: [run["cpu_seconds"] for run in each] for name, each in runs.items()
        },
    }


def real_texts(data: Path) -> Iterator[str]:
    folder = data / "text"
    for path in [
        folder / "news_articles_3824.jsonl.xz",
        *sorted((folder / "classic_books").glob("*.xz")),
    ]:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)["text"] or ""


def write_texts(data: Path, path: Path, wanted: int) -> int:
    """The first documents of news and books, of `wanted` bytes or a little more."""
    texts, size = [], 0
    for text in real_texts(data):
        texts.append(text)
        size += len(text.encode())
        if size >= wanted:
            break
    table = pa.table({"text": pa.array(texts, pa.large_string())})
    pq.write_table(table, path, compression="zstd", row_group_size=64)  # a few MB each
    return size


def one(learn: Callable[[Path], Callable[[], list[Merge]]], texts: Path) -> None:
    """One learner, measured; its merges go beside the texts."""
    run = learn(texts)
    before, started = processor_seconds(), time.perf_counter()
    merges = run()
    seconds, wall = processor_seconds() - before, time.perf_counter() - started
    name = next(name for name, each in LEARNERS.items() if each is learn)
    lists = [[list(a), list(b)] for a, b in merges]
    texts.with_suffix(f".{name}.json").write_text(json.dumps(lists))
    found = {"cpu_seconds": seconds, "wall_seconds": wall, "peak_memory_mb": peak_bytes() / 1e6}
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


def ours(texts: Path) -> Callable[[], list[Merge]]:
    def run() -> list[Merge]:
        counts = texts.with_suffix(".counts")
        counts.unlink(missing_ok=True)
        count_file(Task(input=texts, output=counts), None, ignore)
        return learn_counted([counts], MERGES)[0]

    return run


def rustbpe(texts: Path) -> Callable[[], list[Merge]]:
    import rustbpe

    held = pq.read_table(texts)["text"].to_pylist()
    trainer = rustbpe.Tokenizer()

    def run() -> list[Merge]:
        trainer.train_from_iterator(iter(held), 256 + MERGES, pattern=PIECES)
        return []

    return run


def tokenizers(texts: Path) -> Callable[[], list[Merge]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    held = pq.read_table(texts)["text"].to_pylist()
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + MERGES,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def spelt(token: str) -> bytes:
        return bytes(CHAR_TO_BYTE[char] for char in token)

    def run() -> list[Merge]:
        built.train_from_iterator(held, trainer)
        pairs = json.loads(built.to_str())["model"]["merges"]
        return [(spelt(a), spelt(b)) for a, b in pairs]

    return run


LEARNERS = {"ours": ours, "rustbpe": rustbpe, "tokenizers": tokenizers}


# ---- text without end ----


def stream(gigabytes: float) -> dict[str, Any]:
    reporter, counting, size = Reporter(), 0.0, 0
    files: list[Path] = []
    with tempfile.TemporaryDirectory() as folder, reporter.bar("stream", None, "MB") as bar:
        texts = Path(folder) / "texts.parquet"
        while size < gigabytes * 1e9:
            made = fresh([str(texts), "--shard", str(len(files))])["bytes"]
            files.append(Path(folder) / f"{len(files)}.arrow")
            before = processor_seconds()
            count_file(Task(input=texts, output=files[-1]), None, ignore)
            counting += processor_seconds() - before
            size += made
            bar.advance(round(made / 1e6))
        after_counting, held = peak_bytes(), sum(path.stat().st_size for path in files)
        before = processor_seconds()
        merges, distinct = learn_counted(files, MERGES, reporter=reporter)
        learning = processor_seconds() - before
    return {
        "machine": machine(),
        "text_gb": round(size / 1e9, 2),
        "shards": len(files),
        "distinct_pieces": distinct,
        "merges": len(merges),
        "counting_cpu_seconds": round(counting, 1),
        "counting_mb_per_cpu_second": round(size / 1e6 / counting),
        "counts_on_disk_mb": round(held / 1e6),
        "adding_and_merging_cpu_seconds": round(learning, 1),
        "peak_memory_mb": round(peak_bytes() / 1e6),
        "peak_memory_while_counting_mb": round(after_counting / 1e6),
    }


def write_made_up(path: Path, seed: int) -> None:
    """One shard of made-up text; prints its size."""
    chance = np.random.default_rng(seed)
    n = SHARD_WORDS
    ranks = np.exp(chance.random(n, np.float32) * math.log(HEAD)).astype(np.int32)
    rare = np.flatnonzero(chance.random(n, np.float32) < TAIL_SHARE)
    drawn = HEAD * (1 - chance.random(len(rare))) ** (-1 / (TAIL_EXPONENT - 1))
    known, which = np.unique(np.minimum(drawn, 2**50).astype(np.int64), return_inverse=True)
    ranks[rare] = HEAD + 1 + which
    names = [spell(rank) for rank in range(HEAD + 1)] + [spell(rank) for rank in known.tolist()]
    words = pc.take(pa.array(names), pa.array(ranks))  # type: ignore[attr-defined]
    edges = pa.array(np.minimum(np.arange(0, n + 500, 500), n), pa.int32())
    texts = pc.binary_join(pa.ListArray.from_arrays(edges, words), " ")  # type: ignore[attr-defined]
    table = pa.table({"text": texts})
    pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=1_024)
    print(json.dumps({"bytes": pc.sum(pc.binary_length(texts)).as_py()}))  # type: ignore[attr-defined]


SYLLABLES = [a + b for a in "bdfghklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "st")]


def spell(rank: int) -> str:
    """A word for every number, a longer one for a larger."""
    word = ""
    while True:
        rank, syllable = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[syllable]
        if not rank:
            return word


# ---- measuring ----


def fresh(arguments: list[str]) -> dict[str, Any]:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(ran.stdout)


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def ignore(number: int) -> None:
    """Nobody watches."""


if __name__ == "__main__":
    main()
