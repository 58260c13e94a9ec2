"""Many processes as one: each runs the same loop on its own rows of every batch.

They are told apart here and nowhere else. The first of them (rank 0) holds the lock, writes and
speaks. Each adds up the gradient of its rows; the mean of all is that of the batch, so that every
process makes the same step. Where they walk apart, `together` makes the failure or the stop of one
that of all, at the same point. In a world of one nothing here does anything.
"""

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptwo.errors import Interrupted, ResourceError
from gptwo.progress import Reporter
from gptwo.training.guards.memory import is_out_of_memory
from gptwo.training.processes.meeting import Member, short
from gptwo.training.run import Run
from gptwo.training.step import gather_gradients
from gptwo.world import World

BUCKET_BYTES = 32 << 20  # gradients are exchanged in pieces of this size


@contextmanager
def together(world: World, reporter: Reporter) -> Iterator[None]:
    """A part that each process walks alone: at its end, what was raised in one is raised in all.

    Nothing in it may exchange. An error goes before a stop; of several, that of the lowest rank.
    """
    if world.size == 1:
        yield
        return
    own: Exception | None = None
    assert isinstance(reporter, Member)
    reporter.may_stop = True
    try:
        yield
        reporter.check()
    except Exception as error:
        own = error
    finally:
        reporter.may_stop = False
    failed = torch.tensor([own is not None], dtype=torch.int32)
    dist.all_reduce(failed, dist.ReduceOp.MAX)
    if failed.item():
        everyone: list[Any] = [None] * world.size
        dist.all_gather_object(everyone, own if own is None or _travels(own) else _plain(own))
        faults = [error for error in everyone if error is not None]
        chosen = min(faults, key=lambda error: isinstance(error, Interrupted))
        raise own if own is not None and type(own) is type(chosen) else chosen


def _travels(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # pickle raises whatever the object's class raises
        return False


def _plain(error: Exception) -> RuntimeError:
    return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def place(world: World, out: Path) -> Iterator[Path]:
    """Where a process writes: the first one in `out`, the others where it is thrown away."""
    if world.is_first:
        yield out
        return
    with TemporaryDirectory(prefix=f"gptwo-{world.rank}-") as folder:
        yield Path(folder)


def gather(run: Run, step: int) -> float:
    """Each `grad` becomes that of the whole batch, `step`; returns the batch's mean loss.

    A stop that was asked for of any process is raised in all, before the step counts.
    """
    with apart(run):
        loss = gather_gradients(run, step)
    if not run.config.sharding:
        average_gradients(run.model, run.world)
    return add_up(run.world, loss)[0] / run.world.size


@contextmanager
def apart(run: Run) -> Iterator[None]:
    """Each process works on rows of its own; a failure or a stop in one becomes that of all.

    Sharded, they exchange weights on the way: a stop is agreed upon before, and who fails leaves.
    """
    if not run.config.sharding:
        with together(run.world, run.reporter):
            yield
        return
    with together(run.world, run.reporter):
        pass
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if run.world.size == 1 or not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"process {run.world.rank} of {run.world.size} is out of memory: {short(error)}",
            remedy="set a smaller training.micro_batch or training.activation_checkpointing=true; "
            "the last checkpoint is intact",
        ) from error


def from_first(world: World, value: Callable[[], int]) -> int:
    """What the first process finds, in all of them."""
    if world.size == 1:
        return value()
    found = torch.tensor(value() if world.is_first else 0)
    dist.broadcast(found, 0)
    return int(found.item())


@contextmanager
def in_turn(world: World, reporter: Reporter) -> Iterator[None]:
    """The first process goes before the others, so that they find done what it has done."""
    if not world.is_first:
        with together(world, reporter):
            pass
    with together(world, reporter):
        yield
    if world.is_first:
        with together(world, reporter):
            pass


def own_share(starts: np.ndarray, rows: int, world: World) -> Iterator[tuple[np.ndarray, int]]:
    """This process's part of `starts`, at most `rows` at a time, with how many of them count.

    All get the same number of pieces; who has one less repeats a window that does not count.
    """
    mine = starts[world.rank :: world.size]
    for first in range(0, -(-len(starts) // world.size), rows):
        some = mine[first : first + rows]
        yield (some, len(some)) if len(some) else (starts[:1], 0)


def average_gradients(model: nn.Module, world: World) -> None:
    """Put the mean over all processes into every `grad`.

    Each process has the gradient of the mean loss of its own rows, as many as any other's. All
    exchange in the order of the parameters, in pieces of `BUCKET_BYTES`.
    """
    if world.size == 1:
        return
    grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
    for bucket in _buckets(grads):
        flat = bucket[0].view(-1) if len(bucket) == 1 else torch.cat([g.view(-1) for g in bucket])
        dist.all_reduce(flat)
        flat /= world.size
        if len(bucket) > 1:
            pieces = flat.split([grad.numel() for grad in bucket])
            for grad, piece in zip(bucket, pieces, strict=True):
                grad.copy_(piece.view_as(grad))


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for grad in grads:
        bytes_ = grad.numel() * grad.element_size()
        if bucket and size + bytes_ > BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += bytes_
    if bucket:
        yield bucket


def add_up(world: World, *values: float) -> list[float]:
    """The sum over all processes of each value, in float64."""
    if world.size == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(sums)
    return sums.tolist()
