"""What one document may cost: processor time and memory, enforced on this process."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class TimeUp(BaseException):
    """A document used up its processor time."""


@contextmanager
def bounded(seconds: float, memory_mb: int) -> Iterator[None]:
    """Run a block under limits: `TimeUp` after `seconds` of processor time, `MemoryError` after
    `memory_mb` of new address space. Native code that does not come back dies with the process at
    three times the time. For worker processes only: it sets signals and limits of the process.
    """

    def on_time(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_deadline = int(used.ru_utime + used.ru_stime + 3 * seconds) + 2
    cpu, memory = resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_AS)
    signal.signal(signal.SIGPROF, on_time)
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (_at_most(cpu_deadline, cpu[1]), cpu[1]))
        address_space = _address_space() + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (_at_most(address_space, memory[1]), memory[1]))
        signal.setitimer(signal.ITIMER_PROF, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, memory)
        resource.setrlimit(resource.RLIMIT_CPU, cpu)


def _at_most(limit: int, hard: int) -> int:
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
