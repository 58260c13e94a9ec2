"""Checkpoints: whole or not there, damage named, disks that fill up."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from small_run import SHORT, TINY, Inputs, content, train_small

from gptwo.artifacts import verify
from gptwo.errors import ModelError, ResourceError
from gptwo.model.gpt2 import GPT2
from gptwo.training import checkpoint
from gptwo.training.checkpoint import State, committed, is_due, newest, prune

HERE = Path(__file__).parent


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_kill_at_any_point_of_a_save_leaves_a_checkpoint_that_loads(
    tmp_path: Path, inputs: Inputs
) -> None:
    ran = subprocess.run(
        [sys.executable, HERE / "kill_points.py", tmp_path / "checkpoints", inputs.tokenizer],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "died at" in ran.stdout


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_bit_is_found_and_named(tmp_path: Path, inputs: Inputs, name: str) -> None:
    final = train_small(tmp_path, inputs)
    blob = bytearray((final / name).read_bytes())
    blob[len(blob) // 2] ^= 4
    (final / name).write_bytes(blob)
    longer = replace(SHORT, steps=12)
    with pytest.raises(ModelError, match=f"{name}.* does not match its SHA-256") as error:
        train_small(tmp_path, inputs, longer, accept_changes=("training.steps",))
    assert error.value.exit_code == 4
    assert f"delete {final}" in error.value.remedy


def test_without_the_damaged_checkpoint_the_one_before_serves(
    tmp_path: Path, inputs: Inputs
) -> None:
    final = train_small(tmp_path, inputs)
    before = content(tmp_path)
    (final / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="is missing"):
        train_small(tmp_path, inputs)
    for path in final.iterdir():
        path.unlink()
    final.rmdir()
    train_small(tmp_path, inputs)
    assert content(tmp_path) == before
    assert verify(tmp_path)["folders"] == 2


def test_too_little_room_is_seen_before_writing(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int = 5_000_000

    monkeypatch.setattr(checkpoint, "SPACE_WAITS_SECONDS", (0.0, 0.0))
    train_small(tmp_path / "whole", inputs)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage())
        with pytest.raises(ResourceError, match=r"takes 8 MB and .* has 5 MB") as error:
            train_small(tmp_path / "run", inputs)
    assert error.value.exit_code == 5
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    train_small(tmp_path / "run", inputs)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


@pytest.mark.parametrize("size", [3_000, 30_000, 60_000])
def test_a_disk_that_fills_while_saving(tmp_path: Path, inputs: Inputs, size: int) -> None:
    """The limit falls into the tokenizer, the weights or the optimiser; the old one stays."""
    train_small(tmp_path / "whole", inputs, replace(SHORT, steps=12))
    train_small(tmp_path / "run", inputs)
    accept = {"accept_changes": ("training.steps",)}
    longer = replace(SHORT, steps=12)
    with files_up_to(size), pytest.raises(ResourceError) as error:
        train_small(tmp_path / "run", inputs, longer, **accept)
    assert error.value.exit_code == 5
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-00000009", "step-00000010"]
    train_small(tmp_path / "run", inputs, longer, **accept)


def test_pruning_keeps_the_newest_and_the_last_that_were_due(tmp_path: Path) -> None:
    config = replace(SHORT, steps=20, checkpoint_interval=5, keep_checkpoints=2)

    def left_of(*steps: int) -> list[int]:
        for path in committed(tmp_path):
            checkpoint.shutil.rmtree(path)
        for step in steps:
            (tmp_path / f"step-{step:08d}").mkdir()
            (tmp_path / f"step-{step:08d}" / "manifest.json").touch()
        prune(tmp_path, config)
        assert not list(tmp_path.glob(".*"))
        return [int(path.name[5:]) for path in committed(tmp_path)]

    assert left_of(5, 10, 15) == [10, 15]
    assert left_of(5, 10, 12) == [5, 10, 12]  # stopped at 12
    assert left_of(5, 10, 12, 15) == [10, 15]  # and gone on
    assert left_of(15, 17, 20) == [15, 20]


def test_when_things_are_due() -> None:
    assert [step for step in range(1, 11) if is_due(step, 4, 10)] == [4, 8, 10]
    assert [step for step in range(1, 11) if is_due(step, 0, 10)] == [10]


def test_the_newest_is_a_whole_one(tmp_path: Path, inputs: Inputs) -> None:
    final = train_small(tmp_path, inputs)
    (final.parent / "step-00000099").mkdir()  # made by nobody: it has no manifest
    assert newest(final.parent) == final
    assert newest(tmp_path / "nowhere") is None


def test_a_checkpoint_that_exists_is_not_written_again(tmp_path: Path, inputs: Inputs) -> None:
    final = train_small(tmp_path, inputs)
    before = (final / "manifest.json").stat().st_mtime_ns
    model = GPT2(TINY)
    optimizer = torch.optim.AdamW(model.parameters())
    again = checkpoint.save(
        final.parent, State(step=10), model, optimizer, tokenizer=inputs.tokenizer, plan={}
    )
    assert again == final and (final / "manifest.json").stat().st_mtime_ns == before


def test_a_checkpoint_opens_in_transformers(tmp_path: Path, inputs: Inputs) -> None:
    transformers = pytest.importorskip("transformers")
    final = train_small(tmp_path, inputs)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(final)
    ours = checkpoint.load_model(final)
    ids = torch.arange(16)[None]
    with torch.inference_mode():
        assert torch.allclose(theirs.eval()(ids).logits, ours.eval()(ids), atol=1e-5)
