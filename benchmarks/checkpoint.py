"""What checkpoints cost the training that goes on beside them: prints JSON.

usage: python benchmarks/checkpoint.py FOLDER [--shape a] [--threads 2] [--turns 3] [--interval 200]

FOLDER is where checkpoints go (made, and emptied again): the disk that is measured. Shape `a` is 6
layers x 384, context 256, vocabulary 50,257, batch 8; `c` is the 124M model at context 512, batch
1. Real training steps run on random tokens. In every turn each way saves the same state once:

    ours        this package's, in the background: hashed, synced, with a manifest
    ours_sync   the same without the copy and the thread
    torch_save  torch.save, as nanoGPT does: no hash, no sync, training waits
    dcp         torch.distributed.checkpoint.async_save, its thread, no hash
    dcp_process the same with its process in place of the thread

Before each save a few steps without one are timed. After the call, steps go on until what was begun
is on the disk (for the ways that do not sync, until their call is done). A save costs what these
steps took beyond as many undisturbed ones: `stall_seconds` inside the call, `cost_seconds` in all,
`cpu_seconds` of user and system time. `share` is the cost in `interval` steps; the median of turns.
`parts` are the pieces of our save by themselves.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import AsyncCheckpointerType, async_save

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.tensor_file import bytes_to_copy, copied
from gptwo.training.checkpoints.checkpoint import State, tensor_files
from gptwo.training.checkpoints.writer import Writer
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import make_optimizer, state_tensors
from gptwo.training.speed import keep_freed_memory
from gptwo.world import machine

SHAPES = {
    "a": (GPT2Config(vocab_size=50_257, n_ctx=256, n_layer=6, n_head=6, n_embd=384), 8),
    "b": (GPT2Config(vocab_size=8_192, n_ctx=256, n_layer=6, n_head=6, n_embd=384), 8),
    "c": (GPT2Config(vocab_size=50_257, n_ctx=512, n_layer=12, n_head=12, n_embd=768), 1),
    "tiny": (GPT2Config(vocab_size=512, n_ctx=64, n_layer=2, n_head=2, n_embd=64), 2),
}
BASE_STEPS = 2
PIECE = 1 << 20


class Training:
    """A model that takes real steps on random tokens."""

    def __init__(self, shape: GPT2Config, rows: int) -> None:
        torch.manual_seed(0)
        self.config = TrainingConfig(keep_checkpoints=1)
        self.model = GPT2(shape)
        self.optimizer = make_optimizer(self.model, self.config)
        self.ids = torch.randint(shape.vocab_size, (rows, shape.n_ctx + 1))
        self.steps = 0

    def step(self) -> None:
        self.model.loss(self.ids[:, :-1], self.ids[:, 1:]).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return self.model.state_dict(), state_tensors(self.model, self.optimizer)


Save = Callable[[], Callable[[], bool]]  # begins a save; the answer tells whether it is done


def ways(training: Training, folder: Path) -> dict[str, Save]:
    """Each way to save, from the call that stalls training to the question whether it is done."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    for name in ("encoder.json", "vocab.bpe", "tokenizer.json"):  # as large as GPT-2's
        (tokenizer / name).write_bytes(os.urandom(1_000_000))
    plan = {
        "training": asdict(training.config),
        "model": asdict(training.model.config),
        "inputs": {"tokenizer": "", "tokens": ""},
    }
    log = folder / "metrics.jsonl"
    log.write_text("{}\n")
    writer = Writer(folder / "ours", training.config, tokenizer=tokenizer, plan=plan, logs=(log,))

    def ours() -> Callable[[], bool]:
        writer.save(State(step=training.steps), *training.tensors())
        return lambda: writer._thread is None or not writer._thread.is_alive()

    def ours_sync() -> Callable[[], bool]:
        writer.commit(State(step=training.steps), *training.tensors())
        return lambda: True

    def torch_save() -> Callable[[], bool]:
        weights, moments = training.tensors()
        torch.save({"model": weights, "optimizer": moments}, folder / "ckpt.pt")
        return lambda: True

    def dcp_by(kind: AsyncCheckpointerType) -> Save:
        def begin() -> Callable[[], bool]:
            weights, moments = training.tensors()
            target = folder / f"dcp-{training.steps}"
            future: Any = async_save(
                {"model": weights, "optimizer": moments},
                checkpoint_id=target,
                async_checkpointer_type=kind,
            )

            def done() -> bool:
                if not future.done():
                    return False
                future.result()
                shutil.rmtree(target, ignore_errors=True)
                return True

            return done

        return begin

    return {
        "ours": ours,
        "ours_sync": ours_sync,
        "torch_save": torch_save,
        "dcp": dcp_by(AsyncCheckpointerType.THREAD),
        "dcp_process": dcp_by(AsyncCheckpointerType.PROCESS),
    }


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def measure(training: Training, save: Save) -> dict[str, float]:
    """One save, and what it cost the steps beside it."""
    started, cpu = time.perf_counter(), cpu_seconds()
    for _ in range(BASE_STEPS):
        training.step()
    step = (time.perf_counter() - started) / BASE_STEPS
    step_cpu = (cpu_seconds() - cpu) / BASE_STEPS

    started, cpu, steps = time.perf_counter(), cpu_seconds(), 0
    is_done = save()
    stall = time.perf_counter() - started
    while not is_done():
        training.step()
        steps += 1
    return {
        "step_seconds": step,
        "stall_seconds": stall,
        "cost_seconds": time.perf_counter() - started - steps * step,
        "cpu_seconds": cpu_seconds() - cpu - steps * step_cpu,
        "steps_beside": steps,
    }


def parts(training: Training, folder: Path) -> dict[str, float]:
    """Seconds of each piece of our save, nothing running beside it."""
    files = tensor_files(*training.tensors())
    pieces = [piece for file in files.values() for piece in file.pieces()]
    seconds = {}
    started = time.perf_counter()
    buffer = torch.empty(bytes_to_copy(files), dtype=torch.uint8)
    copied(files, buffer)  # the first time takes the memory from the system
    seconds["copy_first"] = time.perf_counter() - started
    started = time.perf_counter()
    copied(files, buffer)
    seconds["copy"] = time.perf_counter() - started
    started = time.perf_counter()
    found = hashlib.sha256()
    for piece in pieces:
        for start in range(0, len(piece), PIECE):
            found.update(piece[start : start + PIECE])
    seconds["hash"] = time.perf_counter() - started
    started = time.perf_counter()
    with (folder / "parts").open("wb", buffering=0) as handle:
        for piece in pieces:
            for start in range(0, len(piece), PIECE):
                handle.write(piece[start : start + PIECE])
        seconds["write"] = time.perf_counter() - started
        started = time.perf_counter()
        os.fsync(handle.fileno())
        seconds["sync"] = time.perf_counter() - started
    (folder / "parts").unlink()
    return {name: round(value, 3) for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="a")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--interval", type=int, default=TrainingConfig().checkpoint_interval)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as training does
    shape, rows = SHAPES[asked.shape]
    asked.folder.mkdir(parents=True)
    meeting = f"file://{(asked.folder / 'meeting').absolute()}"
    dist.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        training = Training(replace(shape, dropout=0.0), rows)
        training.step()
        found: dict[str, list[dict[str, float]]] = {}
        chosen = ways(training, asked.folder)
        for turn in range(asked.turns + 1):  # the first takes memory and starts processes
            for name, save in chosen.items():
                row = measure(training, save)
                sys.stderr.write(f"{turn} {name} {row}\n")
                if turn:
                    found.setdefault(name, []).append(row)
        result = {
            "shape": asked.shape,
            "threads": asked.threads,
            "state_bytes": sum(file.size for file in tensor_files(*training.tensors()).values()),
            "parts": parts(training, asked.folder),
            "ways": {name: summary(rows, asked.interval) for name, rows in found.items()},
            "machine": machine(),
        }
    finally:
        dist.destroy_process_group()
        shutil.rmtree(asked.folder)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def summary(rows: list[dict[str, float]], interval: int) -> dict[str, float]:
    middle = {name: round(median(row[name] for row in rows), 3) for name in rows[0]}
    share = median(row["cost_seconds"] / (interval * row["step_seconds"]) for row in rows)
    cpu = median(row["cpu_seconds"] / (interval * row["step_seconds"]) for row in rows)
    return middle | {"share": round(share, 5), "cpu_share": round(cpu, 5)}


if __name__ == "__main__":
    main()
