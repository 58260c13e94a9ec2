"""Small models in which every number is random, gains and biases included."""

import re
from typing import Any

import torch

from gptwo.formats.weights import HEAD, Weights, shapes
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.tokenizer import Tokenizer

SHAPE = {"vocab_size": 258, "n_ctx": 24, "n_layer": 2, "n_head": 2, "n_embd": 32}
SMALLEST = Tokenizer([(b"t", b"h")])  # as many tokens as `SHAPE` has rows


def random_weights(tokenizer: Tokenizer | None = SMALLEST, **changes: Any) -> Weights:
    """Weights of `SHAPE` with `changes`: logits spread far enough to tell two models apart."""
    config = GPT2Config(**SHAPE | changes)
    source = torch.Generator().manual_seed(1)
    tensors = {}
    for name, shape in shapes(config):
        mean = 1.0 if re.search(r"ln_\w\.weight", name) else 0.0
        tensors[name] = mean + 0.2 * torch.randn(shape, generator=source)
    assert (HEAD in tensors) is not config.tied_head
    return Weights(config, tensors, tokenizer)
