"""Measurements are lines of JSON: all of them, once."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gptwo.errors import ResourceError
from gptwo.training import metrics
from gptwo.training.metrics import Lines, last_step


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = Lines(path, -1)
    for step in range(1, 4):
        lines.write({"step": step})
        assert steps(path)[-1] == step
    lines.sync()
    lines.close()
    assert steps(path) == [1, 2, 3]


def test_a_file_is_cut_to_the_checkpoint_and_the_half_line_goes(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1}\n{"step": 2}\n{"step": 2, "valid_loss": 3.0}\n{"step": 3}\n{"step": 4, "lo'
    )
    assert last_step(path) == 3
    Lines(path, 2).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 2, "valid_loss": 3.0}\n'
    Lines(path, 2, 1).close()
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(
    ("content", "step"),
    [("", -1), ("half", -1), ('{"step": 7}\n[3]\nnull\n{"step": null}\n', 7), ("\n\n", -1)],
)
def test_the_last_step_of_any_file(tmp_path: Path, content: str, step: int) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_step(path) == -1
    path.write_text(content)
    assert last_step(path) == step


def test_the_last_step_is_found_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}, "loss": 3.25}}\n' for step in range(20_000)))
    assert path.stat().st_size > metrics.TAIL_BYTES and last_step(path) == 19_999


def test_whoever_wants_to_know_is_told_every_line(tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    lines = Lines(tmp_path / "metrics.jsonl", -1, tell=told.append)
    lines.write({"step": 1, "loss": 2.0})
    lines.close()
    assert told == [{"step": 1, "loss": 2.0}]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Lines(tmp_path / "metrics.jsonl", -1)

    def full(text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    handle = lines._handle
    monkeypatch.setattr(lines, "_handle", SimpleNamespace(write=full))
    with pytest.raises(ResourceError, match=r"metrics\.jsonl: No space"):
        lines.write({"step": 1})
    handle.close()
