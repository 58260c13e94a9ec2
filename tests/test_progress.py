"""Progress speaks on stderr; a stop is asked for once and obeyed."""

import signal
import subprocess
import sys

import pytest

from gptwo.errors import Interrupted
from gptwo.progress import SILENT, Reporter, duration


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
