"""How the processes of a run meet, and how the loss of one becomes the end of all.

Each watches the next one and a note in the store that the launcher keeps. Who fails alone, or in
the middle of an exchange, leaves that note; the others then leave with the same exit code. A
process that is gone or silent ends the others with 75, the code of what goes on when it is started
again. Nothing is committed without all of them.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from gptwo.errors import GptwoError, Interrupted, NetworkError
from gptwo.progress import PR_SET_PDEATHSIG, Bar, Reporter
from gptwo.training.config import TrainingConfig
from gptwo.world import World

JOIN_SECONDS = 300.0  # for all processes to arrive
SILENCE_SECONDS = 60.0  # without a sign of life, then a process counts as lost
EXCHANGE_SECONDS = 1800.0  # the others wait as long while the first one writes a checkpoint
BEAT_SECONDS = 1.0
GRACE_SECONDS = 10.0  # to leave in good order, once another process has failed
MEETINGS = itertools.count()  # of this process so far: each has names of its own in the store
FAULT = "fault"  # the store's note: who failed first, and how


class RankLost(GptwoError):  # noqa: N818 - as Interrupted: the same command goes on
    """Another process is gone; nothing was committed without it."""

    exit_code = Interrupted.exit_code


@contextmanager
def joined(world: World, config: TrainingConfig, reporter: Reporter) -> Iterator[Reporter]:
    """Be one of `world.size` processes; yields the reporter that this one shall use.

    An error of any process ends all of them with its exit code and is told by one: that one raises
    it, the others raise SystemExit. Raises `NetworkError` when not all arrive in time.
    """
    if world.size == 1:
        with _alone(world) if config.sharding else nullcontext():
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


@contextmanager
def _alone(world: World) -> Iterator[None]:
    """A process group of one, which sharding asks for."""
    dist.init_process_group(_backend(world), store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _backend(world: World) -> str:
    """Numbers in the processes' own memory travel by gloo."""
    return "gloo" if world.device == "cpu" else "cpu:gloo,cuda:nccl"


def _stop_with_launcher() -> None:
    """A launcher that is killed leaves no orphans (Linux): they are asked to stop, and commit."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _meet(world: World) -> Any:
    """Join the process group. Returns the launcher's store."""
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    limit = timedelta(seconds=JOIN_SECONDS)
    try:
        store, _, _ = next(rendezvous("env://", world.rank, world.size, timeout=limit))
        store = PrefixStore(f"gptwo {next(MEETINGS)}", store)
        arrived = PrefixStore("arrived", store)
        arrived.set(str(world.rank), "")
        arrived.wait([str(rank) for rank in range(world.size)], limit)
        dist.init_process_group(
            _backend(world),
            store=PrefixStore("group", store),
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
    return PrefixStore("watch", store)


def _leave(error: BaseException, store: Any, world: World) -> None:
    """Raise `error` if this process is the one to tell it, SystemExit with its code otherwise."""
    with suppress(ValueError):  # the launcher asks all to stop as soon as the first has left
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if _is_of_the_exchange(error):  # which fails where another process has failed before
        note = _read(store, seconds=GRACE_SECONDS / 2)
        if note is not None:
            raise SystemExit(note["exit_code"]) from error
        error = RankLost(
            f"process {world.rank} of {world.size} lost another one ({short(error)}); "
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


def short(error: BaseException) -> str:
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
