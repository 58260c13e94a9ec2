"""When nothing answers any more: are all these links dead, or is it our own network?

Links that nobody answered are not written down at once. They wait until something else answers, and
when nothing does, a host that answered before is asked again. Where that one is silent too, the
network is gone: the crawl stops, and the next run asks for these links anew.
"""

import asyncio
import time
from collections import Counter, deque

from gptwo.errors import NetworkError
from gptwo.web.archive import Archive
from gptwo.web.config import CrawlConfig
from gptwo.web.fetch import Fetched
from gptwo.web.request import Client, Wanted

FEW = 10  # links that end like this prove nothing
SUSPICIOUS = 50  # so many wait before a host is asked again
MOST_HELD = 2000  # then fetching waits
PROBES, PROBE_SECONDS = 3, 2.0


class Outages:
    """Holds links that nobody answered until it is known why."""

    def __init__(self, config: CrawlConfig, client: Client, archive: Archive) -> None:
        self.config, self.client, self.archive = config, client, archive
        self._held: deque[tuple[float, int, Fetched]] = deque()
        self._began = time.monotonic()
        self._calm = asyncio.Event()
        self._calm.set()

    async def add(self, link: int, page: Fetched) -> None:
        if not page.answer.unreached:
            return await self.archive.add(link, page)
        self._held.append((time.monotonic(), link, page))
        if len(self._held) >= MOST_HELD:
            self._calm.clear()
            await self._calm.wait()

    async def look(self) -> None:
        """Write down what was held before the last answer; ask when there was none for long."""
        await self._release(self.client.answered_at)
        silent = time.monotonic() - max(self.client.answered_at, self._began)
        if len(self._held) >= SUSPICIOUS and silent > self.config.page_seconds:
            await self._probe()

    async def end(self) -> None:
        """No more links will come: decide about those that are held."""
        await self._release(self.client.answered_at)
        if self._held and (self.client.answered_at or len(self._held) >= FEW):
            await self._probe()
        await self._release(time.monotonic())

    async def _release(self, until: float) -> None:
        while self._held and self._held[0][0] <= until:
            _, link, page = self._held.popleft()
            await self.archive.add(link, page)
        if len(self._held) < MOST_HELD:
            self._calm.set()

    async def _probe(self) -> None:
        """Raises NetworkError when a host that answered before does not any more."""
        known = self.client.answered_by
        for _ in range(PROBES):
            if known is None:
                break
            answer = await self.client.get(known.robots, Wanted(bytes=1, cut=True, more=False))
            if not answer.unreached:
                return await self._release(time.monotonic())
            await asyncio.sleep(PROBE_SECONDS)
        outcomes = Counter(page.answer.outcome for _, _, page in self._held)
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))
        _, _, page = self._held[0]
        raise NetworkError(
            f"not one of {len(self._held):,} links could be reached ({told}); {page.url}: "
            f"{page.answer.detail}",
            remedy="check the network and run the same command again: these will be asked anew",
        )
