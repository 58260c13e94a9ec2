"""Dies at every byte limit and at every file operation of a checkpoint, and looks what is left.

Run as a script by test_checkpoint.py: forking is only safe before torch has started threads.
usage: kill_points.py FOLDER TOKENIZER
"""

import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.training.checkpoints import checkpoint
from gptwo.training.checkpoints.writer import Writer
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import Optimizer, make_optimizer, state_tensors
from gptwo.world import World

CONFIG = TrainingConfig(steps=9, keep_checkpoints=1, checkpoint_interval=1)
SHAPE = GPT2Config(vocab_size=300, n_ctx=8, n_layer=1, n_head=2, n_embd=8)
PLAN = {"training": {}, "model": asdict(SHAPE), "inputs": {"tokenizer": "", "tokens": ""}}
STATES = [checkpoint.State(step=step, best_step=step) for step in (1, 2)]


def die_writing_more_than(limit: int) -> None:
    """Let the system kill this process at the first write beyond `limit` bytes of any file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def die_at_operation(number: int) -> None:
    """Kill this process at the n-th file operation that Python makes from now on."""
    seen = 0

    def hook(event: str, details: tuple) -> None:
        nonlocal seen
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def trained() -> tuple[GPT2, Optimizer]:
    torch.manual_seed(0)
    model = GPT2(SHAPE)
    optimizer = make_optimizer(model, CONFIG)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    return model, optimizer


def tensors(model: GPT2, optimizer: Optimizer) -> tuple[dict, dict]:
    return model.state_dict(), state_tensors(model, optimizer)


def survived(folder: Path, tokenizer: Path, prepare: Callable[[int], None], n: int) -> bool:
    """Save step 2 after step 1 in a child that may die; check that one of them loads.

    The child trains on as soon as it may: what is saved must be the step that was asked for.
    """
    model, optimizer = trained()
    log = folder / "metrics.jsonl"
    log.touch()
    writer = Writer(folder, CONFIG, tokenizer=tokenizer, plan=PLAN, logs=(log,))
    writer.commit(STATES[0], *tensors(model, optimizer))
    child = os.fork()
    if child == 0:
        prepare(n)
        optimizer.step()
        writer.save(STATES[1], *tensors(model, optimizer))
        for _ in range(3):
            optimizer.step()
        writer.wait()
        os._exit(0)
    finished = os.waitpid(child, 0)[1] == 0
    optimizer.step()
    found = checkpoint.committed(folder)
    assert found, f"no checkpoint after dying at {n}"
    for path in found:
        loaded, _, state = checkpoint.load(path, SHAPE, CONFIG, World())
        assert state in STATES
        if state.step == 2:
            assert torch.equal(loaded.wte.weight, model.wte.weight), f"another step at {n}"
    checkpoint.settle(folder, CONFIG)
    left = sorted(path.name for path in folder.iterdir())
    last = found[-1].name
    assert left == ["metrics.jsonl", last], f"{left} after dying at {n}"
    assert not finished or last == "step-00000002"
    found[-1].rename(folder / ".step-old")
    checkpoint.remove_unfinished(folder)
    return finished


def main(folder: Path, tokenizer: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir()
    os.fsync = lambda descriptor: None  # a killed process, not a machine: nothing depends on it
    limits = [0, 1, 7, 8, 100, 500, 1_000, 3_000, 10_000, 16_000, 20_000, 30_000, 40_000, 10**6]
    deaths = [not survived(folder, tokenizer, die_writing_more_than, limit) for limit in limits]
    assert deaths[0] and not deaths[-1], deaths
    number = 1
    while not survived(folder, tokenizer, die_at_operation, number):
        number += 1
    sys.stdout.write(f"died at {sum(deaths)} byte limits and {number - 1} file operations")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
