"""The readable twin of the C kernel that learns merges."""

import heapq
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np

Pair = tuple[int, int]  # ids


class PlainLearner:
    """Merges of weighted pieces, most frequent pair first.

    Each step merges the best pair everywhere and corrects the counts of the pairs around it. The
    heap may hold counts of the past; they are put right when they surface.
    """

    def __init__(self, order: bytes, greatest: bool) -> None:
        self.rank = {byte: i for i, byte in enumerate(order)}  # byte -> id
        self.greatest = greatest
        self.tokens = [bytes([byte]) for byte in order]
        self.pieces: list[list[int]] = []
        self.times: list[int] = []
        self.counts: Counter[Pair] = Counter()
        self.where: defaultdict[Pair, set[int]] = defaultdict(set)  # pieces that held the pair
        self.heap: list[tuple] = []

    def add(self, data: bytes, offsets: bytes, counts: bytes) -> None:
        """More distinct pieces: data[offsets[i]:offsets[i + 1]] occurs counts[i] times."""
        edges = np.frombuffer(offsets, np.int64).tolist()
        for (begin, end), times in zip(
            pairwise(edges), np.frombuffer(counts, np.int64).tolist(), strict=True
        ):
            piece = [self.rank[byte] for byte in data[begin:end]]
            for pair in pairwise(piece):
                self.counts[pair] += times
                self.where[pair].add(len(self.pieces))
            self.pieces.append(piece)
            self.times.append(times)

    def merge(self, most: int) -> bytes:
        """The next merges, up to `most`, as int32 pairs of ids; none when no pair is left."""
        if len(self.tokens) == len(self.rank):  # nothing is merged yet
            self.heap = [self._candidate(pair) for pair in self.counts]
            heapq.heapify(self.heap)
        made: list[Pair] = []
        while len(made) < most and (pair := self._best()):
            made.append(pair)
            self._step(pair)
        return np.array(made, np.int32).tobytes()

    def _candidate(self, pair: Pair) -> tuple:
        """What the heap sorts by."""
        spelt = _Reversed(self.tokens[id] for id in pair) if self.greatest else pair
        return -self.counts[pair], spelt, pair

    def _best(self) -> Pair | None:
        while self.heap:
            count, _, pair = heapq.heappop(self.heap)
            if self.counts[pair] == -count > 0:
                return pair
            if self.counts[pair]:  # it has lost occurrences since
                heapq.heappush(self.heap, self._candidate(pair))
        return None

    def _step(self, pair: Pair) -> None:
        made = len(self.tokens)
        self.tokens.append(self.tokens[pair[0]] + self.tokens[pair[1]])
        fresh: set[Pair] = set()
        for index in self.where.pop(pair):
            before = Counter(pairwise(self.pieces[index]))
            self.pieces[index] = _merged(self.pieces[index], pair, made)
            after = Counter(pairwise(self.pieces[index]))
            for other in before.keys() | after.keys():
                self.counts[other] += (after[other] - before[other]) * self.times[index]
                if after[other] > before[other]:
                    self.where[other].add(index)
                    fresh.add(other)
        for other in fresh:
            heapq.heappush(self.heap, self._candidate(other))


def _merged(piece: list[int], pair: Pair, made: int) -> list[int]:
    """Replace `pair` by `made`, from the left."""
    out: list[int] = []
    for symbol in piece:
        out.append(symbol)
        if len(out) > 1 and (out[-2], out[-1]) == pair:
            out[-2:] = [made]
    return out


class _Reversed(tuple):
    """A tuple that sorts the other way round."""

    def __lt__(self, other: tuple) -> bool:
        return tuple.__gt__(self, other)
