"""How long work tells how far it is, and how it is asked to stop.

Every long function takes a `Reporter`. Progress goes to stderr: a live line on a terminal, a plain
line every few seconds elsewhere. Results never do; they belong to stdout.
"""

import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from gptwo.errors import Interrupted

PLAIN_INTERVAL_SECONDS = 5.0
LIVE_INTERVAL_SECONDS = 0.2
RECENT_SECONDS = 30.0  # over which the rate is taken
RECENT_MARKS = 8  # or over so many advances, where they are slower
SHORT_SECONDS = 2.0  # work without a count that takes less leaves no line
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Bar:
    """One piece of work being counted.

    The rate, and with it the time that is left, is that of the last RECENT_SECONDS: what came
    before, an earlier run's part and the first unit, which may have had to compile or to open
    something, say nothing about what is to come.
    """

    def __init__(self, title: str, total: int | None, unit: str, live: Any) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.before = 0
        self.fields: dict[str, str] = {}
        self._live = live
        self._started = self._shown = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque()  # when so much was done

    def start_at(self, done: int) -> None:
        """So much was done before: it is counted, and not timed."""
        self.done = self.before = done

    def advance(self, n: int = 1, **fields: object) -> None:
        """Count `n` more units; `fields` are shown beside the count ("loss=3.21").

        A negative `n` takes back what is to be done again.
        """
        self.done += n
        if fields:
            self.fields.update({key: str(value) for key, value in fields.items()})
        now = time.monotonic()
        if n < 0:
            self._marks.clear()
        if not self._marks or now - self._marks[-1][0] >= LIVE_INTERVAL_SECONDS:
            self._mark(now)
        if now - self._shown >= (LIVE_INTERVAL_SECONDS if self._live else PLAIN_INTERVAL_SECONDS):
            self._shown = now
            self.show()

    def _mark(self, now: float) -> None:
        self._marks.append((now, self.done))
        while len(self._marks) > RECENT_MARKS and now - self._marks[0][0] > RECENT_SECONDS:
            self._marks.popleft()

    def show(self) -> None:
        line = self.line()
        if self._live:
            self._live.update(_as_it_is(line))
        else:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    @property
    def rate(self) -> float:
        """Units a second, lately; on average as long as there is only one mark."""
        seconds, done = self.elapsed, self.done - self.before
        if len(self._marks) > 1:
            first, counted = self._marks[0]
            seconds, done = time.monotonic() - first, self.done - counted
        return max(done, 0) / max(seconds, 1e-9)

    def line(self, *, ended: bool = False) -> str:
        """`corpus: extract 1,200/2,000 pages 85/s eta 9s kept=1,100`, and how long it took."""
        average = (self.done - self.before) / max(self.elapsed, 1e-9)
        rate = average if ended else self.rate
        count = f"{self.done:,}" + (f"/{self.total:,}" if self.total else "")
        parts = [f"{self.title}: {count} {self.unit}", f"{rate:,.4g}/s"]
        if self.total and rate and self.done < self.total and not ended:
            parts.append(f"eta {duration((self.total - self.done) / rate)}")
        parts += [f"{key}={value}" for key, value in self.fields.items()]
        return " ".join([*parts, f"in {duration(self.elapsed)}"] if ended else parts)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    @property
    def worth_telling(self) -> bool:
        """Whether anything was counted, or one had to wait for it."""
        return bool(self.done or self.total) or self.elapsed >= SHORT_SECONDS


class Reporter:
    """Progress on stderr, and whether someone asked to stop.

    The first SIGINT or SIGTERM sets `stop_requested`; work finishes or abandons its current step
    and raises `Interrupted`. A second signal exits at once: what was committed stays intact.
    """

    asked_early = False  # a signal came before any reporter listened
    speaks = True  # False for one of several processes that leaves it to another

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.stop_requested = False

    def say(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    @contextmanager
    def bar(self, title: str, total: int | None = None, unit: str = "items") -> Iterator[Bar]:
        """`with reporter.bar("crawl", 2_000, "pages") as bar: bar.advance()`"""
        if self.quiet:
            yield _SilentBar(title, total, unit, None)
            return
        if not sys.stderr.isatty():
            bar = Bar(title, total, unit, None)
            yield bar
            if bar.worth_telling:
                self.say(bar.line(ended=True))
            return
        from rich.console import Console  # late: --help must not pay for it
        from rich.status import Status

        console = Console(stderr=True)
        with Status(_as_it_is(title), console=console) as live:
            bar = Bar(title, total, unit, live)
            yield bar
        if bar.worth_telling:
            console.print(_as_it_is(bar.line(ended=True)))

    def check(self) -> None:
        """Raise `Interrupted` when a stop was asked for. Call between units of work."""
        if self.stop_requested:
            raise Interrupted(
                "stopped on request; finished work is kept",
                remedy="run the same command again to continue",
            )

    @classmethod
    def listen_early(cls) -> None:
        """Make SIGINT and SIGTERM a KeyboardInterrupt until a reporter listens.

        Modules being imported may swallow one; the reporter then knows of it all the same.
        """

        def on_signal(number: int, frame: FrameType | None) -> None:
            cls.asked_early = True
            raise KeyboardInterrupt

        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)

    def listen(self) -> None:
        """Take SIGINT and SIGTERM from now on. Only the command line calls this."""
        self.stop_requested = self.asked_early

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.stop_requested:
                os._exit(Interrupted.exit_code)
            self.stop_requested = True
            # Not sys.stderr: the signal may have come while it was being written to.
            with suppress(OSError):
                if self.speaks:
                    os.write(2, b"\nstopping after the current step; once more to exit at once\n")

        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)


class _SilentBar(Bar):
    def show(self) -> None:
        pass


def _as_it_is(line: str) -> Any:
    """For rich: brackets in it are no markup, numbers in it have no colours."""
    from rich.text import Text  # late, as above

    return Text(line)


SILENT = Reporter(quiet=True)


def worker_process(parent: int = 0) -> None:
    """The first thing a worker does: leave Ctrl-C to its parent, and do not outlive it (Linux).

    Ctrl-C reaches the whole group of processes, but the parent alone decides. `parent` is the pid
    that must still be there, where the worker knows it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent and os.getppid() != parent:  # it died before we asked
        os._exit(1)


def duration(seconds: float) -> str:
    """`duration(3725) == '1h02m'`"""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{whole:02d}s" if minutes else f"{whole}s"
