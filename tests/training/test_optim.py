import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gptwo.training.config import SCHEDULES, TrainingConfig
from gptwo.training.optimizers.optim import (
    Optimizer,
    clip_gradients,
    make_optimizer,
    restore,
    set_rate,
    state_tensors,
)
from gptwo.training.optimizers.schedule import learning_rate

CONFIG = TrainingConfig(
    steps=101,
    warmup_steps=10,
    optimizer="adamw",
    schedule="cosine",
    lr=1.0,
    lr_final_ratio=0.1,
)


def test_the_rate_warms_up_in_a_line_and_falls_along_a_cosine() -> None:
    assert [learning_rate(step, CONFIG) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert learning_rate(10, CONFIG) == 1.0
    assert math.isclose(learning_rate(55, CONFIG), 0.55)
    assert math.isclose(learning_rate(100, CONFIG), 0.1)
    falling = [learning_rate(step, CONFIG) for step in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


def test_the_rate_may_stay_and_then_fall_in_a_line() -> None:
    config = replace(CONFIG, steps=110, schedule="wsd", decay_ratio=0.2, lr_final_ratio=0.0)
    assert [learning_rate(step, config) for step in (0, 9, 50, 90)] == [0.1, 1.0, 1.0, 1.0]
    falling = [learning_rate(step, config) for step in range(90, 110)]
    assert falling == pytest.approx([(20 - step) / 20 for step in range(20)])
    whole = replace(config, decay_ratio=1.0)
    assert learning_rate(60, whole) == pytest.approx(0.5)
    kept = replace(config, lr_final_ratio=0.5)
    assert learning_rate(109, kept) == pytest.approx(0.5 + 0.5 / 20)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps, warmup", [(1, 0), (1, 1), (5, 5), (3, 100), (50, 7)])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_no_step_of_a_run_is_without_a_rate(
    steps: int, warmup: int, schedule: str, final: float
) -> None:
    config = TrainingConfig(
        steps=steps, warmup_steps=warmup, schedule=schedule, lr=1.0, lr_final_ratio=final
    )
    rates = [learning_rate(step, config) for step in range(steps)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert schedule == "cosine" or min(rates) > 0


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    optimizer = make_optimizer(model, CONFIG)
    before = [weight.detach().clone() for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = torch.zeros_like(weight)
    set_rate(optimizer, 0.5)
    optimizer.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.allclose(new, old * (1 - 0.5 * 0.1) if old.dim() >= 2 else old)


def test_fused_and_plain_adamw_agree() -> None:
    torch.manual_seed(0)
    start = nn.Linear(40, 30)
    ends = []
    for fused in (True, False):
        model = nn.Linear(40, 30)
        model.load_state_dict(start.state_dict())
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
        for step in range(20):
            torch.manual_seed(step)
            model(torch.randn(8, 40)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(model.weight.detach())
    assert torch.allclose(*ends, atol=1e-6)


def test_moments_survive_a_round_trip() -> None:
    def learn(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = make_optimizer(model, CONFIG)
    learn(model, optimizer, range(5))
    saved = {name: tensor.clone() for name, tensor in state_tensors(model, optimizer).items()}
    assert sorted(saved) == [
        f"{n}.{m}" for n in ("bias", "weight") for m in ("exp_avg", "exp_avg_sq")
    ]

    other = nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    resumed = make_optimizer(other, CONFIG)
    restore(other, resumed, saved, 5)
    learn(model, optimizer, range(5, 10))
    learn(other, resumed, range(5, 10))
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


@pytest.mark.parametrize("most, factor", [(100.0, 1.0), (1.0, 0.2)])
def test_gradients_are_scaled_only_when_they_are_too_long(most: float, factor: float) -> None:
    model = nn.Linear(3, 1)
    model.weight.grad = torch.tensor([[3.0, 0.0, 0.0]])
    model.bias.grad = torch.tensor([4.0])
    assert clip_gradients(model, most) == 5.0
    assert torch.allclose(model.weight.grad, torch.tensor([[3.0 * factor, 0.0, 0.0]]), atol=1e-5)
    assert torch.allclose(model.bias.grad, torch.tensor([4.0 * factor]), atol=1e-5)


def test_a_norm_that_is_no_number_is_told() -> None:
    model = nn.Linear(2, 1)
    for weight in model.parameters():
        weight.grad = torch.full_like(weight, float("nan"))
    assert math.isnan(clip_gradients(model, 1.0))
