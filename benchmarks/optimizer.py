"""What an update costs beside its gradients: prints JSON.

usage: python benchmarks/optimizer.py [--size mini] [--vocabulary 8192] [--turns 7] [--threads 1]

In turns, so that a busy machine slows all alike, in processor seconds: clipping and AdamW as
nanoGPT has them (`clip_grad_norm_`, which writes all gradients, then the fused step), ours (the
gradients are read, and written only when they are too long), and Muon with AdamW for the rest.
Beside them one copy of as many bytes as AdamW must move, 7 numbers per weight, as the bound.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import clip_gradients, make_optimizer
from gptwo.training.speed import keep_freed_memory
from gptwo.world import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--vocabulary", type=int, default=8_192)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    model = GPT2(replace(SIZES[asked.size], vocab_size=asked.vocabulary))
    weights = list(model.parameters())
    for weight in weights:
        weight.grad = torch.randn_like(weight) * 1e-5  # a norm below 1: not clipped
    adamw = make_optimizer(model, TrainingConfig(optimizer="adamw"))
    muon = make_optimizer(model, TrainingConfig(optimizer="muon"))
    numbers = 7 * sum(weight.numel() for weight in weights) // 2  # a copy reads and writes
    source, target = torch.ones(numbers), torch.zeros(numbers)

    def nanogpt() -> None:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        adamw.step()

    def ours() -> None:
        clip_gradients(model, 1.0)
        adamw.step()

    def with_muon() -> None:
        clip_gradients(model, 1.0)
        muon.step()

    ways: dict[str, Callable[[], object]] = {
        "nanogpt": nanogpt,
        "adamw": ours,
        "muon": with_muon,
        "bound": lambda: target.copy_(source),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(asked.turns):
        for name, way in ways.items():
            began = time.process_time()
            way()
            best[name] = min(best[name], time.process_time() - began)
    found = {
        "command": " ".join(["python benchmarks/optimizer.py", *sys.argv[1:]]),
        "parameters": sum(weight.numel() for weight in weights),
        "cpu_milliseconds": {name: round(1e3 * seconds, 2) for name, seconds in best.items()},
        "ratio_to_nanogpt": {name: round(best["nanogpt"] / best[name], 2) for name in best},
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
