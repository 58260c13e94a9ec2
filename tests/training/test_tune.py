"""The search for the learning rate: which wins, what it costs, that a killed one goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import SHORT, TINY, Inputs

from gptwo.errors import DivergedError, Interrupted, UsageError
from gptwo.training.budgets import tune as room
from gptwo.training.budgets.tune import (
    FACTORS,
    SHARE_OF_RUN,
    TUNE,
    refuse_named_rate,
    trial_config,
    tune,
)
from gptwo.training.config import TrainingConfig
from gptwo.world import World

LONG = replace(SHORT, steps=1_000, warmup_steps=100, lr=4e-3, validation_tokens=512)


def search(out: Path, inputs: Inputs, config: TrainingConfig = LONG, **more: Any) -> TrainingConfig:
    return tune(config, TINY, out=out, **{"world": World(), **inputs._asdict(), **more})


def trials(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / TUNE).read_text())["trials"]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Trials take no time and end with the loss that a function of the rate tells."""

    def pretend(loss_of: Callable[[float], float | None]) -> list[float]:
        tried: list[float] = []

        def train(config: TrainingConfig, *, out: Path, **_: Any) -> Path:
            tried.append(config.lr)
            loss = loss_of(config.lr)
            if loss is None:
                raise DivergedError("too fast")
            out.mkdir(parents=True)
            lines = [{"step": step, "valid_loss": value} for step, value in ((0, 9.0), (20, loss))]
            (out / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
            return out

        monkeypatch.setattr(room, "train", train)
        return tried

    return pretend


def test_real_trials_on_a_small_corpus(inputs: Inputs, tmp_path: Path) -> None:
    """The chosen rate is that of the best long trial, and a second search finds all done."""
    chosen = search(tmp_path / "run", inputs)
    result = json.loads((tmp_path / "run" / TUNE).read_text())
    second = [trial for trial in result["trials"] if trial["round"] == 2]
    assert chosen.lr == min(second, key=lambda trial: trial["valid_loss"])["lr"]
    assert {trial["steps"] for trial in result["trials"]} == {20, 60}
    assert result["chosen"] == {"lr": chosen.lr, "muon_lr": chosen.muon_lr}
    assert chosen == replace(LONG, lr=chosen.lr, muon_lr=chosen.muon_lr)
    losses = [trial["valid_loss"] for trial in result["trials"]]
    assert len(set(losses)) == len(losses) and max(losses) < 6.0
    assert not list((tmp_path / "run").rglob("model.safetensors"))  # only curves stay
    assert len(list((tmp_path / "run").rglob("metrics.jsonl"))) == len(losses)

    before = (tmp_path / "run" / TUNE).read_bytes()
    assert search(tmp_path / "run", inputs) == chosen
    assert (tmp_path / "run" / TUNE).read_bytes() == before


def test_a_search_that_was_stopped_ends_with_the_same_file(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(LONG, batch_tokens=16)
    search(tmp_path / "a", inputs, config)
    real, count = room.train, 0

    def stopping(*args: Any, **more: Any) -> Path:
        nonlocal count
        count += 1
        if count in (2, 5, 9):
            raise Interrupted("stop")
        return real(*args, **more)

    monkeypatch.setattr(room, "train", stopping)
    for _ in range(3):
        with pytest.raises(Interrupted):
            search(tmp_path / "b", inputs, config)
    search(tmp_path / "b", inputs, config)
    assert (tmp_path / "b" / TUNE).read_bytes() == (tmp_path / "a" / TUNE).read_bytes()


def test_the_best_inside_costs_what_is_promised(
    inputs: Inputs, tmp_path: Path, pretended: Callable[..., list[float]]
) -> None:
    tried = pretended(lambda lr: 3 + abs(lr - 8e-3))
    assert search(tmp_path, inputs).lr == 8e-3
    assert tried == [4e-3 * factor for factor in FACTORS] + [8e-3, 4e-3]
    share = json.loads((tmp_path / TUNE).read_text())["share_of_run"]
    assert share == pytest.approx(SHARE_OF_RUN) and share < 0.25


@pytest.mark.parametrize("best", [3e-4, 0.06])
def test_it_looks_beyond_an_edge(
    inputs: Inputs, tmp_path: Path, pretended: Callable[..., list[float]], best: float
) -> None:
    tried = pretended(lambda lr: 3 + abs(lr / best - 1))
    assert 0.5 < search(tmp_path, inputs).lr / best < 2
    assert len(tried) <= len(FACTORS) + 3 + 2


def test_rates_that_diverge_lose(
    inputs: Inputs, tmp_path: Path, pretended: Callable[..., list[float]]
) -> None:
    pretended(lambda lr: None if lr > 3e-3 else 5 - lr)
    assert search(tmp_path / "a", inputs).lr == 2e-3
    assert [trial["valid_loss"] for trial in trials(tmp_path / "a")].count(None) == 3

    pretended(lambda lr: None)
    with pytest.raises(DivergedError, match="trials diverged"):
        search(tmp_path / "b", inputs)


def test_a_trial_is_the_run_in_small() -> None:
    trial = trial_config(LONG, TINY.n_ctx, 2, 0.5)
    assert (trial.steps, trial.warmup_steps, trial.lr) == (60, 6, 2e-3)
    assert trial.muon_lr == LONG.muon_lr / 2
    assert trial.validation_interval == trial.steps
    assert trial.batch_tokens == LONG.batch_tokens and trial.seed == LONG.seed
    more = replace(LONG, validation_tokens=10**6)
    assert trial_config(more, TINY.n_ctx, 1, 1.0).validation_tokens == 320


def test_what_cannot_be_tuned_is_refused(
    inputs: Inputs, tmp_path: Path, pretended: Callable[..., list[float]]
) -> None:
    tried = pretended(lambda lr: 3.0)
    with pytest.raises(UsageError, match=r"training\.lr is chosen by --tune"):
        refuse_named_rate(("training.seed=1", "training.lr=3e-4"))
    refuse_named_rate(("training.seed=1",))
    with pytest.raises(UsageError, match="a trial would have 19"):
        search(tmp_path, inputs, replace(LONG, steps=999))
    with pytest.raises(UsageError, match="by one process"):
        search(tmp_path, inputs, world=World(size=2))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        search(tmp_path / "other", inputs)
    assert not tried


def test_a_search_of_other_settings_is_refused(
    inputs: Inputs, tmp_path: Path, pretended: Callable[..., list[float]]
) -> None:
    pretended(lambda lr: 3 + lr)
    search(tmp_path, inputs)
    changed = replace(LONG, steps=2_000)
    with pytest.raises(UsageError, match=r"training\.steps: 1000 -> 2000"):
        search(tmp_path, inputs, changed)
    search(tmp_path, inputs, changed, accept_changes=("training.steps",))
