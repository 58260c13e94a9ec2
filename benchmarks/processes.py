"""Two processes of one thread against one of two threads, on the same batches: prints JSON.

usage: python benchmarks/processes.py DATA [--size mini] [--rows 16] [--steps 5] [--turns 2]

DATA is a folder with `bpe/` (the released vocabulary) and `text/tinyshakespeare.txt`. Each way is
`gptwo train` on this machine's processor, alone or under torchrun, for `steps` steps of `rows`
rows, half of them at a time; the ways take turns. Both processes of a pair share the cores that
the one has to itself: what is compared is the cost of meeting. `seconds` of a step is the median
of all but each turn's first; `memory_mb` the most that the first process held, `exchanged_mb` the
gradients that meet in a step. The losses of all ways must agree to 1e-3, or there is no result.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paper_batch import make_tokens

from gptwo.model.sizes import SIZES
from gptwo.world import machine

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
WAYS: dict[str, tuple[list[str], list[str]]] = {  # how it is launched, and its settings
    "one process": ([], []),
    "two processes": (TWO, []),
    "two processes, sharded": (TWO, ["--set", "training.sharding=fsdp"]),
}


def run(way: str, folder: Path, out: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """One training. The columns of its metrics and timings."""
    launcher, settings = WAYS[way]
    tokens = args.rows * SIZES[args.size].n_ctx
    chosen = {
        "steps": args.steps,
        "batch_tokens": tokens,
        "micro_batch": args.rows // 2,
        "warmup_steps": 0,
        "validation_interval": 0,
        "checkpoint_interval": 0,
    }
    command = [sys.executable, *launcher, "-m", "gptwo.cli", "train", str(folder / "tokens")]
    command += ["--tokenizer", str(folder / "tokenizer"), "--out", str(out), "--size", args.size]
    for name, value in chosen.items():
        command += ["--set", f"training.{name}={value}"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return {
        name: [json.loads(line)[name] for line in (out / file).read_text().splitlines()]
        for name, file in (
            ("loss", "metrics.jsonl"),
            ("seconds", "timings.jsonl"),
            ("memory_mb", "timings.jsonl"),
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    memory: dict[str, float] = {}
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as made:
        make_tokens(args.data, Path(made))
        for turn in range(args.turns):
            for way in WAYS:
                found = run(way, Path(made), Path(made) / f"{way} {turn}", args)
                losses = losses or found["loss"]
                gap = max(abs(a / b - 1) for a, b in zip(losses, found["loss"], strict=True))
                if gap > 1e-3:
                    sys.exit(f"{way}: losses {found['loss']} are not {losses}")
                seconds[way] += found["seconds"][1:]
                memory[way] = max(found["memory_mb"])
                print(turn, way, found["seconds"], memory[way], file=sys.stderr)
    result: dict[str, Any] = {"machine": machine(), "size": args.size, "rows": args.rows}
    result["exchanged_mb"] = round(SIZES[args.size].parameters() * 4 / 1e6)
    one = statistics.median(seconds["one process"])
    for way, all_seconds in seconds.items():
        middle = statistics.median(all_seconds)
        result[way] = {
            "seconds": round(middle, 3),
            "speed": round(one / middle, 3),
            "memory_mb": memory[way],
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
