"""What one document may cost: processor time and memory, enforced on this process."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

GRACE = 3  # times the seconds, after which the process dies


class TimeUp(BaseException):
    """A document used up its processor time."""


@contextmanager
def limits(seconds: float, memory_mb: int) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Gives `bounded`, under which a block may cost that much, each time anew.

    `with bounded(): ...` raises `TimeUp` after `seconds` of processor time and `MemoryError` after
    `memory_mb` of new address space. Native code that does not come back dies with the process at
    GRACE times the time. For worker processes only: it sets signals and limits of the process.
    """

    def on_time(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    memory = resource.getrlimit(resource.RLIMIT_AS)
    sizes = os.open("/proc/self/statm", os.O_RDONLY)
    page = resource.getpagesize()

    @contextmanager
    def bounded() -> Iterator[None]:
        held = int(os.pread(sizes, 64, 0).split()[0]) * page
        try:
            most = held + (memory_mb << 20)
            resource.setrlimit(resource.RLIMIT_AS, (_at_most(most, memory[1]), memory[1]))
            # Not RLIMIT_CPU: the kernel counts that by another clock, which drifts from ours.
            signal.setitimer(signal.ITIMER_VIRTUAL, GRACE * seconds + 1)
            signal.setitimer(signal.ITIMER_PROF, seconds)
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            resource.setrlimit(resource.RLIMIT_AS, memory)

    signal.signal(signal.SIGPROF, on_time)
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)  # which ends the process
    try:
        yield bounded
    finally:
        os.close(sizes)


def _at_most(limit: int, hard: int) -> int:
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)
