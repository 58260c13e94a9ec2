"""How much memory training takes, and how near the estimate made before it comes: prints JSON.

usage: python benchmarks/memory.py [--shapes a,b,c] [--optimizer muon] [--threads 1]

Shapes are those of `train_step.py`, and each is tried in several ways: gradients of one micro-batch
or of two, activations kept or made again (`activation_checkpointing`), GPT-2's module in place of
the kernels, bfloat16. Each way runs in a process of its own: three steps on random tokens, by the
functions that training calls. `measured_mb` is the most that the process held beyond what it held
before the model was made (VmHWM, Linux); `estimate_mb` is what `guards/memory.py` says; `ratio` is
the estimate over the measurement.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train_step import SHAPES

from gptwo.model.gpt2 import GPT2
from gptwo.training import fast, forward
from gptwo.training.config import TrainingConfig
from gptwo.training.guards.memory import bytes_needed
from gptwo.training.optimizers.optim import clip_gradients, make_optimizer
from gptwo.training.processes.sharding import spread
from gptwo.training.speed import keep_freed_memory
from gptwo.world import World, machine

WAYS: dict[str, dict[str, Any]] = {
    "one micro-batch": {"pieces": 1},
    "two micro-batches": {"pieces": 2},
    "activation checkpointing": {"pieces": 1, "activation_checkpointing": True},
    "without kernels": {"pieces": 1, "kernels": False},
    "bf16": {"pieces": 1, "precision": "bf16"},
}
STEPS = 3
CHILD = "child"


def held_mb(kind: str) -> float:
    """VmRSS or VmHWM of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


def measure(shape: str, way: str, optimizer: str, threads: int) -> dict[str, float]:
    """Train in this process. What it held, and what was expected."""
    settings = dict(WAYS[way])
    pieces = settings.pop("pieces")
    if not settings.pop("kernels", True):
        fast.serves = lambda model: False
    model, rows = SHAPES[shape]
    config = TrainingConfig(
        optimizer=optimizer,
        micro_batch=rows,
        batch_tokens=rows * pieces * model.n_ctx,
        **settings,
    )
    torch.set_num_threads(threads)
    keep_freed_memory()
    a = torch.ones(512, 512, requires_grad=True)
    (a @ a).sum().backward()  # what torch takes for itself
    before = held_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    torch.manual_seed(0)
    module = GPT2(model)
    spread(module, config, World())
    moves = make_optimizer(module, config)
    for _ in range(STEPS):
        for _ in range(pieces):
            ids = torch.randint(model.vocab_size, (rows, model.n_ctx + 1))
            (forward.loss(module, ids[:, :-1], ids[:, 1:], config) / pieces).backward()
        clip_gradients(module, config.clip)
        moves.step()
        moves.zero_grad()
    measured = held_mb("VmHWM") - before
    estimate = sum(bytes_needed(replace(model), rows, config)) / 2**20
    return {
        "measured_mb": round(measured),
        "estimate_mb": round(estimate),
        "ratio": round(estimate / measured, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shapes", default="a,b,c")
    parser.add_argument("--optimizer", default=TrainingConfig().optimizer)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "optimizer": args.optimizer}
    for shape in args.shapes.split(","):
        found[shape] = {}
        for way in WAYS:
            words = (CHILD, shape, way, args.optimizer, str(args.threads))
            command = [sys.executable, __file__, *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[shape][way] = json.loads(done.stdout)
            print(shape, way, found[shape][way], file=sys.stderr)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        shape, way, optimizer, threads = sys.argv[2:]
        print(json.dumps(measure(shape, way, optimizer, int(threads))))
    else:
        main()
