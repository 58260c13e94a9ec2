"""The paper's batch, 512 x 1024 tokens, on a small machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import Inputs

TRAIN = Path(__file__).with_name("paper_batch.py")
ROOM_MB = 24  # the ids take 4; the logits of that many rows at once would take 600


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells no peak of memory")
def test_memory_does_not_grow_with_the_batch(inputs: Inputs, tmp_path: Path) -> None:
    command = [sys.executable, str(TRAIN), str(tmp_path), str(inputs.tokens), str(inputs.tokenizer)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    peaks = {int(size): peak for size, peak in json.loads(done.stdout).items()}
    assert peaks[524_288] < peaks[8_192] + ROOM_MB
    lines = (tmp_path / "1-524288" / "metrics.jsonl").read_text().splitlines()
    steps = [row for row in map(json.loads, lines) if "loss" in row]
    assert [row["tokens"] for row in steps] == [524_288, 1_048_576]
    assert steps[1]["loss"] < steps[0]["loss"]
