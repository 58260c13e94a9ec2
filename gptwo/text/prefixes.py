"""What was read once need not be read again: beginnings of prompts, kept between requests.

A beginning is a chain of blocks of `BLOCK` tokens. A block holds its positions' keys and values,
the model's last hidden state, and, where somebody asked for them, how likely its own tokens were:
all that a prompt which begins the same needs, log-probabilities included. Memory is bounded; what
was not used for longest goes first, and a block goes before the one it follows.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gptwo.model.gpt2 import KeyValueCache

BLOCK = 16
MOST = 20  # alternatives that are kept for each token


class Scores(NamedTuple):
    """How likely tokens were: their log-probabilities (T), the likeliest ids and theirs (T, N)."""

    logprobs: Tensor
    ids: Tensor
    best: Tensor

    def part(self, start: int, stop: int) -> "Scores":
        return Scores(*(tensor[start:stop].clone() for tensor in self))

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self)


def joined(parts: Sequence[Scores]) -> Scores:
    """One after the other."""
    return Scores(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def score(logits: Tensor, targets: Sequence[int]) -> Scores:
    """logits (T, V) -> how likely `targets` were. A target that is the likeliest has its number."""
    logprobs = F.log_softmax(logits.float(), dim=-1).cpu()
    best = torch.topk(logprobs, min(MOST, logprobs.size(-1)))
    own = logprobs.gather(1, torch.tensor(targets)[:, None])[:, 0]
    return Scores(own, best.indices.to(torch.int32), best.values)


def unknown(vocab_size: int) -> Scores:
    """Of a text's first token: nothing comes before it."""
    ids = torch.zeros(1, min(MOST, vocab_size), dtype=torch.int32)
    return Scores(torch.full((1,), torch.nan), ids, torch.full(ids.shape, torch.nan))


@dataclass(eq=False)
class Block:
    """`BLOCK` tokens after the ones of `parent`."""

    parent: "Block | None"
    tokens: tuple[int, ...]
    keys: Tensor  # (L, H, BLOCK, D)
    values: Tensor
    hidden: Tensor  # (C), of the last position
    scores: Scores | None
    children: "dict[tuple[int, ...], Block]" = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        scored = self.scores.bytes if self.scores else 0
        return self.keys.nbytes + self.values.nbytes + self.hidden.nbytes + scored


class PrefixCache:
    """Blocks by what they follow; at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.children: dict[tuple[int, ...], Block] = {}  # the first blocks
        self.order: OrderedDict[Block, None] = OrderedDict()  # least recently used first

    def match(self, ids: Sequence[int], *, scored: bool) -> list[Block]:
        """The longest known beginning of `ids`, less the last id; with scores, if they are asked.

        Nothing of `ids` is known past the chain, so its last id is always left to read.
        """
        chain: list[Block] = []
        children = self.children
        for start in range(0, len(ids) - BLOCK, BLOCK):
            block = children.get(tuple(ids[start : start + BLOCK]))
            if block is None or (scored and block.scores is None):
                break
            chain.append(block)
            children = block.children
        self._touch(chain)
        return chain

    def insert(
        self,
        ids: Sequence[int],
        cache: KeyValueCache,
        row: int,
        hidden: dict[int, Tensor],
        scores: Scores | None,
    ) -> None:
        """Keep the whole blocks of `ids`, which `row` holds from position 0 on.

        `hidden` has the states of positions that end a block not known so far.
        """
        chain: list[Block] = []
        parent, children = None, self.children
        for start in range(0, len(ids) - BLOCK + 1, BLOCK):
            stop = start + BLOCK
            tokens = tuple(ids[start:stop])
            block = children.get(tokens)
            if block is None:
                if stop - 1 not in hidden or not self.max_bytes:
                    break
                keys, values = (
                    torch.stack([layer[row, :, start:stop] for layer in layers])
                    for layers in (cache.keys, cache.values)
                )
                state = hidden[stop - 1]
                own = scores.part(start, stop) if scores else None
                block = children[tokens] = Block(parent, tokens, keys, values, state, own)
                self.order[block] = None
                self.bytes += block.bytes
            elif scores and block.scores is None:
                block.scores = scores.part(start, stop)
                self.bytes += block.scores.bytes
            chain.append(block)
            parent, children = block, block.children
        self._touch(chain)
        while self.bytes > self.max_bytes:
            self._forget(next(iter(self.order)))

    def _touch(self, chain: list[Block]) -> None:
        """The last block first: so a block is never older than one that follows it."""
        for block in reversed(chain):
            self.order.move_to_end(block)

    def _forget(self, block: Block) -> None:
        siblings = block.parent.children if block.parent else self.children
        del siblings[block.tokens], self.order[block]
        self.bytes -= block.bytes


def restore(chain: Sequence[Block], cache: KeyValueCache, row: int) -> int:
    """Lay a chain into `row` from position 0 on; returns how many positions that are."""
    length = BLOCK * len(chain)
    for name in ("keys", "values"):
        whole = torch.cat([getattr(block, name) for block in chain], dim=2)  # (L, H, length, D)
        for layer, part in zip(getattr(cache, name), whole, strict=True):
            layer[row, :, :length] = part
    return length
