"""Whole processes: killed, asked to stop, started twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from small_run import Inputs, content

HERE = Path(__file__).parent
LONG = {"steps": 60}


def start(out: Path, inputs: Inputs, settings: dict[str, Any] = LONG) -> subprocess.Popen[str]:
    """Start training and wait until it hears signals."""
    process = subprocess.Popen(
        [sys.executable, HERE / "train_script.py", out, *inputs, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "listening\n"
    return process


def finish(out: Path, inputs: Inputs, settings: dict[str, Any] = LONG) -> dict[str, bytes]:
    process = start(out, inputs, settings)
    _, complaint = process.communicate(timeout=120)
    assert process.returncode == 0, complaint
    return content(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> dict[str, bytes]:
    """What a run leaves behind that nobody disturbed."""
    return finish(tmp_path_factory.mktemp("whole"), inputs)


@pytest.mark.slow
def test_killed_and_stopped_at_random_moments_it_ends_with_the_same_bytes(
    tmp_path: Path, inputs: Inputs
) -> None:
    """Weights, optimiser, metrics; with dropout, accumulation, epochs, Muon, skips, rollbacks."""
    ran = subprocess.run(
        [sys.executable, HERE / "killed_runs.py", tmp_path, *inputs],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert sum(int(line.split()[-4]) for line in ran.stdout.splitlines()) >= 6, ran.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_commits_and_exits_75(
    tmp_path: Path, inputs: Inputs, whole: dict[str, bytes], number: signal.Signals
) -> None:
    process = start(tmp_path / "parts", inputs)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 8:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    step = int(metrics.read_text().splitlines()[-1].split(":")[1].split(",")[0])
    assert (tmp_path / "parts" / "checkpoints" / f"step-{step:08d}" / "manifest.json").exists()
    assert finish(tmp_path / "parts", inputs) == whole


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_what_is_committed_stays(
    tmp_path: Path, inputs: Inputs, whole: dict[str, bytes]
) -> None:
    """Both come while the process stands still: before the next step both are there."""
    process = start(tmp_path / "parts", inputs)
    checkpoints = tmp_path / "parts" / "checkpoints"
    while not list(checkpoints.glob("step-*/manifest.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    committed = {path.name for path in checkpoints.glob("step-*")}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75 and "once more to exit at once" in said
    assert {path.name for path in checkpoints.glob("step-*")} == committed
    assert finish(tmp_path / "parts", inputs) == whole


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path, inputs: Inputs) -> None:
    process = start(tmp_path, inputs)
    while not (tmp_path / ".lock").exists() and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # however fast it is, it is still there
    try:
        second = start(tmp_path, inputs)
        _, said = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"in use by process {process.pid}" in said
    finally:
        os.kill(process.pid, signal.SIGCONT)
        process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler for torch.compile")
def test_a_compiled_run_that_was_killed_ends_with_the_same_bytes(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first shape that the compiler sees is another when it goes on: 4 rows, not 4 and 3."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"compile": "on", "micro_batch": 4, "validation_tokens": 7 * 16, "steps": 40}
    settings |= {"validation_interval": 20}
    whole = finish(tmp_path / "whole", inputs, settings)
    process = start(tmp_path / "parts", inputs, settings)
    while not list((tmp_path / "parts" / "checkpoints").glob("step-*05/manifest.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.kill()
    process.communicate(timeout=60)
    steps = (tmp_path / "parts" / "metrics.jsonl").read_text().count("loss")
    assert 5 <= steps < 40
    assert finish(tmp_path / "parts", inputs, settings) == whole
