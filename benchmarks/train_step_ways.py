"""A child of train_step.py: makes training steps of one way when told to, and says how long.

usage: python benchmarks/train_step_ways.py JOB (lines of numbers on stdin, lines of JSON on stdout)
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.training import forward
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import clip_gradients, make_optimizer
from gptwo.training.speed import keep_freed_memory, peak_memory_mb

CONFIG = TrainingConfig(optimizer="adamw", lr=6e-4, beta2=0.95, weight_decay=0.1, clip=1.0)
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # nn.Linear in nanoGPT
Loss = Callable[[Tensor, Tensor], Tensor]


def ours(model: GPT2, job: dict[str, Any]) -> tuple[nn.Module, Loss]:
    keep_freed_memory()
    if job["way"].endswith("module"):  # what serves where the kernels are not built
        return model, model.loss
    compiled = "on" if job["way"].endswith("compiled") else "auto"
    config = TrainingConfig(precision=job["precision"], compile=compiled)
    return model, lambda x, y: forward.loss(model, x, y, config)


def nanogpt(model: GPT2, job: dict[str, Any]) -> tuple[nn.Module, Loss]:
    sys.path.insert(0, job["nanogpt"])
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    c = model.config
    sizes = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd}
    peer = GPT(GPTConfig(block_size=c.n_ctx, vocab_size=c.vocab_size, **sizes))
    weights = {
        f"transformer.{name}": value.t() if name.endswith(TRANSPOSED) else value
        for name, value in model.state_dict().items()
    }
    peer.load_state_dict(weights | {"lm_head.weight": model.wte.weight})
    for block in peer.transformer.h:
        block.mlp.gelu = nn.GELU(approximate="tanh")
    peer.to(job["device"])
    called = torch.compile(peer) if "compiled" in job["way"] else peer
    return peer, lambda x, y: called(x, y)[1]


def transformers(model: GPT2, job: dict[str, Any]) -> tuple[nn.Module, Loss]:
    from transformers import GPT2Config as PeerConfig
    from transformers import GPT2LMHeadModel

    c = model.config
    sizes = {"n_layer": c.n_layer, "n_head": c.n_head, "n_embd": c.n_embd}
    drops = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    shape = PeerConfig(vocab_size=c.vocab_size, n_positions=c.n_ctx, **sizes, **drops)
    peer = GPT2LMHeadModel(shape)
    peer.transformer.load_state_dict(model.state_dict(), strict=True)
    peer.to(job["device"]).train()
    called = torch.compile(peer) if job["way"].endswith("compiled") else peer

    def loss(x: Tensor, y: Tensor) -> Tensor:
        logits = called(input_ids=x, use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().view(-1, c.vocab_size), y.reshape(-1))

    return peer, loss


WAYS = {"gptwo": ours, "nanogpt": nanogpt, "transformers": transformers}


def make_step(job: dict[str, Any]) -> Callable[[], float]:
    """A function that makes one step and returns its loss."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    mine = GPT2(GPT2Config(**job["shape"]))
    own = job["way"].startswith("gptwo")
    if job["way"].endswith("kept"):  # ours is a setting that others could make too
        keep_freed_memory()
    if own:
        mine.to(job["device"])
    model, loss = WAYS[job["way"].split("_")[0]](mine, job)
    source = torch.Generator().manual_seed(1)  # the peers have drawn weights of their own
    size = (job["rows"], mine.config.n_ctx + 1)
    rows = torch.randint(mine.config.vocab_size, size, generator=source).to(job["device"])
    x, y = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    del mine
    if own:
        muon = job["way"].endswith("muon")
        optimizer = make_optimizer(model, TrainingConfig() if muon else CONFIG)
    else:  # as nanoGPT's configure_optimizers does it: fused on a GPU
        groups = [
            {"params": [w for w in model.parameters() if (w.dim() >= 2) == decays]}
            | {"weight_decay": CONFIG.weight_decay if decays else 0.0}
            for decays in (True, False)
        ]
        betas = (CONFIG.beta1, CONFIG.beta2)
        fused = {"fused": True} if job["device"] != "cpu" else {}
        optimizer = torch.optim.AdamW(groups, lr=CONFIG.lr, betas=betas, **fused)

    def step() -> float:
        with torch.autocast(
            job["device"], torch.bfloat16, enabled=job["precision"] == "bf16" and not own
        ):
            value = loss(x, y)
        value.backward()
        if own:
            clip_gradients(model, CONFIG.clip)
        else:
            nn.utils.clip_grad_norm_(model.parameters(), CONFIG.clip)
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def kind(event: Any, vocabulary: int) -> str:
    """What a profiled operation belongs to."""
    name = event.key
    if "adam" in name or ("norm" in name and "foreach" in name):
        return "optimiser"
    if "attention" in name:
        return "attention"
    if name in ("aten::mm", "aten::addmm", "aten::addmm_", "aten::linear"):
        wide = any(vocabulary in shape for shape in event.input_shapes if shape)
        return "products of the head" if wide else "products of the body"
    return "cross-entropy" if "Entropy" in name else "everything else"


def profile(step: Callable[[], float], vocabulary: int) -> dict[str, float]:
    """Shares of a step's processor time by part."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    with watch(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        step()
    parts: dict[str, float] = defaultdict(float)
    for event in seen.key_averages(group_by_input_shape=True):
        parts[kind(event, vocabulary)] += event.self_cpu_time_total
    total = sum(parts.values())
    return {name: round(value / total, 3) for name, value in sorted(parts.items())}


def answer(job: dict[str, Any], step: Callable[[], float], steps: int) -> dict[str, Any]:
    if not steps:
        return {"parts": profile(step, job["shape"]["vocab_size"])}
    losses, first = [], 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(steps):
        losses.append(step())
        first = first if number else time.perf_counter() - wall
    return {
        "seconds": (time.perf_counter() - wall) / steps,
        "cpu_seconds": (time.process_time() - cpu) / steps,
        "first_seconds": round(first, 2),
        "losses": losses,
        "memory_mb": high_water_mb() if job["device"] == "cpu" else peak_memory_mb("cuda"),
    }


def high_water_mb() -> int:
    if os.path.exists("/proc/self/status"):  # noqa: PTH110
        with open("/proc/self/status", encoding="ascii") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) for line in lines if line[:6] == "VmHWM:") >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    job = json.loads(sys.argv[1])
    out = sys.stdout
    with redirect_stdout(sys.stderr):  # nanoGPT prints
        step = make_step(job)
        for line in sys.stdin:
            out.write(json.dumps(answer(job, step, int(line))) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
