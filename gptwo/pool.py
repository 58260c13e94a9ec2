"""Work in parallel: threads in the order of their items, and processes for what may kill them.

A task is one file to make. A worker says which document it touches next. When it dies the
task is done again, and if it dies twice at the same document, once more without that one. No worker
outlives its parent.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

from gptwo.errors import ResourceError
from gptwo.lock import disk_errors
from gptwo.progress import Reporter, worker_process

TASKS_PER_WORKER = 16  # HTML parsers keep heap; a fresh process gives it back
DEATHS_PER_TASK = 8  # with so many, it is not the documents
POLL_SECONDS = 0.5
SHARED_MEMORY = Path("/dev/shm")  # a file system; where it is full, that is said

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file to make. It is done when `output` exists.

    `input` is whatever the job reads; `skip` names documents (by position in the input) that killed
    workers, each with how; `suspect` one that may have killed one, of `deaths` in all.
    """

    output: Path
    input: Any
    skip: tuple[tuple[int, str], ...] = ()
    suspect: int = -1
    deaths: int = 0


# What a worker calls: the task, the settings of the pool, and `at(number)` for each document.
Job = Callable[[Task, Any, Callable[[int], None]], None]


def count_workers(workers: int) -> int:
    """0 means one per core we may use."""
    return workers if workers > 0 else len(os.sched_getaffinity(0))


def in_order(
    work: Callable[[In], Out], items: Iterable[In], threads: int
) -> Generator[Out, None, None]:
    """`work` of every item by some threads, in the order of the items; few of them wait."""
    waiting: deque[Any] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Pool:
    """Runs the jobs of a room: `pool.run("corpus: extract", job, tasks)`.

    `config` is handed to every job; `preload` names the module that workers are forked with.
    """

    def __init__(self, config: Any, workers: int, reporter: Reporter, preload: str) -> None:
        self.config, self.reporter = config, reporter
        self.workers = count_workers(workers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([preload])
        self._idle: list[_Worker] = []

    def run(self, title: str, job: Job, tasks: Sequence[Task]) -> None:
        """Do every task whose output is not there yet; raises what a job raised."""
        waiting = deque(task for task in tasks if not task.output.exists())
        busy: dict[Connection, _Worker] = {}
        if not waiting:
            return
        try:
            with self.reporter.bar(title, None, "documents") as bar:
                while waiting or busy:
                    self.reporter.check()
                    while waiting and len(busy) < self.workers:
                        worker = self._idle.pop() if self._idle else _Worker(self._context)
                        worker.give(job, waiting.popleft(), self.config)
                        busy[worker.connection] = worker
                    for connection in wait(list(busy), timeout=POLL_SECONDS):
                        worker = busy[connection]  # type: ignore[index]
                        worker.listen()
                        if worker.dead:
                            waiting.appendleft(worker.task_after_death())
                    for worker in list(busy.values()):
                        bar.advance(worker.progress())
                        if worker.done or worker.dead:
                            del busy[worker.connection]
                            self._rest(worker)
                    left = len(waiting) + len(busy)
                    bar.advance(0, tasks=f"{len(tasks) - left:,}/{len(tasks):,}")
        finally:
            for worker in busy.values():
                worker.kill()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        while self._idle:
            self._idle.pop().kill()

    def _rest(self, worker: "_Worker") -> None:
        if worker.tasks_done < TASKS_PER_WORKER and not worker.dead:
            self._idle.append(worker)
        else:
            worker.kill()


class _Worker:
    """One process as its parent sees it."""

    def __init__(self, context: Any) -> None:
        self.connection, theirs = context.Pipe()
        with disk_errors(SHARED_MEMORY):  # memory that both see: no message a document
            self._position = context.RawValue("q", -1)
        self.process: ForkServerProcess = context.Process(
            target=serve, args=(theirs, self._position), daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.tasks_done, self._furthest = 0, -1
        self.done = self.dead = False

    def give(self, job: Job, task: Task, config: Any) -> None:
        self.task, self.done = task, False
        self._position.value = self._furthest = -1
        with suppress(OSError):  # it died while idle: listen() will notice
            self.connection.send((job, task, config))

    def progress(self) -> int:
        """How many documents it got further; a second pass over the same ones counts as none."""
        before, self._furthest = self._furthest, max(self._furthest, self._position.value)
        return self._furthest - before

    def listen(self) -> None:
        """Take what the worker has sent."""
        message = None
        try:
            while self.connection.poll():
                message = self.connection.recv()
                self.done, self.tasks_done = True, self.tasks_done + 1
        except (EOFError, OSError):
            self.dead = True
            self.process.join()
        if isinstance(message, BaseException):  # an OSError of the job's is no death
            raise message

    def task_after_death(self) -> Task:
        """The task again, without the document that two workers have died of."""
        assert self.task is not None
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if self.task.deaths >= DEATHS_PER_TASK:
            raise ResourceError(
                f"a worker died ({how}) on {self.task.output.stem}",
                remedy="give it more memory, or fewer --workers, and run the same command again",
            )
        position = self._position.value
        again = replace(self.task, suspect=position, deaths=self.task.deaths + 1)
        if position < 0 or position != self.task.suspect:  # it may have been killed
            return again
        return replace(again, skip=(*self.task.skip, (position, how)), suspect=-1)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def serve(connection: Connection, position: Any) -> None:
    """What a worker process does all its life."""
    worker_process()

    def at(number: int) -> None:
        position.value = number

    with suppress(EOFError, OSError):
        while True:
            job, task, config = connection.recv()
            try:
                job(task, config, at)
                connection.send(None)
            except Exception as error:
                connection.send(error)
            give_back_memory()


def give_back_memory() -> None:
    """What a task has freed goes back to the system: after one bad page, 490 MB in 60 ms."""
    if "pyarrow" in sys.modules:
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
