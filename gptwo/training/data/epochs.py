"""A corpus read over and over: each time its documents in another order, each token once.

The documents of an epoch are laid end to end in a shuffled order, epoch after epoch, on one endless
line, and the line is cut into windows of `width` targets. A document therefore has other neighbours
and begins at another place of its window each time, however the corpus was sorted. Positions on the
line are counted in targets: those of epoch e are e N to (e + 1) N, N being the tokens of the
corpus, so each token is a target exactly once an epoch, also where N is not a multiple of `width`.
The windows that lie within an epoch are visited in a shuffled order too: a long document does not
fill a batch. The one that reaches into the next epoch is that epoch's last.

Everything is a function of the key, the epoch and a number; what is kept is only kept for speed.
"""

from dataclasses import dataclass, field

import numpy as np

ROUNDS = 4
Stretches = tuple[np.ndarray, np.ndarray, np.ndarray]  # places, starts, lengths: see Shards.copy


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """The endless line of the corpus that lies at `begins[0]` to `end` of a split."""

    begins: np.ndarray  # (documents,) where each begins, rising, int64
    end: int
    width: int  # targets of a window
    key: np.ndarray  # (1,) uint64
    _orders: dict[int, "Order"] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.end - int(self.begins[0])

    def windows(self, numbers: np.ndarray) -> np.ndarray:
        """Positions on the line of the first targets of the windows with these numbers. int64."""
        tokens = len(self)
        lines, epochs = numbers.copy(), numbers * self.width // tokens
        for epoch in np.unique(epochs):
            first, last = -(-epoch * tokens // self.width), (epoch + 1) * tokens // self.width
            within = (epochs == epoch) & (numbers < last)  # not across the end of the epoch
            order = shuffled(numbers[within] - first, int(last - first), self._key(int(epoch)))
            lines[within] = first + order
        return lines * self.width

    def stretches(self, places: np.ndarray, targets: np.ndarray) -> Stretches:
        """Where in the split the tokens of windows lie: the one before `targets[i]`, and `width`
        more, to be copied to `places[i]`. As `Shards.copy` takes them, in no order.

        What comes before the first target of all is the end of an epoch that was not read.
        """
        tokens, begins = len(self), targets - 1
        whole = self.width + 1
        left = np.minimum(tokens - begins % tokens, whole)  # of the window in this epoch
        places, begins = np.append(places, places + left), np.append(begins, begins + left)
        lengths = np.append(left, whole - left)
        epochs = begins // tokens
        wanted = np.unique(epochs[lengths > 0]).tolist()
        for unused in self._orders.keys() - wanted:
            del self._orders[unused]
        found = []
        for epoch in wanted:
            here = (epochs == epoch) & (lengths > 0)
            order = self._order(epoch)
            found.append(order.stretches(places[here], begins[here] % tokens, lengths[here]))
        return joined(found)

    def _order(self, epoch: int) -> "Order":
        if epoch not in self._orders:
            self._orders[epoch] = make_order(self.begins, self.end, scrambled(self._key(epoch)))
        return self._orders[epoch]

    def _key(self, epoch: int) -> np.ndarray:
        return scrambled(self.key + np.array([epoch], np.int64).astype(np.uint64))


@dataclass(frozen=True, kw_only=True)
class Order:
    """The documents of one epoch in the order in which they are read."""

    bounds: np.ndarray  # (documents + 2,) where each begins in the epoch, and the epoch's end
    shifts: np.ndarray  # (documents + 1,) from a place in the epoch to one in the split

    def stretches(self, places: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> Stretches:
        """Cut pieces of the epoch at the borders of documents."""
        stops = begins + lengths
        first = np.searchsorted(self.bounds, begins, side="right") - 1
        counts = np.searchsorted(self.bounds, stops, side="left") - first
        piece = np.repeat(np.arange(len(counts)), counts)
        document = np.arange(len(piece)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        start = np.maximum(begins[piece], self.bounds[document])
        stop = np.minimum(stops[piece], self.bounds[document + 1])
        return places[piece] + start - begins[piece], start + self.shifts[document], stop - start


def joined(found: list[Stretches]) -> Stretches:
    places, starts, lengths = zip(*found, strict=True)
    return np.concatenate(places), np.concatenate(starts), np.concatenate(lengths)


def make_order(begins: np.ndarray, end: int, key: np.ndarray) -> Order:
    """Shuffle documents by the order of a hash of their numbers.

    The first one is entered at a random place and what precedes that comes last, so that windows
    are cut elsewhere even where there is a single document.
    """
    order = np.argsort(scrambled(key + np.arange(len(begins), dtype=np.uint64)))
    lengths = np.diff(begins, append=end)[order]
    starts = begins[order]
    ahead = int(scrambled(key)[0] % np.uint64(lengths[0]))
    starts, lengths = np.append(starts, starts[0]), np.append(lengths, ahead)
    starts[0] += ahead
    lengths[0] -= ahead
    bounds = np.append(0, np.cumsum(lengths))
    return Order(bounds=bounds, shifts=starts - bounds[:-1])


def shuffled(index: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """Where a pseudo-random permutation of range(n) sends each `index`; no table is made.

    A Feistel network permutes the cells of the smallest near-square grid of at least n; a value
    that lands beyond n is sent on until it lands inside.
    """
    columns = np.uint64(max(int(np.ceil(np.sqrt(n))), 1))
    rows = np.uint64(max(-(-n // int(columns)), 1))
    value = index.astype(np.uint64)
    outside = np.ones(len(value), dtype=bool)
    while outside.any():
        row, column = np.divmod(value[outside], columns)
        for turn in range(ROUNDS):
            row = (row + scrambled(column + key + np.uint64(2 * turn << 56)) % rows) % rows
            column = (
                column + scrambled(row + key + np.uint64(2 * turn + 1 << 56)) % columns
            ) % columns
        value[outside] = row * columns + column
        outside = value >= n
    return value.astype(np.int64)


def scrambled(value: np.ndarray) -> np.ndarray:
    """One output of SplitMix64: every input bit moves every output bit."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
