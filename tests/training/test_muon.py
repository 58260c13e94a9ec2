"""Muon against an exact decomposition, and its part in the optimiser."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.muon import MOMENTUM, Muon, maps, orthogonal, quickest_type
from gptwo.training.optimizers.optim import (
    TABLES_AT_128,
    Optimizer,
    make_optimizer,
    restore,
    set_rate,
    state_tensors,
)

SHAPE = GPT2Config(vocab_size=40, n_ctx=8, n_layer=2, n_head=2, n_embd=16)
CONFIG = TrainingConfig(optimizer="muon", lr=4e-3, muon_lr=0.02, weight_decay=0.1)


def singular_values(matrices: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrices.double())


@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 24),
    columns=st.integers(1, 24),
    size=st.sampled_from([1e-9, 1.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_matrix_becomes_about_orthogonal(rows: int, columns: int, size: float, seed: int) -> None:
    """Its directions stay, and each that is not tiny gets a singular value near 1."""
    torch.manual_seed(seed)
    matrix = torch.randn(rows, columns) * size
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    found = left.mT @ orthogonal(matrix[None])[0].double() @ right.mT
    turned = found.diagonal()
    assert torch.allclose(found, torch.diag(turned), atol=1e-3)
    assert turned.max() <= 1.9 and turned.min() >= -1e-3
    clear = values > 0.002 * matrix.double().norm()
    assert (turned[clear] > 0.18).all()


@pytest.mark.parametrize("shape", [(96, 96), (64, 256), (256, 64)])
def test_in_bfloat16_the_directions_are_about_the_same(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    stack = torch.randn(2, *shape) @ torch.diag(torch.logspace(0, -2, shape[1]))
    plain, quick = orthogonal(stack), orthogonal(stack, torch.bfloat16)
    assert quick.dtype == torch.float32 and not torch.equal(quick, plain)
    assert torch.cosine_similarity(quick.flatten(1), plain.flatten(1)).min() > 0.999
    assert singular_values(quick).max() < 1.95


def test_small_matrices_are_made_orthogonal_in_their_own_type() -> None:
    assert quickest_type(torch.zeros(2, 63, 4096)) == torch.float32
    assert quickest_type(torch.zeros(2, 4096, 16, device="meta")) == torch.float32


def test_matrices_of_one_stack_do_not_meet() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 8, 24)
    together = orthogonal(stack)
    for matrix, found in zip(stack, together, strict=True):
        assert torch.allclose(orthogonal(matrix[None])[0], found, atol=1e-5)


def test_a_gradient_of_zeros_moves_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 4, 8)), torch.zeros(2, 4, 8))


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (8, 32), (32, 8)])
def test_a_step_is_decay_momentum_and_direction(shape: tuple[int, int]) -> None:
    """Against the rule written out, with each of queries, keys and values on its own."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape))
    muon = Muon([weight], lr=0.1, weight_decay=0.5)
    expected, mean = weight.detach().clone(), torch.zeros(shape)
    for _ in range(3):
        weight.grad = torch.randn(shape)
        mean = MOMENTUM * mean + (1 - MOMENTUM) * weight.grad
        update = (1 - MOMENTUM) * weight.grad + MOMENTUM * mean
        n = shape[0]
        pieces = update.split(n, dim=1) if shape == (8, 24) else (update,)
        factor = math.sqrt(max(1, pieces[0].shape[1] / n))
        moved = torch.cat([orthogonal(piece[None])[0] for piece in pieces], dim=1)
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * factor * moved
        muon.step()
        assert torch.allclose(weight, expected, atol=1e-5)


@pytest.mark.parametrize("n_in, n_out, most", [(1, 1, 1.0), (1, 4, 1.0), (4, 1, 2.0)])
def test_the_rate_moves_outputs_alike_at_every_width(n_in: int, n_out: int, most: float) -> None:
    """A step's largest effect on a map's output, in root mean squares, does not know the width."""
    for width in (16, 64, 256):
        torch.manual_seed(width)
        weight = torch.nn.Parameter(torch.zeros(n_in * width, n_out * width))
        weight.grad = torch.randn(weight.shape)
        Muon([weight], lr=1.0, weight_decay=0.0).step()
        gain = float(singular_values(weight.detach()).max()) * math.sqrt(n_in / n_out)
        assert 1.5 * most < gain < 1.9 * most


def test_queries_keys_and_values_are_maps_of_their_own() -> None:
    assert [part.shape for part in maps(torch.zeros(8, 24))] == [(8, 8)] * 3
    assert [part.shape for part in maps(torch.zeros(8, 32))] == [(8, 32)]


def test_muon_has_the_maps_of_the_blocks_and_adamw_the_rest() -> None:
    model = GPT2(SHAPE)
    names = {weight: name for name, weight in model.named_parameters()}
    muon, adamw = make_optimizer(model, CONFIG).parts
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    turned = sorted(names[weight] for group in muon.param_groups for weight in group["params"])
    assert turned == sorted(f"h.{layer}.{kind}.weight" for layer in range(2) for kind in kinds)
    decayed, left = ({names[weight] for weight in group["params"]} for group in adamw.param_groups)
    assert decayed == {"wte.weight", "wpe.weight"}
    assert {*turned, *decayed, *left} == set(names.values())


def test_every_part_gets_its_share_of_the_rate() -> None:
    optimizer = make_optimizer(GPT2(SHAPE), CONFIG)
    set_rate(optimizer, CONFIG.lr / 4)
    muon, adamw = optimizer.parts
    assert math.isclose(muon.param_groups[0]["lr"], CONFIG.muon_lr / 4)
    tables, vectors = (group["lr"] for group in adamw.param_groups)
    assert math.isclose(tables, CONFIG.lr / 4 * TABLES_AT_128 * 128 / 16)  # by width
    assert math.isclose(vectors, CONFIG.lr / 4)


def learn(model: GPT2, optimizer: Optimizer, steps: range) -> float:
    loss = torch.zeros(())
    for step in steps:
        torch.manual_seed(step)
        ids = torch.randint(40, (4, 9))
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        set_rate(optimizer, 1e-3)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def test_what_it_remembers_survives_a_round_trip_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = GPT2(SHAPE)
    optimizer = make_optimizer(model, CONFIG)
    learn(model, optimizer, range(5))
    saved = {name: tensor.clone() for name, tensor in state_tensors(model, optimizer).items()}
    assert "h.0.attn.c_attn.weight.momentum" in saved and "wte.weight.exp_avg_sq" in saved
    assert len(saved) == 8 + 2 * (len(list(model.parameters())) - 8)

    other = GPT2(SHAPE)
    other.load_state_dict(model.state_dict())
    resumed = make_optimizer(other, CONFIG)
    restore(other, resumed, saved, 5)
    assert learn(model, optimizer, range(5, 10)) == learn(other, resumed, range(5, 10))
    for weight, twin in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(weight, twin)
    missing = {name: saved[name] for name in saved if not name.endswith("momentum")}
    with pytest.raises(KeyError, match="momentum"):
        restore(other, resumed, missing, 5)
