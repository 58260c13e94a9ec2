"""The stream after the last normalisation, as `GPT2.hidden` makes it, in other matrix products.

Scoring reads the same weights many times and never changes them, so they are brought once into
the order in which the processor's matrix kernels read them (oneDNN's, which torch has too), and
GELU and the sum with the stream are done in the product that they follow. `GPT2.hidden` is the
plain twin. It serves where this does not: on other devices, in other precisions, in a torch without
these products.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gptwo.model.gpt2 import GPT2, Block, Conv1D

ROWS = 1024  # for which the order is chosen; any number of rows can be multiplied


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """An affine map with its weight in the kernels' order."""

    weight: Any
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def gelu(self, x: Tensor, form: str) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "gelu", [], form)

    def add(self, x: Tensor, stream: Tensor) -> Tensor:
        """map(x) + stream"""
        return torch.ops.mkldnn._linear_pointwise(x, stream, self.weight, self.bias, "add")


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A block and its four maps."""

    block: Block
    attention: Map
    attention_out: Map
    inner: Map
    outer: Map


class Forward:
    """A model for reading only; its weights must not change afterwards."""

    def __init__(self, model: GPT2) -> None:
        self.model = model
        self.layers = [
            Layer(
                block=block,
                attention=_ordered(block.attn.c_attn),
                attention_out=_ordered(block.attn.c_proj),
                inner=_ordered(block.mlp.c_fc),
                outer=_ordered(block.mlp.c_proj),
            )
            for block in cast(Iterable[Block], model.h)
        ]

    def hidden(
        self, ids: Tensor, *, positions: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """ids (B, T) -> (B, T, C); positions and mask as those of `GPT2.hidden`."""
        model, (B, T) = self.model, ids.shape
        C, H = model.config.n_embd, model.config.n_head
        places = model.wpe.weight[:T] if positions is None else model.wpe(positions)
        x = (model.wte(ids) + places).view(B * T, C)
        for layer in self.layers:
            ln_1, ln_2, mlp = layer.block.ln_1, layer.block.ln_2, layer.block.mlp
            q, k, v = (
                part.view(B, T, H, C // H).transpose(1, 2)  # B H T D
                for part in layer.attention(ln_1(x)).split(C, dim=1)
            )
            causal = mask is None and T > 1
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
            x = layer.attention_out.add(mixed.transpose(1, 2).reshape(B * T, C), x)
            x = layer.outer.add(layer.inner.gelu(ln_2(x), mlp.approximate), x)
        return model.ln_f(x).view(B, T, C)


def forward_of(model: GPT2) -> GPT2 | Forward:
    """What reads batches quickest here: it has `hidden`."""
    return Forward(model) if serves(model) else model


def serves(model: GPT2) -> bool:
    """Are these products built, and made for this model's numbers?"""
    built = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    weights = list(model.parameters())
    return built and all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)


def _ordered(conv: Conv1D) -> Map:
    weight = conv.weight.detach().t().contiguous()  # out in
    return Map(
        weight=torch.ops.mkldnn._reorder_linear_weight(weight, ROWS), bias=conv.bias.detach()
    )
