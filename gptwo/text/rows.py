"""Some rows of a key/value cache, read together although each stands at an end of its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gptwo.model.gpt2 import KeyValueCache


class Rows:
    """What `GPT2.hidden` takes as its cache when `rows` append `counts` ids after `starts` others.

    Ids stand to the left in a batch (B, T); what is right of a row's own is padding, which is read
    and not kept. `between` is called before each layer.
    """

    def __init__(
        self,
        cache: KeyValueCache,
        rows: Sequence[int],
        starts: Sequence[int],
        counts: Sequence[int],
        between: Callable[[], None] | None = None,
    ) -> None:
        self.cache, self.between = cache, between
        self.device = cache.keys[0].device
        self.width = max(counts)  # T
        self.end = max(start + count for start, count in zip(starts, counts, strict=True))  # S
        self.capacity, self.length = cache.capacity, self.end - self.width
        self.starts = torch.tensor(starts, device=self.device)
        first = list(rows) == list(range(len(rows)))  # then a view is enough
        self.chosen = slice(len(rows)) if first else torch.tensor(rows, device=self.device)
        own = [(i, t) for i, count in enumerate(counts) for t in range(count)]
        place, column = torch.tensor(own, device=self.device).T
        self.taken = place, column
        self.kept = torch.tensor(rows, device=self.device)[place], self.starts[place] + column

    def positions(self, n_ctx: int) -> Tensor:
        """(B, T); padding stands anywhere that exists."""
        columns = torch.arange(self.width, device=self.device)
        return (self.starts[:, None] + columns).clamp(max=n_ctx - 1)

    def mask(self) -> Tensor:
        """(B, 1, T, S): each id sees what its row has kept, those before it, and itself."""
        columns = torch.arange(self.width, device=self.device)
        last = self.starts[:, None] + columns  # (B, T)
        seen = torch.arange(self.end, device=self.device) <= last[:, :, None]
        return seen[:, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.between is not None:
            self.between()
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        place, column = self.taken
        rows, ends = self.kept
        keys[rows, :, ends] = k[place, :, column]
        values[rows, :, ends] = v[place, :, column]
        return keys[self.chosen, :, : self.end], values[self.chosen, :, : self.end]  # (B, H, S, D)
