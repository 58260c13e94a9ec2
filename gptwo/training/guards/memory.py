"""How much memory training takes, before it is taken; and what to do when there is not enough."""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from gptwo.errors import ResourceError
from gptwo.model.sizes import GPT2Config
from gptwo.training.config import TrainingConfig
from gptwo.training.run import Run

BYTES_PER_PARAMETER = 16  # float32 weight, gradient and two moments
KEPT_PER_LAYER = 18  # numbers of n_embd that a layer keeps of a position for its backward pass
KEPT_ONCE = 12  # and what the ends of the model keep, and one layer's gradients
LOGITS_BYTES = 64 << 20  # a chunk of logits, its gradient, and the threads' buffers
CERTAIN = 0.8  # an estimate is refused when this share of it is more than there is
CGROUPS = (  # limit, use and the part of it that is given back on demand: version 2, version 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
SAID_BY_ALLOCATORS = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
Result = TypeVar("Result")


def bytes_needed(model: GPT2Config, rows: int, config: TrainingConfig) -> tuple[int, int]:
    """What weights, gradients and moments take, and what `rows` rows take beside them.

    An estimate: nine measurements in float32 on a processor lay 7% below it to 23% above.
    """
    layers = 1 if config.activation_checkpointing else model.n_layer
    kept = KEPT_PER_LAYER * layers + KEPT_ONCE + model.n_layer - layers
    rows_take = rows * model.n_ctx * model.n_embd * kept * (2 if config.precision == "bf16" else 4)
    return BYTES_PER_PARAMETER * model.parameters(), rows_take + LOGITS_BYTES


def check_memory(config: TrainingConfig, model: GPT2Config, device: str) -> None:
    """Refuse, before anything is allocated, a model that cannot fit. Raises `ResourceError`.

    A sharded one is not judged: what each process holds depends on how many there are.
    """
    if config.sharding:
        return
    rows = min(config.micro_batch, max(config.batch_tokens // model.n_ctx, 1))
    there_is = bytes_available(device)
    state, _ = bytes_needed(model, rows, config)
    if CERTAIN * sum(bytes_needed(model, rows, config)) <= there_is:
        return
    fitting = rows
    while fitting and sum(bytes_needed(model, fitting, config)) > there_is:
        fitting //= 2
    raise ResourceError(
        f"{_estimate(model, rows, config)}, and {there_is / 1e9:,.1f} GB are free on {device}",
        remedy=f"set training.micro_batch={fitting} (the result is the same but for rounding)"
        if fitting
        else "choose a smaller --size"
        + ("" if CERTAIN * state > there_is else " or a smaller model.n_ctx"),
    )


def within_memory(run: Run, work: Callable[[Run], Result]) -> tuple[Run, Result]:
    """Do `work`; when memory runs out, again with half as many rows at once, down to one.

    The rows' shares in the sum stay exact, so that the batch is the same; its sum is rounded in
    another order. Returns the run that fitted, to go on with, and the result. `work` must be such
    that what it has begun can be thrown away. Raises `ResourceError` where one row is too many.
    """
    while True:
        try:
            return run, work(run)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: the error holds the frames, and with them what did not fit.
        run.optimizer.zero_grad()
        if run.device != "cpu":
            torch.cuda.empty_cache()
        rows = min(run.config.micro_batch, run.batches.rows)
        if rows == 1:
            raise ResourceError(
                f"out of memory on {run.device} with one row at a time; "
                f"{_estimate(run.model.config, 1, run.config)}",
                remedy="choose a smaller --size or model.n_ctx; the last checkpoint is intact",
            )
        run.reporter.say(
            f"train: out of memory with {rows} rows at a time; from here on {rows // 2} "
            f"(the batch stays the same; training.micro_batch={rows // 2} avoids this)"
        )
        run = replace(run, config=replace(run.config, micro_batch=rows // 2))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is how Python or one of torch's allocators says so."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in SAID_BY_ALLOCATORS
    )


def bytes_available(device: str, root: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can still be had: of the device, or of this process on this machine."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    limits = [float("inf")]
    with suppress(OSError, ValueError, IndexError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - pages * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines}
        limits.append(1024 * (kilobytes["MemAvailable:"] + kilobytes["SwapFree:"]))
    for limit, use, stat, cache in CGROUPS:
        with suppress(OSError, ValueError, KeyError):  # another version, or "max": no limit
            held = dict(line.split() for line in (root / stat).read_text().splitlines())
            free = int((root / limit).read_text()) - int((root / use).read_text())
            limits.append(free + int(held[cache]))
    return max(min(limits), 0)


def _estimate(model: GPT2Config, rows: int, config: TrainingConfig) -> str:
    state, rows_take = bytes_needed(model, rows, config)
    return (
        f"training {model.parameters():,} parameters takes about {(state + rows_take) / 1e9:,.1f} "
        f"GB: {state / 1e9:,.1f} for weights, gradients and moments, {rows_take / 1e9:,.1f} for "
        f"{rows} rows of {model.n_ctx:,} at a time"
    )
