"""Checkpoints: whole or not there, damage named, disks that fill up."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from small_run import SHORT, Inputs, content, train_small
from stops import Listens

from gptwo.artifacts import verify, write_json
from gptwo.errors import ModelError, ResourceError
from gptwo.training.checkpoints import checkpoint
from gptwo.training.checkpoints.checkpoint import State, best, committed, is_due, newest, settle

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


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 4
    path.write_bytes(blob)


def test_a_kill_at_any_point_of_a_save_leaves_a_checkpoint_that_loads(
    tmp_path: Path, inputs: Inputs
) -> None:
    ran = subprocess.run(
        [sys.executable, HERE / "kill_points.py", tmp_path / "checkpoints", inputs.tokenizer],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    assert "died at" in ran.stdout


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_flipped_bit_is_found_and_named(tmp_path: Path, inputs: Inputs, name: str) -> None:
    final = train_small(tmp_path, inputs)
    flip(final / name)
    longer = replace(SHORT, steps=12)
    with pytest.raises(ModelError, match=f"{name}.* does not match its SHA-256") as error:
        train_small(tmp_path, inputs, longer, accept_changes=("training.steps",))
    assert error.value.exit_code == 4
    assert f"--drop-damaged, which deletes {final}" in error.value.remedy


def test_asked_to_it_falls_back_to_the_one_before(tmp_path: Path, inputs: Inputs) -> None:
    final = train_small(tmp_path, inputs)
    before = content(tmp_path)
    flip(final / "model.safetensors")
    reporter = Listens()
    assert train_small(tmp_path, inputs, drop_damaged=True, reporter=reporter) == final
    assert content(tmp_path) == before
    assert [line for line in reporter.heard if "deleting" in line] == [
        f"train: deleting a damaged checkpoint: {final / 'model.safetensors'} "
        f"({len(before['checkpoints/step-00000010/model.safetensors']):,} bytes) "
        "does not match its SHA-256"
    ]


def test_where_all_are_damaged_none_is_deleted(tmp_path: Path, inputs: Inputs) -> None:
    final = train_small(tmp_path, inputs)
    names = [path.name for path in committed(final.parent)]
    for path in committed(final.parent):
        flip(path / "optimizer.safetensors")
    with pytest.raises(ModelError, match=r"none of the 2 checkpoints is undamaged"):
        train_small(tmp_path, inputs, drop_damaged=True)
    assert [path.name for path in committed(final.parent)] == names


def test_a_state_of_another_version_is_named(tmp_path: Path, inputs: Inputs) -> None:
    """Hashes tell damage; a field that nobody knows is another thing."""
    final = train_small(tmp_path, inputs)
    other = json.loads((final / "state.json").read_text()) | {"phase": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "read_json", lambda path, error: other)
        with pytest.raises(ModelError, match=r"state\.json: unknown setting 'phase'"):
            checkpoint.read_state(final)


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
        free: int = 900_000

    monkeypatch.setattr(checkpoint, "SPACE_WAITS_SECONDS", (0.0, 0.0))
    train_small(tmp_path / "whole", inputs)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda path: Usage())
        with pytest.raises(ResourceError, match=r"takes 1 MB and .* has 1 MB") as error:
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
    longer = replace(SHORT, steps=12)
    accept = ("training.steps",)
    with files_up_to(size), pytest.raises(ResourceError) as error:
        train_small(tmp_path / "run", inputs, longer, accept_changes=accept)
    assert error.value.exit_code == 5
    folders = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert folders == ["step-00000009", "step-00000010"]
    train_small(tmp_path / "run", inputs, longer, accept_changes=accept)


def test_a_full_disk_is_given_time(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice there is no room, then someone else's temporary file is gone."""
    train_small(tmp_path / "whole", inputs)
    waited: list[float] = []
    plain = checkpoint._write_hashed

    def full_at_first(path: Path, pieces: object) -> dict:
        if path.name == "optimizer.safetensors" and len(waited) < 2:
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(path, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "_write_hashed", full_at_first)
    monkeypatch.setattr(checkpoint.time, "sleep", waited.append)
    train_small(tmp_path / "run", inputs)
    assert waited == list(checkpoint.SPACE_WAITS_SECONDS)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def make_folders(folder: Path, steps: tuple[int, ...], last: State) -> None:
    """What `settle` looks at: folders with a manifest, and the newest one's state."""
    for path in committed(folder):
        shutil.rmtree(path)
    for step in steps:
        path = folder / f"step-{step:08d}"
        path.mkdir()
        write_json(path / "state.json", asdict(replace(last, step=step)))
        state = {
            "kind": "checkpoint",
            "config": {},
            "inputs": {},
            "files": checkpoint.describe_files(path, ["state.json"]),
            "counts": {},
        }
        checkpoint.write_manifest(path, checkpoint.Manifest(**state))


@pytest.mark.parametrize(
    "made, best_step, left",
    [
        ((5, 10, 15), None, [10, 15]),
        ((5, 10, 12), None, [5, 10, 12]),  # stopped at 12
        ((5, 10, 12, 15), None, [10, 15]),  # and gone on
        ((15, 17, 20), None, [15, 20]),
        ((5, 10, 15, 20), 5, [5, 15, 20]),  # the best whatever its age
        ((5, 7, 10, 15), 7, [7, 10, 15]),  # even between two that were due
        ((5, 10, 15), 15, [10, 15]),
        ((5, 10, 15), 3, [10, 15]),  # it was lost
    ],
)
def test_what_is_kept(
    tmp_path: Path, made: tuple[int, ...], best_step: int | None, left: list[int]
) -> None:
    config = replace(SHORT, steps=20, checkpoint_interval=5, keep_checkpoints=2)
    (tmp_path / ".step-00000001").mkdir()  # a leftover
    make_folders(tmp_path, made, State(best_step=best_step, finished=made[-1] == 20))
    settle(tmp_path, config)
    assert not list(tmp_path.glob(".*"))
    assert [int(path.name[5:]) for path in committed(tmp_path)] == left
    found = best(tmp_path)
    assert found == (tmp_path / f"step-{best_step:08d}" if best_step in left else None)


def test_the_last_of_a_finished_run_counts_as_due(tmp_path: Path) -> None:
    config = replace(SHORT, steps=17, checkpoint_interval=5, keep_checkpoints=2)
    make_folders(tmp_path, (5, 10, 15, 17), State(finished=True))
    settle(tmp_path, config)
    assert [int(path.name[5:]) for path in committed(tmp_path)] == [15, 17]


def test_the_best_is_kept_and_named(tmp_path: Path, inputs: Inputs) -> None:
    """At a rate this high the held-out loss rises from step 5 on: the best is not the newest."""
    rate = {"lr": 0.1, "lr_final_ratio": 1.0, "warmup_steps": 8}
    config = replace(SHORT, steps=12, validation_interval=1, keep_checkpoints=1, **rate)
    train_small(tmp_path, inputs, config)
    measured = {}
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        if "valid_loss" in line:
            measured[json.loads(line)["step"]] = json.loads(line)["valid_loss"]
    lowest = min(measured, key=lambda step: measured[step])
    assert 0 < lowest < 11 and lowest % 3, "choose another rate: this tests nothing"
    folder = tmp_path / "checkpoints"
    assert [path.name for path in committed(folder)] == [f"step-{lowest:08d}", "step-00000012"]
    chosen = best(folder)
    assert chosen is not None and chosen == folder / f"step-{lowest:08d}"
    assert checkpoint.read_state(chosen).valid_loss == measured[lowest]
    assert newest(folder) == folder / "step-00000012"
    assert verify(tmp_path)["folders"] == 2


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
    again = checkpoint.save(
        final.parent, checkpoint.read_state(final), {}, tokenizer=inputs.tokenizer, plan={}
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
