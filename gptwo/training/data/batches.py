"""Which tokens each step sees: a pure function of the seed and the step.

The rows of all steps are numbered through. A row's number says which corpus it is of (`mixture.py`)
and which window of that corpus it is (`epochs.py`), and nothing else does: to resume at step 10,000
is to ask for step 10,000, and the batch is the same however many processes share it. The process
that trains reads its tokens itself, from memory maps: there is no worker to wait for or to die.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gptwo.errors import DataError, UsageError
from gptwo.tokens.shards import Shards
from gptwo.training.data.epochs import Epochs, Stretches, joined, scrambled
from gptwo.training.data.mixture import cycle_of, shares
from gptwo.world import World

ONE = World()


@dataclass(frozen=True, kw_only=True)
class Batches:
    """The training batches of a run. A batch is `rows` windows of `n_ctx` tokens."""

    tokens: Shards
    n_ctx: int
    rows: int
    epochs: tuple[Epochs, ...]  # one for each corpus of a mix, else one for all
    cycle: np.ndarray  # which of them each row is of, over and over

    def windows(self, step: int) -> np.ndarray:
        """Positions in the stream of the first tokens that the rows of `step` read. (rows,)"""
        places, starts, _ = self.stretches(np.arange(step * self.rows, (step + 1) * self.rows))
        first = np.flatnonzero(places % (self.n_ctx + 1) == 0)
        return starts[first[np.argsort(places[first])]]

    def at(self, step: int, world: World = ONE) -> tuple[Tensor, Tensor]:
        """What this rank's model reads and what it should say at `step`, on its device.

        Both (rows / world.size, n_ctx), int64: views of one tensor, the second a position ahead.
        The ranks, in their order, hold the rows of the batch in theirs.
        """
        rows = self.rows // world.size
        first = step * self.rows + world.rank * rows
        pinned = world.device.startswith("cuda")  # so that the copy does not stop the process
        ids = torch.empty((rows, self.n_ctx + 1), dtype=torch.int64, pin_memory=pinned)
        self.tokens.copy(ids.view(-1).numpy(), *self.stretches(np.arange(first, first + rows)))
        ids = ids.to(world.device, non_blocking=pinned)
        return ids[:, :-1], ids[:, 1:]

    def stretches(self, numbers: np.ndarray) -> Stretches:
        """Where in the stream the tokens of the rows with these numbers lie, for `Shards.copy`."""
        turns, phases = np.divmod(numbers, len(self.cycle))
        places = np.arange(len(numbers)) * (self.n_ctx + 1)
        found = []
        for which, epochs in enumerate(self.epochs):
            mine = self.cycle[phases] == which
            if mine.any():
                before = np.append(0, np.cumsum(self.cycle == which))  # its rows in a cycle so far
                targets = epochs.windows(turns[mine] * before[-1] + before[phases[mine]])
                found.append(epochs.stretches(places[mine], targets))
        return joined(found)


def batches(
    tokens: Shards, *, n_ctx: int, batch_tokens: int, seed: int, mix: str = "", world: World = ONE
) -> Batches:
    """The batches of a training split; a split too short or an uneven batch is refused.

    `mix` is a weight for each corpus in `tokens`, such as "0.7,0.3": its share of all rows. Each
    corpus then goes through its own epochs. Without it all are one corpus.
    """
    rows = _rows(batch_tokens, n_ctx, world)
    borders = [0, len(tokens)]
    weights = shares(mix) if mix else (1,)
    if mix:
        borders = np.cumsum([0, *tokens.corpora]).tolist()
        if len(weights) != len(tokens.corpora):
            raise UsageError(
                f"mix {mix!r} has {len(weights)} weights for {len(tokens.corpora)} token folders",
                remedy="give training.mix one for each, in the order of the folders",
            )
    epochs = []
    for number, (begin, end) in enumerate(pairwise(borders)):
        if end - begin <= n_ctx:
            which = f" of token folder {number + 1}" if len(borders) > 2 else ""
            raise DataError(
                f"the training split{which} has {end - begin:,} tokens; "
                f"one context takes {n_ctx + 1:,}",
                remedy="give more text or set a smaller model.n_ctx",
            )
        key = scrambled(np.array([seed << 32 | number], np.uint64))
        epochs.append(Epochs(begins=_documents(tokens, begin, end), end=end, width=n_ctx, key=key))
    cycle = np.array(cycle_of(weights))
    return Batches(tokens=tokens, n_ctx=n_ctx, rows=rows, epochs=tuple(epochs), cycle=cycle)


def _rows(batch_tokens: int, n_ctx: int, world: World) -> int:
    rows, rest = divmod(batch_tokens, n_ctx)
    if rest:
        raise UsageError(
            f"batch_tokens {batch_tokens:,} is not a multiple of n_ctx {n_ctx:,}",
            remedy=f"set training.batch_tokens={max(rows, 1) * n_ctx}",
        )
    if rows % world.size:
        raise UsageError(
            f"batch_tokens {batch_tokens:,} is {rows:,} rows of n_ctx {n_ctx:,}, which "
            f"{world.size:,} processes cannot share evenly",
            remedy=f"set training.batch_tokens={-(-rows // world.size) * world.size * n_ctx}",
        )
    return rows


def _documents(tokens: Shards, begin: int, end: int) -> np.ndarray:
    """Where documents begin from `begin` to `end`, which are borders of documents themselves."""
    first, last = np.searchsorted(tokens.starts, np.array([begin, end - 1], np.uint64), "right")
    return np.append(begin, tokens.starts[first:last].astype(np.int64))


def read_windows(tokens: Shards, starts: np.ndarray, width: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets, the latter one position ahead. Both (rows, width)."""
    ids = torch.empty((len(starts), width + 1), dtype=torch.int64)
    places = np.arange(len(starts)) * (width + 1)
    tokens.copy(ids.view(-1).numpy(), places, starts, np.full(len(starts), width + 1))
    return ids[:, :-1], ids[:, 1:]


def held_out_windows(
    tokens: Shards, *, n_ctx: int, most_tokens: int, mix: str = ""
) -> tuple[np.ndarray, int]:
    """Starts and width of fixed, non-overlapping windows spread over a held-out split.

    In a mix each corpus has its share of the windows, as far as its split reaches; one shorter than
    a window has none. Where all are shorter than a context, windows are as short as the longest.
    """
    weights, lengths = (shares(mix), tokens.corpora) if mix else ((1,), (len(tokens),))
    width = min(n_ctx, max(lengths) - 1)
    if width < 1:
        raise DataError(
            f"the validation split has {len(tokens):,} tokens; a held-out loss takes 2",
            remedy="give more text or set training.validation_interval=0",
        )
    starts, begin = [], 0
    for weight, length in zip(weights, lengths, strict=True):
        wanted = most_tokens * weight // sum(weights)
        count = max(min(wanted, length - 1) // width, 1) if length > width else 0
        starts.append(begin + np.arange(count) * ((length - 1) // max(count, 1)))
        begin += length
    return np.concatenate(starts), width
