"""Small models with random weights, biases and gains included."""

from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config as TheirConfig
from transformers import GPT2LMHeadModel

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config

TINY = GPT2Config(vocab_size=61, n_ctx=24, n_layer=2, n_head=2, n_embd=32)


def made(config: GPT2Config = TINY, seed: int = 0) -> GPT2:
    """A model in evaluation mode in which no parameter is zero or one."""
    torch.manual_seed(seed)
    model = GPT2(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


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
        attn_implementation="eager",
        **more,
    )
    torch.manual_seed(5)
    model = GPT2LMHeadModel(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()
