"""How fast a crawl is and how its links end, for the live line."""

import time
from collections import Counter, deque

from gptwo.progress import Bar
from gptwo.web.fetch import Fetched
from gptwo.web.rot import SAME, place_of, rot_class

WINDOW_SECONDS = 10.0  # that current rates are taken over
SHOWN_CLASSES = 6


class Rates:
    """Counts links by class, pages and bytes, and tells a bar about them now and then."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.classes: Counter[str] = Counter()
        self.pages = self.bytes = self.visits = 0
        self._links = 0  # that the bar does not know of
        self._marks = deque([(time.monotonic(), 0, 0)])  # time, pages, bytes

    def recall(self, outcome: str, place: str) -> None:
        """A link that an earlier run had done."""
        self._links += 1
        self.classes[rot_class(outcome, place)] += 1

    def add(self, page: Fetched) -> None:
        outcome = page.answer.outcome
        self._links += 1
        place = place_of(page.url, page.final_url) if outcome == "ok" and page.hops else SAME
        self.classes[rot_class(outcome, place)] += 1
        self.pages += outcome == "ok"
        self.bytes += len(page.answer.body)

    def show(self) -> None:
        """Pages and megabytes a second of late, hosts under way, links by what became of them."""
        now = time.monotonic()
        self._marks.append((now, self.pages, self.bytes))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()
        then, pages, size = self._marks[0]
        seconds = max(now - then, 1e-3)
        fields = {
            "pages": f"{(self.pages - pages) / seconds:,.0f}/s",
            "down": f"{(self.bytes - size) / seconds / 1e6:,.1f}MB/s",
            "hosts": f"{self.visits:,}",
        }
        fields |= {name: f"{n:,}" for name, n in self.classes.most_common(SHOWN_CLASSES)}
        self.bar.fields.clear()
        links, self._links = self._links, 0
        self.bar.advance(links, **fields)
