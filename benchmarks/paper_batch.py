"""A step with the paper's batch of 512 x 1024 tokens, by accumulation: prints JSON.

usage: python benchmarks/paper_batch.py DATA [--size small] [--context 1024]
           [--batches 8192,524288] [--micro-batch 1] [--threads N]

DATA is a folder with `bpe/` (the released vocabulary) and `text/tinyshakespeare.txt`. For each
number of tokens a process of its own makes one step with `gptwo.training.loop.train`; `seconds` of
that step and `memory_mb`, the most the process held until then, are what the run writes down. The
memory of all batches should be the same to within the ids of a batch, 4 MB for the paper's.

Size small with 524,288 tokens is 4 x 10^14 operations: more than an hour on two cores. Size nano at
context 1024 takes a fortieth of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.world import machine

CHILD = "child"


def make_tokens(data: Path, folder: Path) -> None:
    """The text as a token folder of the released vocabulary."""
    from gptwo.tokens.bins import import_bins
    from gptwo.tokens.config import PackConfig
    from gptwo.tokens.learn import import_tokenizer
    from gptwo.tokens.tokenizer import Tokenizer

    import_tokenizer(data / "bpe", folder / "tokenizer")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    text = (data / "text" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    ids = np.array([tokenizer.eot, *tokenizer.encode(text)], "<u2")
    for split in ("train", "val"):
        ids.tofile(folder / f"{split}.bin")
    files = [folder / "train.bin", folder / "val.bin"]
    import_bins(files, folder / "tokenizer", folder / "tokens", PackConfig())


def step(
    folder: Path, size: str, context: int, batch_tokens: int, micro_batch: int, threads: int
) -> None:
    """One step in this process; its line of timings is printed."""
    from gptwo.model.sizes import SIZES
    from gptwo.training.config import TrainingConfig
    from gptwo.training.loop import train
    from gptwo.world import here

    config = TrainingConfig(
        steps=1,
        batch_tokens=batch_tokens,
        micro_batch=micro_batch,
        warmup_steps=0,
        validation_interval=0,
        checkpoint_interval=0,
    )
    out = folder / f"out-{batch_tokens}"
    train(
        config,
        replace(SIZES[size], n_ctx=context),
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",
        out=out,
        world=here(device="cpu", threads=threads),
    )
    sys.stdout.write((out / "timings.jsonl").read_text().splitlines()[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", default="small")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--batches", default="8192,524288")
    parser.add_argument("--micro-batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    found: dict[str, Any] = {
        "machine": machine(),
        "size": args.size,
        "context": args.context,
    }
    with tempfile.TemporaryDirectory() as made:
        make_tokens(args.data, Path(made))
        for batch in args.batches.split(","):
            options = (made, args.size, args.context, batch, args.micro_batch, args.threads)
            command = [sys.executable, __file__, CHILD, *map(str, options)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            line = json.loads(done.stdout)
            found[batch] = {name: line[name] for name in ("seconds", "memory_mb")}
            print(batch, found[batch], file=sys.stderr)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        folder, size, *numbers = sys.argv[2:]
        step(Path(folder), size, *map(int, numbers))
    else:
        main()
