"""How fast a training step is, ours and others', at equal maths: prints JSON.

usage: python benchmarks/train_step.py --nanogpt FOLDER [--shapes a,b,c] [--turns 3] [--threads 2]
       python benchmarks/train_step.py --device cuda --shapes small,medium,large,xl [--nanogpt ...]

FOLDER is a checkout of karpathy/nanoGPT. Each way runs in a process of its own with the same
initial weights, the same ids, AdamW of the same settings and gradients clipped to norm 1; the first
losses must agree to 1e-5 (1e-2 in bfloat16), or there is no result. nanoGPT's exact GELU is set to
GPT-2's tanh form. The processes take turns, one at a time, after three steps to warm up (and
compile). Per way: tokens per second of the best turn, the ratio to ours as the median over turns of
neighbouring measurements, the same in processor time, and the peak memory (VmHWM; on a GPU, what
torch held of its memory). MFU is of the matrix rate that this machine reached in the same number
type. `parts` says where our own step's time goes, by torch's profiler.

More --ways: gptwo_module is the plain twin, which serves where the kernels are not built,
gptwo_compiled has its blocks compiled (training.compile=on), gptwo_muon is the default recipe,
nanogpt_compiled_kept is nanoGPT with our setting of the C library's allocator.

Shapes: a is 6 layers x 384, context 256, vocabulary 50,257, batch 8; b the same with 8,192; c is
124M, context 512, batch 1; small to xl have context 1024 and are run in bfloat16.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.training.speed import flops_per_token, matrix_rate
from gptwo.world import machine

A = GPT2Config(n_layer=6, n_head=6, n_embd=384, n_ctx=256)
SHAPES: dict[str, tuple[GPT2Config, int]] = {  # and the rows of a batch
    "a": (A, 8),
    "b": (replace(A, vocab_size=8192), 8),
    "c": (replace(SIZES["small"], n_ctx=512), 1),
    "small": (SIZES["small"], 32),
    "medium": (SIZES["medium"], 16),
    "large": (SIZES["large"], 8),
    "xl": (SIZES["xl"], 8),
}
WAYS = ("gptwo", "nanogpt_compiled", "nanogpt", "transformers_compiled")
STEPS = {"a": 2, "b": 4, "c": 2}  # of a turn


class Child:
    """A process that makes training steps when it is told to."""

    def __init__(self, way: str, job: dict[str, Any]) -> None:
        script = Path(__file__).with_name("train_step_ways.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), json.dumps({"way": way} | job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first = self.ask(3)  # the weights are made, the step is compiled

    def ask(self, steps: int) -> dict[str, Any]:
        """Make `steps` steps (0: profile one); what was found."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a child ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def measure(name: str, ways: list[str], asked: argparse.Namespace) -> dict[str, Any]:
    shape, rows = SHAPES[name]
    precision = "fp32" if asked.device == "cpu" else "bf16"
    job = {
        "shape": asdict(shape),
        "rows": asked.rows or rows,
        "device": asked.device,
        "precision": precision,
        "threads": asked.threads,
        "nanogpt": asked.nanogpt,
    }
    tokens = job["rows"] * shape.n_ctx
    children = {way: Child(way, job) for way in ways}
    losses = {way: child.first["losses"][0] for way, child in children.items()}
    for way, loss in losses.items():
        if abs(loss - losses["gptwo"]) > (1e-5 if precision == "fp32" else 1e-2) * loss:
            raise SystemExit(f"first losses differ, {way}: {losses}")
    turns: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for _ in range(asked.turns):
        for way, child in children.items():
            turns[way].append(child.ask(STEPS.get(name, 10)))
    parts = children["gptwo"].ask(0)["parts"]
    for child in children.values():
        child.close()
    rate = matrix_rate(asked.device, precision)
    found = {
        way: {
            "tokens_per_second": round(max(tokens / turn["seconds"] for turn in turns[way]), 1),
            "gptwo_is_faster_by": ratio(turns, way, "seconds"),
            "in_processor_time": ratio(turns, way, "cpu_seconds"),
            "cpu_seconds_per_step": [round(turn["cpu_seconds"], 3) for turn in turns[way]],
            "peak_memory_mb": turns[way][-1]["memory_mb"],
            "first_call_seconds": children[way].first["first_seconds"],
            "losses": children[way].first["losses"],
        }
        for way in ways
    }
    for entry in found.values():
        reached = entry["tokens_per_second"] * flops_per_token(shape)
        entry["mfu"] = round(reached / rate, 3)
        own = found["gptwo"]["peak_memory_mb"]
        entry["gptwo_memory_share"] = round(own / entry["peak_memory_mb"], 3)
    return {
        "tokens_per_step": tokens,
        "matrix_gflops": round(rate / 1e9, 1),
        "flops_per_token": flops_per_token(shape),
        "ways": found,
        "parts": parts,
    }


def ratio(turns: dict[str, list[dict[str, Any]]], way: str, key: str) -> float:
    """How many times as long `way` took as we did, turn by turn."""
    pairs = zip(turns[way], turns["gptwo"], strict=True)
    return round(statistics.median(other[key] / own[key] for other, own in pairs), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", default="")
    parser.add_argument("--shapes", default="a,b,c")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0, help="of a batch, instead of the shape's")
    asked = parser.parse_args()
    ways = ["gptwo", *(way for way in asked.ways.split(",") if way != "gptwo")]
    if not asked.nanogpt:
        ways = [way for way in ways if not way.startswith("nanogpt")]
    import torch

    torch.set_num_threads(asked.threads)
    found = {
        "command": " ".join(["python benchmarks/train_step.py", *sys.argv[1:]]),
        "machine": machine(),
        "device": asked.device if asked.device == "cpu" else torch.cuda.get_device_name(),
        "threads": asked.threads,
        "shapes": {name: measure(name, ways, asked) for name in asked.shapes.split(",")},
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
