"""GPT-1, the ancestor (Radford et al. 2018; openai/finetune-transformer-lm train.py), for contrast.

Axes as in gpt2.py: B batch, T time, C channels, V vocabulary. Attention and MLP are those of GPT-2,
and so is the output head. What GPT-2 changed is all that is written here:

    GPT-1                                       GPT-2
    x = ln_1(x + attn(x))                       x = x + attn(ln_1(x))
    x = ln_2(x + mlp(x))                        x = x + mlp(ln_2(x))
    logits = x wte^T                            logits = ln_f(x) wte^T
    every matrix starts as N(0, 0.02)           positions 0.01, ends of branches 0.02 / sqrt(2 L)
    512 positions, 40,478 pieces of words       1,024 positions, 50,257 pieces of bytes

Here the normalisation stands on the stream itself, after each addition: every block rescales all
that came before it, and a gradient on its way down passes through 2 L of them. In GPT-2 the stream
is only added to, so it reaches the last block unhindered, and with it the gradient the first; that
is why the larger sizes could be trained. The price is a stream that grows with depth: hence ln_f
before the head, and the smaller start of what is added.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwo.model.gpt2 import INIT_STD, LAYER_NORM_EPSILON, MLP, Attention
from gptwo.model.loss import linear_cross_entropy
from gptwo.model.sizes import GPT1Config


class Block(nn.Module):
    """One layer: each sub-block reads the stream as it is; their sum is normalised."""

    def __init__(self, config: GPT1Config) -> None:
        super().__init__()
        self.attn = Attention(config.n_embd, config.n_head, config.dropout)
        self.ln_1 = nn.LayerNorm(config.n_embd, LAYER_NORM_EPSILON)
        self.mlp = MLP(config.n_embd)
        self.ln_2 = nn.LayerNorm(config.n_embd, LAYER_NORM_EPSILON)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln_1(x + self.drop(self.attn(x)))  # (B, T, C)
        return self.ln_2(x + self.drop(self.mlp(x)))  # (B, T, C)


class GPT1(nn.Module):
    """The model: embeddings, blocks, and wte again as the output head.

    >>> model = GPT1(GPT1Config(n_layer=2, n_head=2, n_embd=64))
    >>> model(torch.tensor([[246, 4025]])).shape
    torch.Size([1, 2, 40478])
    """

    def __init__(self, config: GPT1Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        for parameter in self.parameters():
            if parameter.dim() > 1:  # biases start at 0, gains at 1
                nn.init.normal_(parameter, std=INIT_STD)

    def hidden(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> the stream after the last block (B, T, C).

        Fine-tuning reads it at the last token of a text. Raises ValueError past the last position.
        """
        if ids.size(1) > self.config.n_ctx:
            raise ValueError(
                f"{ids.size(1)} positions, but the model has {self.config.n_ctx} (n_ctx)"
            )
        positions = torch.arange(ids.size(1), device=ids.device)  # (T)
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        for block in self.h:
            x = block(x)  # (B, T, C)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V): the input embedding is the output head, without a bias."""
        return F.linear(hidden, self.wte.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, T) -> logits (B, T, V)."""
        return self.logits(self.hidden(ids))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of `targets` (B, T) given `ids` (B, T)."""
        hidden = self.hidden(ids).reshape(-1, self.config.n_embd)  # (B T, C)
        return linear_cross_entropy(hidden, self.wte.weight, targets.reshape(-1))
