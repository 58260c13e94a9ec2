"""Many processes as one: how they meet, add up their gradients, stop together and notice a loss.

Every process runs the same loop on its own rows of each batch. They are told apart here and
nowhere else: the first of them (rank 0) holds the lock, writes and speaks. In a world of one
nothing here does anything.

Where processes walk apart (opening files, the gradient of own rows), `together` makes the failure
or the stop of one that of all, at the same point. Where one is lost or leaves in the middle of an
exchange, the others learn it from a note in the store that the launcher keeps, or from its
silence; they leave with its exit code, or with 75, and nothing is committed.
"""

import ctypes
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptwo.errors import GptwoError, Interrupted, NetworkError
from gptwo.progress import PR_SET_PDEATHSIG, Bar, Reporter
from gptwo.world import World

JOIN_SECONDS = 300.0  # for all processes to arrive
SILENCE_SECONDS = 60.0  # without a sign of life, then a process counts as lost
EXCHANGE_SECONDS = 1800.0  # the others wait as long while the first one writes a checkpoint
BEAT_SECONDS = 1.0
GRACE_SECONDS = 10.0  # to leave in good order, once another process has failed
BUCKET_BYTES = 32 << 20  # gradients are exchanged in pieces of this size
FAULT = "fault"  # the store's note: who failed first, and how


class RankLost(GptwoError):  # noqa: N818 - as Interrupted: the same command goes on
    """Another process is gone; nothing was committed without it."""

    exit_code = Interrupted.exit_code


@contextmanager
def joined(world: World, reporter: Reporter) -> Iterator[Reporter]:
    """Be one of `world.size` processes; yields the reporter that this one shall use.

    An error of any process ends all of them with its exit code and is told by one: that one raises
    it, the others raise SystemExit. Raises `NetworkError` when not all arrive in time.
    """
    if world.size == 1:
        yield reporter
        return
    reporter.speaks = world.is_first
    _stop_with_launcher()
    store = _meet(world)
    watch = _Watch(store.clone(), world)
    member = Member(reporter, world)
    try:
        yield member
        dist.barrier()  # nobody leaves while another may still need it
    except SystemExit:
        raise
    except BaseException as error:
        _leave(error, store, world)
    finally:
        watch.stop()
        with suppress(RuntimeError):
            dist.destroy_process_group()


def _stop_with_launcher() -> None:
    """A launcher that is killed leaves no orphans (Linux): they are asked to stop, and commit."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _meet(world: World) -> Any:
    """Join the process group; numbers in the processes' own memory travel by gloo."""
    backend = "gloo" if world.device == "cpu" else "cpu:gloo,cuda:nccl"
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    limit = timedelta(seconds=JOIN_SECONDS)
    try:
        store, _, _ = next(dist.rendezvous("env://", world.rank, world.size, timeout=limit))
        arrived = dist.PrefixStore("arrived", store)
        arrived.set(str(world.rank), "")
        arrived.wait([str(rank) for rank in range(world.size)], limit)
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=world.rank,
            world_size=world.size,
            timeout=timedelta(seconds=EXCHANGE_SECONDS),
            device_id=None if world.device == "cpu" else torch.device(world.device),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise NetworkError(
            f"process {world.rank} of {world.size} did not meet the others at {where} within "
            f"{JOIN_SECONDS:.0f} s: {error}",
            remedy="start all processes with torchrun; between machines the address must be one "
            "that all reach (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME name the network card)",
        ) from error
    return dist.PrefixStore("watch", store)


def _leave(error: BaseException, store: Any, world: World) -> None:
    """Raise `error` if this process is the one to tell it, SystemExit with its code otherwise."""
    with suppress(ValueError):  # the launcher asks all to stop as soon as the first has left
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _is_of_the_exchange(error):  # which fails where another process has failed before
        note = _read(store, seconds=GRACE_SECONDS / 2)
        if note is not None:
            raise SystemExit(note["exit_code"]) from error
        error = RankLost(
            f"process {world.rank} of {world.size} lost another one ({_short(error)}); "
            "nothing was committed without it",
            remedy="run the same command again to go on from the last checkpoint",
        )
    code = error.exit_code if isinstance(error, GptwoError) else 1
    if _first_to_fail(store, world, code):
        raise error
    raise SystemExit(code) from error


def _is_of_the_exchange(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in words or "connection closed" in words)
    )


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0].rpartition("] ")[2][:120]


def _first_to_fail(store: Any, world: World, code: int) -> bool:
    mine = json.dumps({"rank": world.rank, "exit_code": code})
    try:
        return store.compare_set(FAULT, "", mine).decode() == mine
    except RuntimeError:  # the store went with the process that kept it
        return True


def _read(store: Any, seconds: float = 0.0) -> dict[str, Any] | None:
    """The note of the process that failed first, if there is one within `seconds`."""
    ends = time.monotonic() + seconds
    while True:
        try:
            if store.check([FAULT]):
                return json.loads(store.get(FAULT))
        except RuntimeError:
            return None
        if time.monotonic() >= ends:
            return None
        time.sleep(0.1)


class _Watch:
    """A thread that gives a sign of life, listens for that of the next rank, and for notes.

    The main thread may be inside an exchange that never ends: then this one ends the process.
    """

    def __init__(self, store: Any, world: World) -> None:
        self._store, self._world = store, world
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        neighbour = (self._world.rank + 1) % self._world.size
        seen, since = -1, time.monotonic()
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._store.add(f"beat {self._world.rank}", 1)
                found = self._store.add(f"beat {neighbour}", 0)
                note = _read(self._store)
            except RuntimeError:  # the launcher that kept the store is gone
                return self._end_soon(RankLost.exit_code, SILENCE_SECONDS)
            if found != seen:
                seen, since = found, time.monotonic()
            if note:
                return self._end_soon(note["exit_code"], GRACE_SECONDS)
            if time.monotonic() - since > SILENCE_SECONDS:
                if _first_to_fail(self._store, self._world, RankLost.exit_code):
                    self._tell(neighbour)
                return self._end_soon(RankLost.exit_code, GRACE_SECONDS)

    def _tell(self, neighbour: int) -> None:
        with suppress(OSError):
            sys.stderr.write(
                f"error: process {neighbour} of {self._world.size} gave no sign of life for "
                f"{SILENCE_SECONDS:.0f} s; nothing was committed without it\n"
                "try:   run the same command again to go on from the last checkpoint\n"
            )
            sys.stderr.flush()

    def _end_soon(self, code: int, seconds: float) -> None:
        """Let the main thread leave by itself, if it can."""
        if not self._over.wait(seconds):
            os._exit(code)


class Member(Reporter):
    """The reporter of one process among several: the first one speaks for all.

    One alone must not stop: `check` only does where `together` makes it the stop of all.
    """

    def __init__(self, reporter: Reporter, world: World) -> None:
        super().__init__(quiet=reporter.quiet or not world.is_first)
        self.reporter, self.speaks, self.may_stop = reporter, world.is_first, False

    def say(self, text: str) -> None:
        if self.speaks:
            self.reporter.say(text)

    @contextmanager
    def bar(self, title: str, total: int | None = None, unit: str = "items") -> Iterator[Bar]:
        """The user's own, or a silent one."""
        source = self.reporter.bar if self.speaks else super().bar
        with source(title, total, unit) as bar:
            yield bar

    def check(self) -> None:
        """Raise `Interrupted` when a stop was asked for and can be agreed upon."""
        if self.may_stop:
            self.reporter.check()


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
            torch._foreach_copy_(
                bucket, [p.view_as(g) for p, g in zip(pieces, bucket, strict=True)]
            )


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
