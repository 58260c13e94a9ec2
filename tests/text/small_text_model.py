"""A subject of sampling, a slow loop to hold it to, and a model that says what it is told."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.tokenizer import Tokenizer

MERGES = [(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b"\xe6", b"\x97"), (b"i", b"n")]


class Subject(NamedTuple):
    model: GPT2
    tokenizer: Tokenizer


def subject(n_ctx: int = 32, padding: int = 6, seed: int = 0) -> Subject:
    """Random weights, large enough that predictions differ; `padding` rows no token has."""
    tokenizer = Tokenizer(MERGES)
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size + padding, n_ctx=n_ctx, n_layer=2, n_head=2, n_embd=32
    )
    model = GPT2(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
        model.wpe.weight.mul_(4)
    return Subject(model.eval(), tokenizer)


def greedy(model: GPT2, ids: Sequence[int], length: int, vocab_size: int) -> list[int]:
    """The plain loop: read everything, take the best token, again."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]))[0, -1, :vocab_size].argmax()))
    return ids[-length:]


class Parrot(GPT2):
    """Says the given ids, whatever it reads, then `<|endoftext|>` for ever."""

    def __init__(self, tokenizer: Tokenizer, says: str | bytes) -> None:
        n = tokenizer.vocab_size
        super().__init__(GPT2Config(vocab_size=n, n_ctx=512, n_layer=1, n_head=1, n_embd=2))
        self.script = [*tokenizer.encode(says), *[tokenizer.eot] * 999]

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: KeyValueCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        return torch.zeros(*ids.shape, 2)

    def logits(self, hidden: Tensor) -> Tensor:
        scores = torch.zeros(self.config.vocab_size)
        scores[self.script.pop(0)] = 99.0
        return scores
