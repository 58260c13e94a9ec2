"""Checkpoints beside the training: the right step, the same bytes, errors that come home."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import SHORT, TINY, Inputs, content, train_small
from stops import StopsAfter

from gptwo.errors import Interrupted, ResourceError
from gptwo.model.gpt2 import GPT2
from gptwo.training.checkpoints import checkpoint, writer
from gptwo.training.checkpoints.checkpoint import State, committed, tensor_files
from gptwo.training.checkpoints.writer import Writer
from gptwo.training.optimizers.optim import Optimizer, make_optimizer, state_tensors

SHAPE = replace(TINY, vocab_size=300)
PLAN = {
    "training": asdict(SHORT),
    "model": asdict(SHAPE),
    "inputs": {"tokenizer": "", "tokens": ""},
}


class Gate:
    """Holds every save back until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        plain = checkpoint._write

        def held_back(*parts: Any) -> Path:
            self.entered.set()
            assert self.opened.wait(30)
            return plain(*parts)

        monkeypatch.setattr(checkpoint, "_write", held_back)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.opened.set()


class Training:
    """A model that can take steps, without data."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = GPT2(SHAPE)
        self.optimizer: Optimizer = make_optimizer(self.model, SHORT)
        self.step()

    def step(self) -> None:
        for weight in self.model.parameters():
            weight.grad = torch.sin(weight.detach() * 100)
        self.optimizer.step()

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return self.model.state_dict(), state_tensors(self.model, self.optimizer)


def make_writer(folder: Path, inputs: Inputs, **more: Any) -> Writer:
    return Writer(folder, SHORT, tokenizer=inputs.tokenizer, plan=PLAN, **more)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_step_it_was_called_at_is_written_with_the_bytes_of_the_plain_way(
    tmp_path: Path, inputs: Inputs, gate: Gate
) -> None:
    training = Training()
    state = State(step=1, best_step=1)
    plain = threading.Thread(
        target=checkpoint.save,
        args=(tmp_path / "plain", state, tensor_files(*training.tensors())),
        kwargs={"tokenizer": inputs.tokenizer, "plan": PLAN},
    )
    gate.opened.set()
    plain.start()
    plain.join()
    gate.opened.clear()
    gate.entered.clear()

    with closing(make_writer(tmp_path / "beside", inputs)) as beside:
        beside.save(state, *training.tensors())
        for _ in range(3):
            training.step()
        assert gate.entered.wait(30)
        training.step()
        assert committed(tmp_path / "beside") == []
        beside.check()
        gate.opened.set()
        beside.wait()
        assert written(tmp_path / "beside" / "step-00000001") == written(
            tmp_path / "plain" / "step-00000001"
        )


def test_one_is_under_way_at_most(tmp_path: Path, inputs: Inputs, gate: Gate) -> None:
    training = Training()
    with closing(make_writer(tmp_path, inputs)) as beside:
        beside.save(State(step=1), *training.tensors())
        assert gate.entered.wait(30)
        second = threading.Thread(target=beside.save, args=(State(step=2), *training.tensors()))
        second.start()
        second.join(0.2)
        assert second.is_alive() and committed(tmp_path) == []
        gate.opened.set()
        second.join(30)
        beside.wait()
    assert [path.name for path in committed(tmp_path)] == ["step-00000002"]  # 1 was not due


def test_a_log_is_on_the_disk_before_the_checkpoint_counts(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("{}\n")
    events: list[str] = []
    plain_sync, plain_rename = os.fsync, Path.rename

    def sync(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        plain_sync(descriptor)

    def rename(path: Path, target: Path) -> Path:
        events.append(f"-> {target.name}")
        return plain_rename(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", rename)
    with closing(make_writer(tmp_path / "checkpoints", inputs, logs=(log,))) as beside:
        beside.commit(State(step=1), *Training().tensors())
    counts = events.index("-> step-00000001")
    large = {"model.safetensors", "optimizer.safetensors", "vocab.bpe", "metrics.jsonl"}
    assert large < set(events[:counts])
    assert events[counts - 1] == ".step-00000001"  # the folder's own entries, last
    assert events[counts + 1] == "checkpoints"


def failing(*parts: Any) -> Path:
    raise ResourceError("cannot write it: no space left")


def test_an_error_comes_home_at_the_next_step_boundary(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a wait: a file too large is no full disk."""
    train_small(tmp_path / "whole", inputs, replace(SHORT, steps=12))
    plain, out = checkpoint._write, tmp_path / "run"

    def fails_once(final: Path, *parts: Any) -> Path:
        return failing() if final.name == "step-00000006" else plain(final, *parts)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SPACE_WAITS_SECONDS", ())
        patch.setattr(checkpoint, "_write", fails_once)
        with pytest.raises(ResourceError, match="no space left") as error:
            train_small(out, inputs, replace(SHORT, steps=12))
    assert error.value.exit_code == 5
    assert newest_step(out) in (3, 4)  # 4: validation found the best so far
    assert not list((out / "checkpoints").glob(".*"))
    assert not (out / ".lock").exists()
    train_small(out, inputs, replace(SHORT, steps=12))
    assert content(out) == content(tmp_path / "whole")


def newest_step(out: Path) -> int:
    found = checkpoint.newest(out / "checkpoints")
    return int(found.name.removeprefix("step-")) if found else 0


def test_a_stop_waits_for_the_one_under_way_and_commits_its_own_step(
    tmp_path: Path, inputs: Inputs, gate: Gate
) -> None:
    """Looks are two a step: it is asked to stop in the fifth, while the third is being written."""
    config = replace(SHORT, validation_interval=0)
    threading.Timer(0.3, gate.opened.set).start()
    with pytest.raises(Interrupted):
        train_small(tmp_path / "run", inputs, config, reporter=StopsAfter(12))
    found = [path.name for path in committed(tmp_path / "run" / "checkpoints")]
    assert found[0] == "step-00000003" and len(found) == 2
    train_small(tmp_path / "run", inputs, config)
    train_small(tmp_path / "whole", inputs, config)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_newer_commit_makes_up_for_one_that_failed(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training()
    monkeypatch.setattr(checkpoint, "SPACE_WAITS_SECONDS", ())
    with closing(make_writer(tmp_path, inputs)) as beside:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_write", failing)
            beside.save(State(step=1), *training.tensors())
            thread = beside._thread
            assert thread is not None
            thread.join()
        assert beside.commit(State(step=2), *training.tensors()).exists()
        beside.check()
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_write", failing)
            beside.save(State(step=3), *training.tensors())
            with pytest.raises(ResourceError):
                beside.wait()
            beside.wait()  # told once
            with pytest.raises(ResourceError):
                beside.commit(State(step=4), *training.tensors())
            beside.save(State(step=5), *training.tensors())
            beside.close()  # says nothing: whoever leaves has an error of their own
    assert [path.name for path in committed(tmp_path)] == ["step-00000002"]


def test_without_memory_for_a_copy_training_waits(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_small(tmp_path / "beside", inputs)
    monkeypatch.setattr(writer, "bytes_available", lambda device: 100_000)  # one copy takes 110,000
    training = Training()
    with closing(make_writer(tmp_path / "checkpoints", inputs)) as waits:
        waits.save(State(step=1), *training.tensors())
        assert waits._thread is None and waits._buffer is None
        assert len(committed(tmp_path / "checkpoints")) == 1
    train_small(tmp_path / "waiting", inputs)
    assert content(tmp_path / "waiting") == content(tmp_path / "beside")


def test_the_copy_s_memory_is_taken_once(tmp_path: Path, inputs: Inputs) -> None:
    training = Training()
    with closing(make_writer(tmp_path, inputs)) as beside:
        places = set()
        for step in (3, 6, 9):
            training.step()
            beside.save(State(step=step), *training.tensors())
            assert beside._buffer is not None
            places.add((beside._buffer.data_ptr(), len(beside._buffer)))
            beside.wait()
    held = sum(t.nbytes for tensors in training.tensors() for t in tensors.values())
    assert len(places) == 1 and held <= places.pop()[1] < held + 1000
