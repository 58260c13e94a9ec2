"""Progress speaks on stderr; a stop is asked for once and obeyed."""

import signal
import subprocess
import sys

import pytest

from gptwo import progress
from gptwo.errors import Interrupted
from gptwo.progress import SILENT, Bar, Reporter, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.26, "0.3s"), (59.6, "1m00s"), (61, "1m01s"), (3725, "1h02m")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_bar_ends_with_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter().bar("crawl", 2, "pages") as bar:
        bar.advance(2, errors=1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("crawl: 2/2 pages ") and "errors=1" in captured.err


class Clock:
    """Time as a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)

    def units(self, bar: Bar, n: int, seconds: float) -> None:
        """`n` units of so many seconds each."""
        for _ in range(n):
            self.now += seconds
            bar.advance()


def test_the_rate_is_that_of_late_and_the_first_unit_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    bar = Bar("train", 1_000, "steps", None)
    monkeypatch.setattr(bar, "show", lambda: None)
    clock.units(bar, 1, 90.0)  # it compiles
    clock.units(bar, 100, 0.5)
    assert bar.rate == pytest.approx(2.0)
    assert "2/s eta 7m30s" in bar.line()
    clock.units(bar, 200, 0.25)  # the machine is freer now
    assert bar.rate == pytest.approx(4.0)
    clock.units(bar, 20, 10.0)  # slower than the window is long
    assert bar.rate == pytest.approx(0.1)
    assert bar.line(ended=True).endswith("in 6m30s") and " 0.8231/s " in bar.line(ended=True)


def test_what_an_earlier_run_did_is_counted_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    bar = Bar("train", 5_000, "steps", None)
    monkeypatch.setattr(bar, "show", lambda: None)
    bar.start_at(4_000)
    clock.now += 10
    assert bar.rate == 0 and "eta" not in bar.line()  # nothing is known yet
    clock.units(bar, 101, 1.0)
    assert bar.line().startswith("train: 4,101/5,000 steps 1/s eta 14m59s")
    assert " 0.9099/s " in bar.line(ended=True)


def test_what_is_taken_back_is_not_a_negative_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    bar = Bar("train", 100, "steps", None)
    monkeypatch.setattr(bar, "show", lambda: None)
    clock.units(bar, 50, 1.0)
    bar.advance(-20)
    assert bar.done == 30 and bar.rate >= 0
    clock.units(bar, 10, 2.0)
    assert bar.rate == pytest.approx(0.5)


def test_brackets_are_no_markup() -> None:
    """A terminal shows a line as it is, whatever stands in it."""
    from rich.console import Console

    class Terminal:
        shown = ""

        def update(self, line: object) -> None:
            console = Console(width=200)
            with console.capture() as capture:
                console.print(line)
            Terminal.shown = capture.get()

    bar = Bar("text", None, "files", Terminal())
    bar.fields["at"] = "a[/b]c[red]"
    bar.show()
    assert "at=a[/b]c[red]" in Terminal.shown


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with SILENT.bar("crawl") as bar:
        bar.advance()
        bar.show()
    SILENT.say("hello")
    assert capsys.readouterr() == ("", "")


def test_the_first_signal_asks_and_the_second_exits() -> None:
    code = """
import os, signal, sys
from gptwo.errors import Interrupted
from gptwo.progress import Reporter
reporter = Reporter(quiet=True)
reporter.listen()
reporter.check()
os.kill(os.getpid(), signal.SIGTERM)
try:
    reporter.check()
except Interrupted as stop:
    print("asked", stop.exit_code, flush=True)
os.kill(os.getpid(), signal.SIGINT)
print("never")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("asked 75\n", 75)


def test_check_raises_only_when_asked() -> None:
    reporter = Reporter(quiet=True)
    reporter.check()
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        reporter.check()


def test_a_signal_that_an_import_swallowed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reporter, "asked_early", False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        Reporter.listen_early()
        with pytest.raises(KeyboardInterrupt):  # whoever catches it ...
            signal.raise_signal(signal.SIGTERM)
        reporter = Reporter(quiet=True)
        reporter.listen()
        with pytest.raises(Interrupted):  # ... the work stops all the same
            reporter.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
