"""`gptwo sample`: the prompt as an argument or from stdin, text on stdout, speed on stderr."""

import json
import signal
import subprocess
import sys
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
    assert json.loads(capsys.readouterr().out) == {
        "prompt": "the",
        "text": "".join(stream(*subject(), "the", CONFIG)),
        "seed": 4,
    }


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
