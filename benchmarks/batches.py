"""What reading a batch costs, beside nanoGPT's `get_batch` on the same file: prints JSON.

usage: python benchmarks/batches.py TOKENS --nanogpt CHECKOUT [--turns 7]

TOKENS is a folder made by `gptwo pack` whose training split is one shard of 16-bit ids. The peer's
function is taken out of its train.py as it stands. Both give the same number of rows, int64, from
the same memory-mapped file, in turns within one process on one thread; a time is processor seconds
of a batch, the median of the turns. Ours also keeps what the peer does not: each token once an
epoch, documents in another order each time.

`share_of_step` is our time over that of the gradient of the same batch with a model of size nano
(a vocabulary of 8,192, the least work a token can be). `cold` is wall time with the file dropped
from the page cache before each batch. `epoch` is what laying out an epoch costs, once, for the
documents of this corpus and for eight million.
"""

import argparse
import ast
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES
from gptwo.tokens.shards import Shards, open_shards
from gptwo.training import forward
from gptwo.training.config import TrainingConfig
from gptwo.training.data.batches import Batches, batches
from gptwo.training.data.epochs import make_order
from gptwo.world import machine

SHAPES = {"nano": (32, 256), "nanogpt_default": (12, 1024), "paper": (512, 1024)}


def peer(checkout: Path, data: Path, rows: int, n_ctx: int) -> Callable[[], Any]:
    """nanoGPT's get_batch with the globals that it expects."""
    tree = ast.parse((checkout / "train.py").read_text(encoding="utf-8"))
    found: list[ast.stmt] = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_batch"
    ]
    space = {
        "os": os,
        "np": np,
        "torch": torch,
        "data_dir": str(data),
        "block_size": n_ctx,
        "batch_size": rows,
        "device_type": "cpu",
        "device": "cpu",
    }
    exec(compile(ast.Module(found, []), "train.py", "exec"), space)
    return lambda: space["get_batch"]("train")  # type: ignore[operator]


def seconds(work: Callable[[int], Any], first: int, times: int) -> float:
    """Processor seconds of one of `times` calls."""
    started = time.process_time()
    for step in range(first, first + times):
        work(step)
    return (time.process_time() - started) / times


def compare(reads: Batches, other: Callable[[], Any], turns: int) -> dict[str, Any]:
    """Both in turns, each for about the time of 2 million tokens."""
    times = max(2_000_000 // (reads.rows * reads.n_ctx), 3)
    other()
    reads.at(0)
    ours, theirs = [], []
    for turn in range(turns):
        ours.append(seconds(reads.at, turn * times, times))
        theirs.append(seconds(lambda _: other(), 0, times))
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "gptwo_ms": round(1e3 * statistics.median(ours), 4),
        "nanogpt_ms": round(1e3 * statistics.median(theirs), 4),
        "nanogpt_over_gptwo": round(statistics.median(ratios), 2),
        "gptwo_tokens_per_second": round(reads.rows * reads.n_ctx / statistics.median(ours)),
    }


def share_of_step(reads: Batches) -> float:
    """Reading over reading and the gradient of a nano model, at the same batch."""
    config = TrainingConfig()
    with torch.random.fork_rng():
        model = GPT2(replace(SIZES["nano"], vocab_size=reads.tokens.vocab_size))

    def gradient(step: int) -> None:
        for x, y in zip(*(part.split(8) for part in reads.at(step)), strict=True):
            forward.loss(model, x, y, config).backward()

    gradient(0)
    both = statistics.median(seconds(gradient, 10 * turn, 1) for turn in range(7))
    return statistics.median(seconds(reads.at, 50 * turn, 50) for turn in range(7)) / both


def cold(reads: Batches, path: Path) -> dict[str, float]:
    """Wall milliseconds of a batch with the file out of the page cache, and in it."""
    found: dict[str, list[float]] = {"cold_ms": [], "warm_ms": []}
    handle = os.open(path, os.O_RDONLY)
    for step in range(9):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        for state in found.values():
            started = time.perf_counter()
            reads.at(step)
            state.append(time.perf_counter() - started)
    os.close(handle)
    return {name: round(1e3 * statistics.median(times), 3) for name, times in found.items()}


def epoch(begins: np.ndarray, end: int) -> dict[str, float]:
    """Milliseconds and megabytes of the table of one epoch."""
    started = time.process_time()
    order = make_order(begins, end, np.array([1], np.uint64))
    spent = time.process_time() - started
    size = order.bounds.nbytes + order.shifts.nbytes
    return {
        "documents": len(begins),
        "milliseconds": round(1e3 * spent, 2),
        "megabytes": round(size / 1e6, 2),
    }


def reader(split: Shards, rows: int, n_ctx: int) -> Batches:
    return batches(split, n_ctx=n_ctx, batch_tokens=rows * n_ctx, seed=1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--nanogpt", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    split = open_shards(args.tokens, "train")
    path = args.tokens.resolve() / "train-00000.bin"
    found: dict[str, Any] = {"machine": machine(), "tokens": len(split)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.bin").symlink_to(path)
        for name, (rows, n_ctx) in SHAPES.items():
            other = peer(args.nanogpt, Path(folder), rows, n_ctx)
            found[name] = compare(reader(split, rows, n_ctx), other, args.turns)
    nano = reader(split, *SHAPES["nano"])
    found["share_of_step"] = round(share_of_step(nano), 5)
    found["cold"] = cold(nano, path)
    found["epoch"] = [
        epoch(nano.epochs[0].begins, len(split)),
        epoch(np.arange(0, 8_000_000 * 1_000, 1_000), 8_000_000 * 1_000),
    ]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
