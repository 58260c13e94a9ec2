"""`gptwo sample`: the prompt as an argument or from stdin, text on stdout, speed on stderr."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_text_model import Subject, subject

from gptwo.cli import main
from gptwo.model.weights import save_checkpoint_model
from gptwo.text.config import SampleConfig
from gptwo.text.generate import stream

CONFIG = SampleConfig(max_tokens=12, temperature=0.7, top_k=30, top_p=0.9, seed=4)
OPTIONS = "--max-tokens 12 --temperature 0.7 --top-k 30 --top-p 0.9 --seed 4".split()  # noqa: SIM905


@pytest.fixture
def folder(small: Subject, tmp_path: Path) -> Path:
    save_checkpoint_model(small.model, tmp_path / "model")
    small.tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """A command listens to signals; the test run takes them back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_prompt_may_come_from_stdin(folder: Path) -> None:
    command = [sys.executable, "-m", "gptwo.cli", "sample", str(folder), "-", *OPTIONS]
    done = subprocess.run(command, input="the 日本".encode(), capture_output=True, check=False)
    expected = "the 日本" + "".join(stream(*subject(), "the 日本", CONFIG)) + "\n"
    assert (done.returncode, done.stdout.decode()) == (0, expected), done.stderr
    assert b"tokens/s" in done.stderr


def test_machines_read_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(folder), "the", *OPTIONS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = "".join(stream(*subject(), "the", CONFIG))
    assert (found["prompt"], found["text"], found["seed"]) == ("the", text, 4)
    assert found["tokens"] > 0 and found["finish"] in ("stop", "length")


def test_wrong_settings_and_models_have_their_exit_codes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", str(folder), "x" * 99]) == 2
    out, err = capsys.readouterr()
    assert out == "" and "the prompt has 99 tokens" in err and "Traceback" not in err
    (folder / "model.safetensors").write_text("<html>")
    assert main(["sample", str(folder), "the"]) == 4
    out, err = capsys.readouterr()
    assert out == "" and "is a web page" in err and "Traceback" not in err


def test_whole_at_once_and_several(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(stream(*subject(), "the", CONFIG))
    assert main(["sample", str(folder), "the", *OPTIONS, "--no-stream"]) == 0
    assert capsys.readouterr().out == f"the{text}\n"
    assert (
        main(["sample", str(folder), "the", *OPTIONS, "--n", "2", "--logit-bias", "65", "-9"]) == 0
    )
    assert capsys.readouterr().out.startswith("=== seed 4\nthe")


def test_interactive_takes_no_prompt(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["the"], ["--json"], ["--n", "2"]):
        assert main(["sample", str(folder), "--interactive", *wrong]) == 2
        assert "--interactive asks for its prompts" in capsys.readouterr().err


@pytest.mark.slow
def test_a_conversation_on_a_terminal(folder: Path) -> None:
    """Ctrl-C at the prompt gives up the line, during a text the text; Ctrl-D ends."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "gptwo.cli", "sample", str(folder), "--interactive"]
    command += ["--max-tokens", "100000", "--top-k", "3", "--openai-compat"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = Screen(ours)
        screen.wait_for("> ")
        os.write(ours, b"given up")
        screen.wait_for("given up")
        while not screen.shows("> ", seconds=2):  # readline overlooks one just before it waits
            process.send_signal(signal.SIGINT)
        os.write(ours, b"the\n")
        screen.wait_for("the\r\nthe")  # the line as it was typed, then the text that begins with it
        process.send_signal(signal.SIGINT)
        screen.wait_for("> ")
        os.write(ours, b"\x04")
        assert process.wait(timeout=60) == 0
    os.close(ours)


class Screen:
    """What a terminal shows, read until something is there."""

    def __init__(self, file: int) -> None:
        self.file, self.shown = file, ""

    def wait_for(self, text: str) -> None:
        assert self.shows(text, seconds=60), self.shown

    def shows(self, text: str, *, seconds: float) -> bool:
        """Whether `text` comes within `seconds`; what stands before it is read away."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            if time.monotonic() >= deadline:
                return False
            if select.select([self.file], [], [], 0.1)[0]:
                self.shown += os.read(self.file, 4096).decode("utf-8", "replace")
        self.shown = self.shown[self.shown.index(text) + len(text) :]
        return True
