"""Memory: estimated before it is taken; half as many rows when it is not enough."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import SHORT, TINY, Inputs, content, train_small
from stops import Listens

from gptwo.errors import ResourceError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES
from gptwo.training import forward
from gptwo.training.config import TrainingConfig
from gptwo.training.guards import memory
from gptwo.training.guards.free import bytes_available
from gptwo.training.guards.memory import bytes_needed, check_memory, is_out_of_memory
from gptwo.training.processes import parallel
from gptwo.training.run import Run
from gptwo.world import World

HERE = Path(__file__).parent
SAID = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4 bytes. Error code 12 (Cannot allocate memory)"
)


def too_small_for(patch: pytest.MonkeyPatch, rows: int) -> list[int]:
    """Let the memory run out when more than `rows` rows at once go back through the model.

    Returns a list that fills with the numbers of rows that were tried.
    """
    plain, tried = forward.loss, []

    def loss(model: GPT2, x: torch.Tensor, y: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
        if torch.is_grad_enabled():
            tried.append(len(x))
            if len(x) > rows:
                raise RuntimeError(SAID)
        return plain(model, x, y, config)

    patch.setattr(forward, "loss", loss)
    return tried


def steps(run: dict[str, bytes]) -> list[bytes]:
    """The metrics, less the held-out loss that was measured while all was well."""
    return run["metrics.jsonl"].splitlines()[1:]


@pytest.mark.parametrize("rows, halvings", [(2, 1), (1, 2)])
def test_half_as_many_rows_make_the_same_batch(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, rows: int, halvings: int
) -> None:
    """Four rows a batch, once all at once and once as many as fit: the same but for rounding.

    And the same bits as a run that was told to take so many.
    """
    train_small(tmp_path / "all", inputs, replace(SHORT, micro_batch=4))
    train_small(tmp_path / "told", inputs, replace(SHORT, micro_batch=rows))
    heard = Listens()
    with monkeypatch.context() as patch:
        tried = too_small_for(patch, rows)
        train_small(tmp_path / "run", inputs, replace(SHORT, micro_batch=4), reporter=heard)
    assert sum(len_ > rows for len_ in tried) == halvings  # from then on it is remembered
    said = [line for line in heard.heard if "out of memory with" in line]
    assert len(said) == halvings and f"from here on {rows}" in said[-1]
    run, told, whole = (content(tmp_path / name) for name in ("run", "told", "all"))
    weights = "checkpoints/step-00000010/model.safetensors"
    assert steps(run) == steps(told) and run[weights] == told[weights]
    assert run["training.json"] == whole["training.json"]  # what was asked for is what is kept


def test_memory_that_runs_out_in_the_middle_of_a_step_leaves_no_trace(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first micro-batch of two has left its gradient when the second does not fit."""
    train_small(tmp_path / "told", inputs, replace(SHORT, micro_batch=1))
    with monkeypatch.context() as patch:
        tried: list[int] = []
        plain = forward.loss

        def loss(
            model: GPT2, x: torch.Tensor, y: torch.Tensor, config: TrainingConfig
        ) -> torch.Tensor:
            if torch.is_grad_enabled():
                tried.append(len(x))
                if len(tried) == 2:
                    raise MemoryError
            return plain(model, x, y, config)

        patch.setattr(forward, "loss", loss)
        train_small(tmp_path / "run", inputs)
    assert tried[:3] == [2, 2, 1]
    assert steps(content(tmp_path / "run")) == steps(content(tmp_path / "told"))


def test_one_row_too_many_is_exit_5_with_an_estimate(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        too_small_for(patch, 0)
        with pytest.raises(ResourceError, match=r"one row at a time; training 11,\d+ .* 0\.\d GB"):
            train_small(tmp_path / "run", inputs)
    train_small(tmp_path / "whole", inputs)  # nothing is spoilt: it goes on where there is room
    train_small(tmp_path / "run", inputs)
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_held_out_loss_that_does_not_fit(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = forward.loss

    def loss(model: GPT2, x: torch.Tensor, y: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
        if not torch.is_grad_enabled() and len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return plain(model, x, y, config)

    monkeypatch.setattr(forward, "loss", loss)
    heard = Listens()
    train_small(tmp_path, inputs, reporter=heard)
    assert sum("out of memory" in line for line in heard.heard) == 1


def test_other_errors_are_none_of_memory(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gather(run: Run, step: int) -> float:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(parallel, "gather_gradients", gather)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train_small(tmp_path, inputs)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError("std::bad_alloc"))
    assert is_out_of_memory(torch.OutOfMemoryError("")) and is_out_of_memory(RuntimeError(SAID))


def test_what_cannot_fit_is_refused_before_it_is_allocated(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = replace(TINY, n_embd=1 << 20, n_layer=100)  # 5e15 bytes: to allocate it would fail
    config = replace(SHORT, batch_tokens=64, micro_batch=4)
    with pytest.raises(ResourceError, match=r"about [\d,]+\.\d GB: .* GB are free on cpu") as error:
        train_small(tmp_path / "run", inputs, config, shape)
    assert error.value.exit_code == 5 and "smaller --size" in error.value.remedy
    assert not (tmp_path / "run").exists()
    many = replace(config, micro_batch=64, batch_tokens=1 << 20)
    there_is = sum(bytes_needed(SIZES["small"], 8, many))
    monkeypatch.setattr(memory, "bytes_available", lambda device: there_is)
    with pytest.raises(ResourceError) as error:
        check_memory(many, SIZES["small"], World())
    assert "set training.micro_batch=8" in error.value.remedy
    check_memory(replace(many, batch_tokens=8192), SIZES["small"], World())
    with pytest.raises(ResourceError, match="for each process"):  # two share what there is
        check_memory(replace(many, micro_batch=8), SIZES["small"], World(size=2, neighbours=2))


def test_what_the_estimate_knows() -> None:
    """Shards hold less, kernels more logits, several micro-batches a gradient more."""
    small, config = SIZES["small"], TrainingConfig(batch_tokens=1024, micro_batch=1)
    state, beside = bytes_needed(small, 1, config)
    second = World(rank=1, size=8)
    spread = bytes_needed(small, 1, replace(config, sharding="fsdp"), second)
    assert spread[0] < state / 2
    assert bytes_needed(small, 1, replace(config, optimizer="adamw"))[0] == 16 * small.parameters()
    several = bytes_needed(small, 1, replace(config, batch_tokens=1 << 20))
    assert several[0] == state and several[1] - beside > 4 * small.parameters()
    more = bytes_needed(small, 1, replace(config, batch_tokens=1 << 30))
    assert more == several  # the batch itself takes nothing


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "900000", "memory.current": "500000", "memory.stat": "inactive_file 7\n"},
        {
            "memory/memory.limit_in_bytes": "900000",
            "memory/memory.usage_in_bytes": "500000",
            "memory/memory.stat": "cache 9\ntotal_inactive_file 7\n",
        },
    ],
)
def test_the_limit_of_a_container_counts(tmp_path: Path, files: dict[str, str]) -> None:
    everything = bytes_available("cpu", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert bytes_available("cpu", tmp_path) == 400_007 < everything
    (tmp_path / next(iter(files))).write_text("max")  # no limit
    assert bytes_available("cpu", tmp_path) > 400_007


@pytest.mark.slow
def test_under_a_real_limit_it_trains_with_fewer_rows(tmp_path: Path, inputs: Inputs) -> None:
    """A process whose address space is too small for 256 rows at once: the allocator says no."""
    ran = subprocess.run(
        [sys.executable, HERE / "little_memory.py", tmp_path, *inputs],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    halved = ran.stderr.count("out of memory with")
    assert 1 <= halved <= 7 and "rows at a time; from here on" in ran.stderr
    assert (tmp_path / "checkpoints" / "step-00000001" / "manifest.json").exists()
