"""Small models with random weights, biases and gains included."""

from typing import Any, TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from gptwo.model.gpt1 import GPT1
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config

Model = TypeVar("Model", bound=nn.Module)
TINY = GPT2Config(vocab_size=61, n_ctx=24, n_layer=2, n_head=2, n_embd=32)

# The released shapes: as many heads, each 4 channels wide instead of 64, and a quarter of the
# layers, so that width and depth stand in the released ratio.
SCALED = {
    name: GPT2Config(vocab_size=501, n_ctx=48, n_layer=layers, n_head=heads, n_embd=4 * heads)
    for name, layers, heads in (
        ("small", 3, 12),
        ("medium", 6, 16),
        ("large", 9, 20),
        ("xl", 12, 25),
    )
}


def stirred(model: Model) -> Model:
    """`model` in evaluation mode, and no parameter of it zero or one."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def made(config: GPT2Config = TINY, seed: int = 0) -> GPT2:
    torch.manual_seed(seed)
    return stirred(GPT2(config))


def random_ids(config: GPT2Config, batch: int = 2, length: int = 0, seed: int = 1) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    shape = (batch, length or config.n_ctx)
    return torch.randint(config.vocab_size, shape, generator=source)


def theirs(config: GPT2Config, **more: Any) -> GPT2LMHeadModel:
    """transformers' GPT-2 of the same shape with its own random weights, in evaluation mode."""
    shape = TheirConfig(
        vocab_size=config.vocab_size,
        n_positions=config.n_ctx,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        bos_token_id=config.vocab_size - 1,
        eos_token_id=config.vocab_size - 1,
        activation_function=config.activation,
        tie_word_embeddings=config.tied_head,
        attn_implementation="eager",
        **more,
    )
    torch.manual_seed(5)
    return stirred(GPT2LMHeadModel(shape))


def embeddings(model: GPT2 | GPT1) -> list[Tensor]:
    """What the embeddings give, call by call, ready to receive gradients."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, out: Tensor) -> None:
        if out.requires_grad:
            out.retain_grad()
        kept.append(out)

    model.drop.register_forward_hook(keep)
    return kept


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a.detach() - b.detach()).abs().max().item()


def dropouts(model: GPT2 | GPT1, ids: Tensor, rate: float) -> dict[str, int]:
    """How often one call drops numbers of the stream and attention weights, each at `rate`."""
    counts = {"plain": 0, "attention": 0}
    attend = F.scaled_dot_product_attention

    def counted(*args: Tensor, **more: Any) -> Tensor:
        counts["attention"] += more["dropout_p"] == rate
        return attend(*args, **more)

    def seen(module: nn.Module, inputs: object, out: Tensor) -> None:
        counts["plain"] += 1
        assert float((out == 0).float().mean()) == pytest.approx(rate, abs=0.08)

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", counted)
        model(ids)
    return counts
