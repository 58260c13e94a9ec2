"""Bad steps: seen, named, skipped, rolled back, and the same after any stop."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_run import SHORT, Inputs, content, train_small
from stops import Listens, StopsAfter

from gptwo.artifacts import read_json
from gptwo.errors import DivergedError, Interrupted
from gptwo.tokens.shards import open_shards
from gptwo.training import loop
from gptwo.training.config import TrainingConfig
from gptwo.training.guards import guard as guards
from gptwo.training.guards.guard import WINDOW, Guard, judge
from gptwo.training.processes import parallel
from gptwo.training.run import Run

LONG = replace(SHORT, steps=16, checkpoint_interval=3, validation_interval=5)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def spoil(patch: pytest.MonkeyPatch, at: dict[int, float]) -> None:
    """Make the gradient of some steps (counted from 0) so many times what it is, and the loss."""
    plain = parallel.gather_gradients

    def gather(run: Run, step: int) -> float:
        loss = plain(run, step)
        for weight in run.model.parameters():
            if step in at and weight.grad is not None:
                weight.grad *= at[step]
        return loss * at.get(step, 1.0)

    patch.setattr(parallel, "gather_gradients", gather)


@pytest.mark.parametrize("factor, found", [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_bad_batch_is_skipped_and_named(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, factor: float, found: str
) -> None:
    """The weights stay bit for bit, the next batch is read, and the optimiser counts its own."""
    spoil(monkeypatch, {4: factor})
    heard = Listens()
    train_small(tmp_path, inputs, LONG, reporter=heard)
    bad = [row for row in rows(tmp_path) if "skipped" in row]
    assert [row["step"] for row in bad] == [5]
    assert f"loss {found}" in bad[0]["skipped"]["why"]
    reads = loop.batches(open_shards(inputs.tokens, "train"), **batch_settings())
    assert bad[0]["skipped"]["windows"] == reads.windows(4).tolist()
    assert any("step 5" in line and "not applied" in line for line in heard.heard)
    losses = [row["loss"] for row in rows(tmp_path) if "loss" in row]
    assert len(losses) == 15 and all(math.isfinite(loss) for loss in losses)
    state = read_json(tmp_path / "checkpoints" / "step-00000016" / "state.json")
    assert state["guard"]["skipped"] == 1 and state["guard"]["bad_in_a_row"] == 0


def batch_settings() -> dict[str, int]:
    return {"n_ctx": 16, "batch_tokens": LONG.batch_tokens, "seed": LONG.seed}


def test_a_skipped_step_leaves_the_weights_alone(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step after is that of the weights before, on the batch that is its own."""
    seen: dict[int, list[torch.Tensor]] = {}
    spoil(monkeypatch, {4: float("nan")})
    poisoned = parallel.gather_gradients

    def gather(run: Run, step: int) -> float:
        seen[step] = [weight.detach().clone() for weight in run.model.parameters()]
        return poisoned(run, step)

    monkeypatch.setattr(parallel, "gather_gradients", gather)
    train_small(tmp_path, inputs, LONG)
    same = [all(map(torch.equal, seen[step], seen[step + 1])) for step in range(15)]
    assert same == [step == 4 for step in range(15)]


def test_many_bad_batches_in_a_row_roll_the_weights_back(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 8 to 11 are bad: back to step 6 (7 was good, but is no checkpoint), on at step 12."""
    seen: dict[int, torch.Tensor] = {}
    spoil(monkeypatch, dict.fromkeys(range(7, 11), float("nan")))
    poisoned = parallel.gather_gradients

    def gather(run: Run, step: int) -> float:
        seen[step] = run.model.wte.weight.detach().clone()
        return poisoned(run, step)

    monkeypatch.setattr(parallel, "gather_gradients", gather)
    heard = Listens()
    train_small(tmp_path, inputs, LONG, reporter=heard)
    assert [row["step"] for row in rows(tmp_path) if "skipped" in row] == [8, 9, 10, 11]
    assert [row for row in rows(tmp_path) if "rolled_back_to" in row] == [
        {"step": 11, "tokens": 11 * 64, "rolled_back_to": 6}
    ]
    assert torch.equal(seen[11], seen[6]) and not torch.equal(seen[11], seen[7])
    assert any("back to the weights of step 6" in line for line in heard.heard)
    state = read_json(tmp_path / "checkpoints" / "step-00000016" / "state.json")
    assert state["step"] == 16 and state["guard"]["skipped"] == 5
    assert state["guard"]["rolled_back_to"] == 6


def test_no_checkpoint_is_made_of_weights_in_doubt(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 9 is due, but two bad ones came just before it."""
    spoil(monkeypatch, {7: float("nan"), 8: float("nan")})
    config = replace(LONG, keep_checkpoints=9, validation_interval=0)
    train_small(tmp_path, inputs, config)
    folders = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert folders == [f"step-{step:08d}" for step in (3, 6, 12, 15, 16)]


@pytest.mark.parametrize(
    "bad, said",
    [
        (range(20), "step 4: loss nan.*4 steps in a row.*no checkpoint of good weights"),
        (
            range(7, 20),
            "step 15: loss nan.*as before, after going back to the checkpoint of step 6",
        ),
    ],
)
def test_it_ends_with_exit_6_when_nothing_helps(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch, bad: range, said: str
) -> None:
    whole = tmp_path / "whole"
    train_small(whole, inputs, LONG)
    spoil(monkeypatch, dict.fromkeys(bad, float("nan")))
    with pytest.raises(DivergedError, match=said) as error:
        train_small(tmp_path / "run", inputs, LONG)
    assert error.value.exit_code == 6 and "--accept-change training.lr" in error.value.remedy
    assert rows(tmp_path / "run")[-1]["skipped"]["windows"]

    monkeypatch.undo()  # what it was is gone: the run goes on as if nothing had happened
    monkeypatch.setattr(loop, "matrix_rate", lambda device, precision: 1e11)
    train_small(tmp_path / "run", inputs, LONG)
    assert content(tmp_path / "run") == content(whole)


@pytest.mark.parametrize("looks", [1, 5])
@pytest.mark.parametrize("skip_spikes", [False, True])
def test_stopped_anywhere_it_skips_and_rolls_back_the_same(
    tmp_path: Path,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    skip_spikes: bool,
    looks: int,
) -> None:
    """A spike, a bad step alone, then a roll-back; stopped every few looks."""
    monkeypatch.setattr(guards, "WINDOW", 4)
    bad = {5: 50.0, 6: float("nan"), 10: float("inf"), 11: float("nan"), 12: float("nan")}
    spoil(monkeypatch, bad)
    config = replace(LONG, steps=20, skip_limit=2, skip_spikes=skip_spikes)
    train_small(tmp_path / "whole", inputs, config)
    kinds = {key for row in rows(tmp_path / "whole") for key in row}
    assert {"skipped", "rolled_back_to"} < kinds and ("spike" in kinds) != skip_spikes
    stops = 0
    for turn in range(200):
        try:
            train_small(
                tmp_path / "parts", inputs, config, reporter=StopsAfter(3 + looks + turn % 3)
            )
            break
        except Interrupted:
            stops += 1
    assert stops >= 5
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_a_spike_is_told_and_skipped_when_asked(
    tmp_path: Path, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "WINDOW", 4)
    spoil(monkeypatch, {9: 50.0})
    heard = Listens()
    train_small(tmp_path / "told", inputs, LONG, reporter=heard)
    found = next(row for row in rows(tmp_path / "told") if "spike" in row)
    assert found["step"] == 10 and found["loss"] > 100
    assert "deviations above" in found["spike"]["why"] and len(found["spike"]["windows"]) == 4
    assert any("step 10: loss" in line and "; applied;" in line for line in heard.heard)
    train_small(tmp_path / "skipped", inputs, replace(LONG, skip_spikes=True))
    found = next(row for row in rows(tmp_path / "skipped") if "skipped" in row)
    assert found["step"] == 10 and "loss" not in found


def test_a_spike_stands_out_from_noise_and_not_from_a_falling_loss() -> None:
    config, guard = TrainingConfig(), Guard()
    noise = torch.Generator().manual_seed(0)
    for step in range(2_000):
        wobble = torch.randn(2, generator=noise).tolist()
        loss = 3 + 7 * math.exp(-step / 100) + 0.05 * wobble[0]
        verdict = judge(loss, math.exp(0.2 * wobble[1]), guard, config)
        assert verdict.apply and not verdict.why, (step, verdict.why)
        guard = verdict.guard
    assert "loss 4" in judge(4.0, 1.0, guard, config).why
    assert "gradient norm 9" in judge(3.0, 9.0, guard, config).why
    both = judge(4.0, 9.0, guard, config)
    assert both.apply and both.why.count("deviations above") == 2
    assert both.guard.loss.mean < guard.loss.mean + 6 * 0.06 / WINDOW * 1.5  # it moves little
    assert not judge(4.0, 1.0, guard, replace(config, skip_spikes=True)).apply


@given(
    st.lists(st.floats(width=64) | st.floats(0, 20), max_size=300),
    st.floats(0.1, 100),
    st.booleans(),
)
def test_whatever_comes_the_guard_stays_sound(
    values: list[float], zscore: float, skip_spikes: bool
) -> None:
    """Nothing that is not finite is applied; what is remembered survives JSON and stays finite."""
    config = TrainingConfig(spike_zscore=zscore, skip_spikes=skip_spikes)
    guard, applied = Guard(), 0
    for value in values:
        value = math.copysign(min(abs(value), 1e100), value) if math.isfinite(value) else value
        verdict = judge(value, abs(value), guard, config)
        assert verdict.apply or verdict.why
        assert math.isfinite(value) or not verdict.apply
        guard, applied = verdict.guard, applied + verdict.apply
        for level in (guard.loss, guard.grad_norm):
            assert math.isfinite(level.mean) and 0 <= level.variance < math.inf
    assert applied + guard.skipped == len(values)
