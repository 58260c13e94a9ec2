"""What the tests of the cluster run; its workers import it."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gptwo.corpus.extraction.limits import TimeUp, limits
from gptwo.errors import DataError
from gptwo.pool import Task


def many_kinds(task: Task, config: object, at: Callable[[int], None]) -> None:
    """Ten documents; the input says what happens at the seventh."""
    skip = dict(task.skip)
    for number in range(10):
        at(number)
        if number == 7 and number not in skip:
            happen(task.input)
    task.output.write_text(f"{skip} {limits_of_a_document()}")


def happen(what: str) -> None:
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "bad":
        raise DataError("bad input", remedy="fix it")
    if what == "missing":
        Path("/nowhere/shard.parquet").read_bytes()


def limits_of_a_document() -> str:
    """Both limits strike, in the main thread, and the process is itself again afterwards."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    struck = [threading.current_thread() is threading.main_thread()]
    try:
        with limits(0.2, 512) as bounded, bounded():
            while True:
                pass
    except TimeUp:
        struck.append(True)
    try:
        with limits(5, 64) as bounded, bounded():
            bytearray(200 << 20)
    except MemoryError:
        struck.append(True)
    struck.append(resource.getrlimit(resource.RLIMIT_AS) == before)
    return str(struck)


def slowly(task: Task, config: object, at: Callable[[int], None]) -> None:
    """A second in ten steps."""
    for number in range(10):
        at(number)
        time.sleep(0.1)
    task.output.write_text("done")
