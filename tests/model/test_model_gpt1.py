"""GPT-1: what it shares with GPT-2, what it does otherwise, and transformers' reading of it."""

import math
from dataclasses import replace

import pytest
import torch
from made_model import dropouts, embeddings, largest_difference, random_ids, stirred
from torch import Tensor, nn
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from gptwo.model.gpt1 import GPT1
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT1Config, GPT2Config

# Half the published heads, 8 channels wide, a third of the layers.
SMALL = GPT1Config(vocab_size=301, n_ctx=32, n_layer=4, n_head=6, n_embd=48)
THEIR_NAMES = {"wte.weight": "tokens_embed.weight", "wpe.weight": "positions_embed.weight"}


def made(config: GPT1Config = SMALL) -> GPT1:
    torch.manual_seed(0)
    return stirred(GPT1(config))


def theirs(config: GPT1Config = SMALL) -> OpenAIGPTLMHeadModel:
    shape = OpenAIGPTConfig(
        vocab_size=config.vocab_size,
        n_positions=config.n_ctx,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        attn_implementation="eager",
    )
    torch.manual_seed(5)
    return stirred(OpenAIGPTLMHeadModel(shape))


def their_name(name: str) -> str:
    return "transformer." + THEIR_NAMES.get(name, name)


def ids_of(config: GPT1Config = SMALL) -> Tensor:
    return random_ids(GPT2Config(vocab_size=config.vocab_size), length=config.n_ctx)


def test_the_published_shape_has_its_exact_parameters() -> None:
    with torch.device("meta"):
        model = GPT1(GPT1Config())
    assert sum(p.numel() for p in model.parameters()) == 116_534_784
    assert GPT1Config().parameters() == 116_534_784
    assert GPT1Config().dropout == 0.1


def test_its_parameters_are_gpt2s_without_the_last_normalisation() -> None:
    with torch.device("meta"):
        ours, other = GPT1(GPT1Config()), GPT2(GPT2Config(vocab_size=40478, n_ctx=512))
    shapes = {name: p.shape for name, p in other.named_parameters()}
    assert {name: p.shape for name, p in ours.named_parameters()} == {
        name: shape for name, shape in shapes.items() if not name.startswith("ln_f")
    }
    norms = [m for m in ours.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * 12 and all(norm.eps == 1e-5 for norm in norms)


def test_every_matrix_starts_alike() -> None:
    torch.manual_seed(3)
    model = GPT1(GPT1Config(vocab_size=2000, n_ctx=256, n_layer=8, n_head=4, n_embd=128))
    for name, parameter in model.named_parameters():
        mean, std = float(parameter.detach().mean()), float(parameter.detach().std())
        if name.endswith("bias"):
            assert mean == std == 0.0
        elif ".ln_" in name:
            assert (mean, std) == (1.0, 0.0)
        else:  # positions and the ends of branches too
            assert std == pytest.approx(0.02, rel=0.03), name
    ids = torch.randint(2000, (2, 200))
    with torch.no_grad():
        loss = float(model.eval().loss(ids[:, :-1], ids[:, 1:]))
    assert loss == pytest.approx(math.log(2000), abs=0.15)


def test_the_stream_is_normalised_after_each_addition() -> None:
    """With gains 1 and biases 0 what leaves a block has mean 0 and variance 1; GPT-2's has not."""
    torch.manual_seed(0)
    ours, other = GPT1(SMALL).eval(), GPT2(GPT2Config(**vars(SMALL))).eval()
    streams: dict[str, Tensor] = {}
    for name, model in (("gpt1", ours), ("gpt2", other)):
        model.h[-1].register_forward_hook(
            lambda module, inputs, out, name=name: streams.__setitem__(name, out)
        )
        with torch.no_grad():
            hidden = model.hidden(ids_of())
        assert torch.equal(hidden, streams[name]) == (name == "gpt1")  # nothing after the blocks
    variance = {name: stream.var(-1, unbiased=False) for name, stream in streams.items()}
    assert torch.allclose(variance["gpt1"], torch.ones(()), atol=0.02)
    assert torch.allclose(streams["gpt1"].mean(-1), torch.zeros(()), atol=1e-5)
    assert float(variance["gpt2"].max()) < 0.1


def test_our_weights_give_their_logits_loss_and_gradients() -> None:
    model, other, ids = made(), theirs(), ids_of()
    named = {their_name(name): value for name, value in model.state_dict().items()}
    missing, unexpected = other.load_state_dict(named, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # tied to the embedding
    with torch.no_grad():
        logits = model(ids)
        assert largest_difference(logits, other(ids).logits) <= 1e-5
        assert float(logits.std()) > 0.1
    loss = model.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    their_loss = other(ids, labels=ids).loss
    their_loss.backward()
    assert abs(loss.item() - their_loss.item()) <= 1e-5
    gradients = {name: p.grad for name, p in other.named_parameters()}
    assert len(gradients) == len(dict(model.named_parameters()))
    for name, parameter in model.named_parameters():
        assert largest_difference(parameter.grad, gradients[their_name(name)]) <= 1e-5, name


def test_their_weights_give_our_logits() -> None:
    model, other, ids = GPT1(SMALL).eval(), theirs(), ids_of()
    stored = other.state_dict()
    model.load_state_dict({name: stored[their_name(name)] for name in model.state_dict()})
    with torch.no_grad():
        assert largest_difference(model(ids), other(ids).logits) <= 1e-5


@pytest.mark.parametrize("position", [0, 7, 31])
def test_no_position_sees_the_future(position: int) -> None:
    model = made()
    kept = embeddings(model)
    model(ids_of()[:1])[0, position].square().sum().backward()
    reached = (kept[0].grad[0] != 0).any(-1)  # type: ignore[index]
    assert reached.tolist() == [i <= position for i in range(32)]


def test_dropout_works_in_training_only() -> None:
    model, ids = made(), ids_of()
    with torch.no_grad():
        plain = made(replace(SMALL, dropout=0.0))(ids)
        assert torch.equal(model(ids), plain)
        model.train()
        torch.manual_seed(0)
        one = model(ids)
        torch.manual_seed(0)
        same, other = model(ids), model(ids)
    assert torch.equal(one, same)
    assert not torch.allclose(one, other) and not torch.allclose(one, plain)


def test_dropout_stands_where_gpt2_has_it() -> None:
    model = made(replace(SMALL, dropout=0.25)).train()
    assert dropouts(model, ids_of(), 0.25) == {"plain": 1 + 2 * 4, "attention": 4}


def test_it_learns_one_batch_by_heart() -> None:
    torch.manual_seed(0)
    model = GPT1(replace(SMALL, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    ids = ids_of()
    first = model.loss(ids[:, :-1], ids[:, 1:]).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first


def test_what_it_cannot_be_or_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"33 positions, but the model has 32 \(n_ctx\)"):
        made()(torch.zeros(1, 33, dtype=torch.long))
    with pytest.raises(ValueError, match="n_embd 768 is not a multiple of n_head 5"):
        GPT1Config(n_head=5)
    with pytest.raises(ValueError, match="n_layer must be at least 1, found 0"):
        GPT1Config(n_layer=0)
