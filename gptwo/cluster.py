"""Many machines: the face of `gptwo.pool.Pool`, with its tasks spread by Ray.

Ray finds each task a worker on some node, and another one when that dies. Inside the worker the
task runs in a `Pool` of one: a document that kills costs a child process, is found and set aside
as on one machine, and its limits hold in the main thread of a process that has no other. Results
are files on a store that all nodes see; only the task itself travels through Ray.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gptwo
from gptwo.errors import GptwoError, NetworkError, ResourceError, UsageError
from gptwo.pool import DEATHS_PER_TASK, POLL_SECONDS, Job, Pool, Task, count_workers
from gptwo.progress import SILENT, Bar, Reporter

EXECUTORS = ("pool", "ray")
STORE_SECONDS = 30.0  # network file systems remember for so long that a file was not there
STARTS = 4  # Ray gives a node 30 s to start, too little on a machine that is busy
CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 80 << 20  # the least Ray allows; documents do not pass through it
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}


@dataclass(frozen=True, kw_only=True)
class _Order:
    """What a Ray worker is told: the task, and where its driver stands."""

    job: Job
    task: Task
    config: Any
    preload: str
    folder: str  # relative paths begin here
    version: str


@dataclass(frozen=True, kw_only=True)
class _Answer:
    host: str
    documents: int = 0
    error: Exception | None = None


def check_executor(name: str, address: str) -> None:
    """Refuse what `open_executor` could not open, before any work is done."""
    if name not in EXECUTORS:
        raise UsageError(
            f"there is no executor {name!r}", remedy=f"choose one of {', '.join(EXECUTORS)}"
        )
    if address and name != "ray":
        raise UsageError("only the executor ray has an address", remedy="add --executor ray")
    if name == "ray" and find_spec("ray") is None:
        raise UsageError(
            "the executor ray needs ray, which is not installed",
            remedy="pip install 'gptwo[cluster]'",
        )


def open_executor(
    name: str, address: str, config: Any, workers: int, reporter: Reporter, preload: str
) -> "Pool | Cluster":
    """What runs tasks: the processes of this machine, or those of a cluster."""
    if name == "ray":
        return Cluster(config, workers, reporter, preload, address)
    return Pool(config, workers, reporter, preload)


class Cluster:
    """Runs the jobs of a room on the nodes of a Ray cluster; one at a time in a process.

    `address` is that of a running cluster, "head:6379"; "" starts one on this machine that ends
    with us. `workers` 0 means one per core of the cluster. The nodes need this version of gptwo and
    a view of every path that tasks name.
    """

    def __init__(
        self, config: Any, workers: int, reporter: Reporter, preload: str, address: str = ""
    ) -> None:
        self.config, self.reporter, self.preload = config, reporter, preload
        self._ray = _connect(address, count_workers(workers))
        try:
            self.workers = workers or self._cores(address)
        except BaseException:
            self._ray.shutdown()
            raise
        spread: Any = self._ray.remote(
            num_cpus=1, max_retries=DEATHS_PER_TASK, scheduling_strategy="SPREAD"
        )
        self._work: Any = spread(work)

    def run(self, title: str, job: Job, tasks: Sequence[Task]) -> None:
        """Do every task whose output is not there yet; raises what a job raised.

        After an error or a stop some tasks may still run; they end with the cluster. (To cancel one
        that just finishes makes Ray 2.60 abort this process.)
        """
        waiting = deque(task for task in tasks if not task.output.exists())
        busy: dict[Any, Task] = {}
        if not waiting:
            return
        finished, next_look = 0, time.monotonic()
        with self.reporter.bar(title, None, "documents") as bar:
            while waiting or busy:
                self.reporter.check()
                while waiting and len(busy) < self.workers:
                    task = waiting.popleft()
                    busy[self._work.remote(self._order(job, task))] = task
                done, _ = self._ray.wait(list(busy), timeout=POLL_SECONDS)
                for reference in done:
                    finished += self._take(reference, busy[reference])
                    del busy[reference]
                if time.monotonic() >= next_look or not busy:
                    known = finished + sum(map(_told, busy.values()))
                    bar.advance(max(known - bar.done, 0))  # less, when a worker began again
                    next_look = time.monotonic() + POLL_SECONDS

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        self._ray.shutdown()

    def _cores(self, address: str) -> int:
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if not cores:
            raise ResourceError(
                f"the Ray cluster {address} has no cores for us", remedy="add a node, or --workers"
            )
        return cores

    def _order(self, job: Job, task: Task) -> _Order:
        return _Order(
            job=job,
            task=task,
            config=self.config,
            preload=self.preload,
            folder=str(Path.cwd()),
            version=gptwo.__version__,
        )

    def _take(self, reference: Any, task: Task) -> int:
        """The documents of a task that Ray has finished with; raises what went wrong with it."""
        try:
            answer: _Answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # our code did not even begin
            why = str(error).strip().splitlines()[-1]
            raise UsageError(
                f"a node of the cluster cannot run gptwo: {why}",
                remedy=f"install gptwo {gptwo.__version__} with the same extras on every node",
            ) from error
        except self._ray.exceptions.RayError as error:
            raise ResourceError(
                f"{DEATHS_PER_TASK + 1} workers died on {task.output.stem}"
                f" ({type(error).__name__})",
                remedy="give the nodes more memory, or fewer --workers, and run it again",
            ) from error
        if answer.error is not None:
            raise answer.error
        self._await(task.output, answer.host)
        return answer.documents

    def _await(self, path: Path, host: str) -> None:
        """Until what a node has written is seen here."""
        deadline = time.monotonic() + STORE_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"{host} has made {path}, but it is not there on {socket.gethostname()}",
                    remedy="choose an --out on a store that all nodes see under the same path",
                )
            with suppress(OSError):
                list(path.parent.iterdir())  # makes NFS ask the server again
            time.sleep(0.1)


def _connect(address: str, cores: int) -> Any:
    """Ray itself, connected; quiet, without its usage reports, our signal handlers kept."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."  # the raylet's messages would go to our stdout
    import ray  # late: an extra, and slow

    with _kept_signals():
        if address:
            _join(ray, address)
        else:
            _start(ray, cores)
    return ray


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UsageError(f"{address!r} is no HOST:PORT", remedy="name the head node of a cluster")
    try:
        # First by ourselves: Ray goes on trying for many minutes.
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, **QUIET)
    except Exception as error:  # of many kinds, the bare class among them
        ray.shutdown()
        raise NetworkError(
            f"no Ray cluster answers at {address}: {_first_line(error)}",
            remedy="start one with ray start --head, or leave out --address",
        ) from error


def _start(ray: Any, cores: int) -> None:
    for attempt in range(STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **QUIET,
            )
            return
        except Exception as error:  # the bare class, when a node is slow to start
            ray.shutdown()
            if attempt == STARTS - 1:
                raise ResourceError(
                    f"Ray does not start here: {_first_line(error)}",
                    remedy="try again when the machine is less busy, or use the pool",
                ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Ray puts its own handler of SIGTERM in the place of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)


def work(order: _Order) -> _Answer:
    """What a Ray worker does with an order: errors are part of the answer."""
    host = socket.gethostname()
    if order.version != gptwo.__version__:
        found = f"{host} has gptwo {gptwo.__version__}, the driver {order.version}"
        error = UsageError(found, remedy="install the same version on every node")
        return _Answer(host=host, error=error)
    with suppress(OSError):  # paths may all be absolute
        os.chdir(order.folder)
    relay = _Relay(_note(order.task))
    try:
        pool = _pool_of_one(order.config, order.preload)
        pool.reporter = relay
        pool.run("", order.job, [order.task])
    except GptwoError as error:
        return _Answer(host=host, error=error)
    except FileNotFoundError as error:
        missing = ResourceError(
            f"{host} does not see {error.filename}",
            remedy="keep sources and --out on a store that all nodes see under the same path",
        )
        return _Answer(host=host, error=missing)
    except Exception as error:
        return _Answer(host=host, error=error)
    finally:
        relay.path.unlink(missing_ok=True)
    return _Answer(host=host, documents=relay.documents)


@lru_cache(maxsize=1)
def _pool_of_one(config: Any, preload: str) -> Pool:
    """The child process of this Ray worker, kept from task to task."""
    vars(sys.modules["__main__"]).pop("__file__", None)  # or each child would run Ray's own script
    return Pool(config, 1, SILENT, preload)


def _note(task: Task) -> Path:
    """The file in which a task tells how far it is; its name is one of those that are swept up."""
    return task.output.with_name(f"{task.output.name}.tmp-told")


def _told(task: Task) -> int:
    try:
        return int(_note(task).read_text())
    except (OSError, ValueError):  # not begun, or just being written
        return 0


class _Relay(Reporter):
    """The reporter of one task: what its bar has counted goes into the task's note."""

    def __init__(self, path: Path) -> None:
        super().__init__(quiet=True)
        self.path, self._bar, self._next_note = path, Bar("", None, "", None), 0.0

    @property
    def documents(self) -> int:
        return self._bar.done

    @contextmanager
    def bar(self, title: str, total: int | None = None, unit: str = "items") -> Iterator[Bar]:
        with super().bar(title, total, unit) as self._bar:
            yield self._bar

    def check(self) -> None:
        """Called by the pool again and again."""
        if time.monotonic() < self._next_note:
            return
        self._next_note = time.monotonic() + POLL_SECONDS
        with suppress(OSError):  # a full disk is for the task to tell
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(str(self.documents))
