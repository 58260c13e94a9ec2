"""The architecture: what section 2.3 of the paper says, checked one sentence at a time."""

import math
from dataclasses import replace

import pytest
import torch
from made_model import TINY, dropouts, made, random_ids
from torch import nn

from gptwo.model.gpt2 import GPT2, MLP, Conv1D
from gptwo.model.sizes import SIZES, GPT2Config

RELEASED = {
    "small": 124_439_808,
    "medium": 354_823_168,
    "large": 774_030_080,
    "xl": 1_557_611_200,
}


@pytest.mark.parametrize("size, parameters", RELEASED.items())
def test_the_released_sizes_have_their_exact_parameters(size: str, parameters: int) -> None:
    with torch.device("meta"):
        model = GPT2(SIZES[size])
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert SIZES[size].parameters() == parameters
    assert SIZES[size].n_embd // SIZES[size].n_head == 64 and SIZES[size].n_ctx == 1024


@pytest.mark.parametrize("size", sorted(set(SIZES) - set(RELEASED)))
def test_the_smaller_sizes_count_themselves(size: str) -> None:
    with torch.device("meta"):
        model = GPT2(SIZES[size])
    assert sum(p.numel() for p in model.parameters()) == SIZES[size].parameters()
    assert SIZES[size].n_embd // SIZES[size].n_head == 32


def test_parameters_have_the_released_names() -> None:
    names = set(GPT2(replace(TINY, n_layer=1)).state_dict())
    pairs = [f"h.0.{part}" for part in ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj")]
    pairs += ["h.0.mlp.c_fc", "h.0.mlp.c_proj", "ln_f"]
    expected = {f"{name}.{kind}" for name in pairs for kind in ("weight", "bias")}
    assert names == expected | {"wte.weight", "wpe.weight"}


def test_two_normalisations_a_block_and_one_more() -> None:
    for layers in (1, 5):
        model = GPT2(replace(TINY, n_layer=layers))
        norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
        assert len(norms) == 2 * layers + 1
        assert all(norm.eps == 1e-5 for norm in norms)


@pytest.fixture(scope="module")
def fresh() -> GPT2:
    torch.manual_seed(3)
    return GPT2(GPT2Config(vocab_size=4000, n_ctx=512, n_layer=8, n_head=4, n_embd=256))


def test_weights_start_as_the_paper_says(fresh: GPT2) -> None:
    for name, parameter in fresh.named_parameters():
        mean, std = float(parameter.detach().mean()), float(parameter.detach().std())
        if name.endswith("bias"):
            assert mean == std == 0.0
        elif ".ln_" in name or name == "ln_f.weight":
            assert (mean, std) == (1.0, 0.0)
        else:
            expected = 0.02
            if name == "wpe.weight":
                expected = 0.01
            elif name.endswith("c_proj.weight"):
                expected = 0.02 / math.sqrt(2 * 8)
            assert std == pytest.approx(expected, rel=0.02), name
            assert abs(mean) < expected / 50, name


@pytest.mark.parametrize("residual_scale, n", [("2L", 16), ("L", 8), ("none", 1)])
def test_the_start_can_be_set(residual_scale: str, n: int) -> None:
    """The paper does not say what N of 1 / sqrt(N) counts: branches, blocks; or no scaling."""
    shape = replace(TINY, n_layer=8, n_embd=128, n_ctx=128, wpe_std=0.02)
    model = GPT2(replace(shape, residual_scale=residual_scale))
    assert float(model.wpe.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    for block in (model.h[0], model.h[7]):
        for end in (block.attn.c_proj, block.mlp.c_proj):
            std = float(end.weight.detach().std())
            assert std == pytest.approx(0.02 / math.sqrt(n), rel=0.05)
        for inner in (block.attn.c_attn, block.mlp.c_fc):
            assert float(inner.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_new_model_knows_nothing(fresh: GPT2) -> None:
    """Its first loss is that of a uniform guess, ln V."""
    ids = random_ids(fresh.config, batch=2, length=200)
    with torch.no_grad():
        loss = float(fresh.loss(ids[:, :-1], ids[:, 1:]))
    assert loss == pytest.approx(math.log(4000), abs=0.15)


def test_a_changed_token_changes_only_what_follows() -> None:
    model, ids = made(), random_ids(TINY, batch=1)
    changed = ids.clone()
    changed[0, 9] = (ids[0, 9] + 1) % 61
    with torch.no_grad():
        difference = (model(ids) - model(changed)).abs().amax(-1)[0]
    assert torch.all(difference[:9] == 0) and torch.all(difference[9:] > 1e-4)


def test_the_head_is_the_embedding_without_bias() -> None:
    model, ids = made(), random_ids(TINY)
    with torch.no_grad():
        hidden = model.hidden(ids)
        assert torch.equal(model(ids), hidden @ model.wte.weight.T)
        assert torch.allclose(model.logits(hidden[0, -1]), model(ids)[0, -1], atol=1e-6)
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    unseen = torch.ones(61, dtype=torch.bool)
    unseen[ids.flatten()] = False
    assert unseen.any()  # rows that no input used still learn, as outputs
    assert torch.all(model.wte.weight.grad[unseen].abs().sum(-1) > 0)  # type: ignore[index]


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
def test_gelu_is_the_tanh_form(activation: str) -> None:
    """Trap 3: the released models have it; "gelu" is the exact form, for those of nanoGPT."""
    mlp = MLP(4, activation)
    with torch.no_grad():
        mlp.c_fc.weight.copy_(torch.eye(4, 16))
        mlp.c_fc.bias.zero_()
        mlp.c_proj.weight.copy_(torch.eye(16, 4))
        mlp.c_proj.bias.zero_()
        x = torch.linspace(-3, 3, 400).reshape(1, 100, 4)
        tanh = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        exact = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
        ours, other = (tanh, exact) if activation == "gelu_new" else (exact, tanh)
        assert torch.allclose(mlp(x), ours, atol=1e-6)
        assert not torch.allclose(mlp(x), other, atol=1e-4)


def test_an_affine_map_is_stored_in_out() -> None:
    layer = Conv1D(3, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(3, 5))
        layer.bias.copy_(torch.randn(5))
    x = torch.randn(2, 4, 3)
    assert torch.allclose(layer(x), x @ layer.weight + layer.bias, atol=1e-6)


def test_attention_by_hand() -> None:
    """One head and one layer, written out: scores over sqrt(D), softmax, values, projection."""
    model = made(replace(TINY, n_layer=1, n_head=2, n_embd=8))
    attention = model.h[0].attn
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        q, k, v = (x @ attention.c_attn.weight + attention.c_attn.bias).split(8, dim=-1)
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = q[0, :, head] @ k[0, :, head].T / 2.0
            scores = scores.masked_fill(~torch.ones(5, 5).tril().bool(), float("-inf"))
            heads.append(torch.softmax(scores, dim=-1) @ v[0, :, head])
        expected = torch.cat(heads, -1) @ attention.c_proj.weight + attention.c_proj.bias
        assert torch.allclose(attention(x, 0, None, None)[0], expected, atol=1e-6)


def test_dropout_works_in_training_only() -> None:
    config = replace(TINY, dropout=0.5)
    model, ids = made(config), random_ids(config)
    with torch.no_grad():
        plain = made()(ids)
        assert torch.equal(model(ids), plain)
        model.train()
        torch.manual_seed(0)
        one = model(ids)
        torch.manual_seed(0)
        same, other = model(ids), model(ids)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other) and not torch.allclose(one, plain)


def test_dropout_stands_at_four_places() -> None:
    """Embeddings, attention weights, and the end of both branches of each block."""
    model = made(replace(TINY, dropout=0.25)).train()
    assert dropouts(model, random_ids(TINY), 0.25) == {"plain": 1 + 2 * 2, "attention": 2}


@pytest.mark.parametrize(
    "change, said",
    [
        ({"n_layer": 0}, "n_layer must be at least 1, found 0"),
        ({"vocab_size": -1}, "vocab_size must be at least 1"),
        ({"n_head": 5}, "n_embd 768 is not a multiple of n_head 5"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), found 1.0"),
        ({"dropout": float("nan")}, "dropout must be in"),
        ({"wpe_std": -0.1}, "wpe_std must not be negative"),
        ({"activation": "relu"}, "activation must be gelu_new or gelu, found 'relu'"),
        ({"residual_scale": True}, "residual_scale must be 2L, L or none, found True"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GPT2Config(**change)  # type: ignore[arg-type]
