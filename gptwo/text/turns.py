"""Who is next: texts that wait for a row, each owner with a fair share of them."""

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class Owned(Protocol):
    """What may wait."""

    @property
    def owner(self) -> Hashable: ...


T = TypeVar("T", bound=Owned)


class Waiting(Generic[T]):
    """Texts in a line for each owner.

    The next one is of the owner who has the fewest running, the longest waiting of them. An owner
    may hold three quarters of the rows, so that one who asks for much does not shut out the others;
    texts without an owner may hold all.
    """

    def __init__(self, rows: int) -> None:
        self.most = max(1, rows * 3 // 4)
        self.lines: OrderedDict[Hashable, deque[T]] = OrderedDict()

    def append(self, text: T) -> None:
        self.lines.setdefault(text.owner, deque()).append(text)

    def next(self, running: Iterable[T]) -> T | None:
        """The text whose turn it is, still in its line; None when no line may move."""
        counts = Counter(text.owner for text in running)
        free = [o for o in self.lines if o is None or counts[o] < self.most]
        return self.lines[min(free, key=lambda o: counts[o])][0] if free else None

    def remove(self, text: T) -> None:
        """Take a text out of its line, wherever it stands; nothing happens if it is in none."""
        line = self.lines.get(text.owner)
        if line is not None and text in line:
            line.remove(text)
            if not line:
                del self.lines[text.owner]

    def __len__(self) -> int:
        return sum(len(line) for line in self.lines.values())

    def __iter__(self) -> Iterator[T]:
        return (text for line in self.lines.values() for text in line)
