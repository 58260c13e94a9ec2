"""How much memory training takes, before it is taken; and what to do when there is not enough."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch

from gptwo.errors import ResourceError
from gptwo.model.loss import CHUNK_LOGITS, GPU_CHUNKS
from gptwo.model.sizes import GPT2Config
from gptwo.training import fast
from gptwo.training.config import TrainingConfig
from gptwo.training.guards.free import bytes_available
from gptwo.training.run import Run
from gptwo.world import World

NUMBER = 4  # bytes of a float32
KEPT_PER_LAYER = 17  # numbers of n_embd that a layer keeps of a position for its backward pass
KEPT_BY_KERNELS = 12  # the same on the way of `fast.py`
KEPT_ONCE = 12  # and what the ends of the model keep, and one layer's gradients
LOGITS = 2.4  # chunks of logits that the plain loss holds at once; by the kernels it is one
MUON_COPIES = 1.5  # of the weights that it moves, while it does: found by measuring, as the next
FIXED_BYTES = 80 << 20  # code, buffers of libraries, holes in the heap
CERTAIN = 0.8  # an estimate is refused when this share of it is more than there is
SAID_BY_ALLOCATORS = ("out of memory", "allocate memory", "not enough memory", "bad_alloc")
Result = TypeVar("Result")
ONE = World()


def bytes_needed(
    model: GPT2Config, rows: int, config: TrainingConfig, world: World = ONE
) -> tuple[int, int]:
    """What weights, gradients and moments take in a process, and what comes and goes beside them.

    An estimate: `benchmarks/memory.py` lays it beside measurements.
    """
    on_cpu = world.device == "cpu"
    quick = _by_kernels(model, config, world)
    weights = NUMBER * model.parameters()
    maps = NUMBER * 12 * model.n_layer * model.n_embd**2 if config.optimizer == "muon" else 0
    table = NUMBER * model.vocab_size * model.n_embd  # as large as its gradient
    state = 4 * weights - maps
    if config.sharding:  # the table is whole in a step; at a checkpoint all is in the first process
        gathered = state - weights if on_cpu and world.is_first else 0
        state = state // world.size + 2 * table + gathered

    layers = 1 if config.activation_checkpointing else model.n_layer
    kept = (KEPT_BY_KERNELS if quick else KEPT_PER_LAYER) * layers
    kept += KEPT_ONCE + model.n_layer - layers
    positions = rows * model.n_ctx
    activations = positions * model.n_embd * kept * (2 if config.precision == "bf16" else NUMBER)
    most = fast.CHUNK_LOGITS if quick else CHUNK_LOGITS * (1 if on_cpu else GPU_CHUNKS)
    logits = NUMBER * min(positions * model.vocab_size, most) * (1 if quick else LOGITS)
    # The gradient of one micro-batch comes beside the sum of those before it.
    several = config.batch_tokens > positions * world.size
    slopes = table * (1 if quick else 2) + (weights + table if several else 0)
    beside = activations + logits + slopes + MUON_COPIES * maps + FIXED_BYTES
    return state, round(beside)


def _by_kernels(model: GPT2Config, config: TrainingConfig, world: World) -> bool:
    plain = config.compile == "on" or config.activation_checkpointing or config.sharding
    return world.device == "cpu" and config.precision == "fp32" and not plain and fast.knows(model)


def check_memory(config: TrainingConfig, model: GPT2Config, world: World) -> None:
    """Refuse, before anything is allocated, a model that cannot fit. Raises `ResourceError`."""
    rows = min(config.micro_batch, max(config.batch_tokens // (model.n_ctx * world.size), 1))
    there_is = bytes_available(world.device)
    if world.device == "cpu":
        there_is /= world.neighbours
    state, _ = bytes_needed(model, rows, config, world)
    if CERTAIN * sum(bytes_needed(model, rows, config, world)) <= there_is:
        return
    fitting = rows
    while fitting and sum(bytes_needed(model, fitting, config, world)) > there_is:
        fitting //= 2
    raise ResourceError(
        f"{_estimate(model, rows, config, world)}, and {there_is / 1e9:,.1f} GB are free on "
        f"{world.device}" + (" for each process" if world.neighbours > 1 else ""),
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
                f"{_estimate(run.model.config, 1, run.config, run.world)}",
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


def _estimate(model: GPT2Config, rows: int, config: TrainingConfig, world: World) -> str:
    state, beside = bytes_needed(model, rows, config, world)
    return (
        f"training {model.parameters():,} parameters takes about {(state + beside) / 1e9:,.1f} "
        f"GB: {state / 1e9:,.1f} for weights, gradients and moments, {beside / 1e9:,.1f} for "
        f"{rows} rows of {model.n_ctx:,} at a time"
    )
