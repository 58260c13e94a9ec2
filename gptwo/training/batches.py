"""Which tokens each step sees: a pure function of the seed and the step.

The tokens of a split are bent into a circle and cut into windows of n_ctx, from a starting point
that changes with every epoch, so that a window's first tokens, which have the least context, are
not the same ones each time. An epoch visits its windows in a shuffled order. Nothing is kept
between steps: to resume at step 10,000 is to ask for step 10,000.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptwo.errors import DataError, UsageError
from gptwo.tokens.shards import Shards

FEISTEL_ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The training batches of a run. A batch is `rows` windows of `n_ctx` tokens."""

    tokens: Shards
    n_ctx: int
    rows: int
    seed: int

    def windows(self, step: int) -> np.ndarray:
        """Positions in the stream at which the rows of `step` start. (rows,)"""
        per_epoch = len(self.tokens) // self.n_ctx
        place = np.arange(step * self.rows, (step + 1) * self.rows, dtype=np.int64)
        epochs, index = np.divmod(place, per_epoch)
        starts = np.empty_like(index)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = _mix(np.array([self.seed], np.uint64) << np.uint64(32) | np.uint64(epoch))
            offset = int(key[0] % np.uint64(len(self.tokens)))
            window = shuffled(index[here], per_epoch, key)
            starts[here] = (offset + window * self.n_ctx) % len(self.tokens)
        return starts

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """What the model reads and what it should say at `step`. Both (rows, n_ctx), int64."""
        return read_windows(self.tokens, self.windows(step), self.n_ctx)


def batches(tokens: Shards, *, n_ctx: int, batch_tokens: int, seed: int) -> Batches:
    """The batches of a training split; a split too short or an uneven batch is refused."""
    if batch_tokens % n_ctx:
        raise UsageError(
            f"batch_tokens {batch_tokens:,} is not a multiple of n_ctx {n_ctx:,}",
            remedy=f"set training.batch_tokens={max(batch_tokens // n_ctx, 1) * n_ctx}",
        )
    if len(tokens) <= n_ctx:
        raise DataError(
            f"the training split has {len(tokens):,} tokens; one context takes {n_ctx + 1:,}",
            remedy="give more text or set a smaller model.n_ctx",
        )
    return Batches(tokens=tokens, n_ctx=n_ctx, rows=batch_tokens // n_ctx, seed=seed)


def read_windows(tokens: Shards, starts: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, the latter one position ahead, around the circle. Both (rows, width)."""
    rows = np.stack([_around(tokens, int(start), width + 1) for start in starts])
    return torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])


def _around(tokens: Shards, start: int, length: int) -> np.ndarray:
    first = tokens.read(start, min(length, len(tokens) - start))
    if len(first) == length:
        return first
    return np.concatenate([first, tokens.read(0, length - len(first))])


def held_out_windows(tokens: Shards, *, n_ctx: int, most_tokens: int) -> tuple[np.ndarray, int]:
    """Starts and width of fixed, non-overlapping windows spread over a held-out split.

    A split shorter than a context is read as one short window.
    """
    if len(tokens) < 2:
        raise DataError(
            f"the validation split has {len(tokens):,} tokens; a held-out loss takes 2",
            remedy="give more text or set training.validation_interval=0",
        )
    width = min(n_ctx, len(tokens) - 1)
    count = max(min(most_tokens, len(tokens) - 1) // width, 1)
    return np.arange(count) * ((len(tokens) - 1) // count), width


def shuffled(index: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """Where a pseudo-random permutation of range(n) sends each `index`; no table is made.

    A Feistel network permutes the next larger power of four; a value that lands outside range(n)
    is sent on until it lands inside.
    """
    half = np.uint64(max(((n - 1).bit_length() + 1) // 2, 1))
    mask = (np.uint64(1) << half) - np.uint64(1)
    value = index.astype(np.uint64)
    outside = np.ones(len(value), dtype=bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for turn in range(FEISTEL_ROUNDS):
            left, right = right, left ^ (_mix(right + key + np.uint64(turn << 56)) & mask)
        value[outside] = left << half | right
        outside = value >= n
    return value.astype(np.int64)


def _mix(value: np.ndarray) -> np.ndarray:
    """One output of SplitMix64: every input bit moves every output bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
