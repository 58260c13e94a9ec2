"""Links -> WARC files: thousands of hosts at once, each one politely, nothing fetched twice.

Links wait in a file, host by host. As many visitors as the setting says take one host after the
other and ask for its links in turn; what became of each is written down at once.
"""

import asyncio
import math
import resource
import sys
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from gptwo.artifacts import Manifest, Stage, open_folder, stage
from gptwo.errors import ResourceError
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.web.archive import Archive, Note, recover
from gptwo.web.config import CrawlConfig
from gptwo.web.fetch import Fetcher
from gptwo.web.fetched import write_fetched
from gptwo.web.frontier import Frontier, HostQueue
from gptwo.web.names import Lookup
from gptwo.web.outage import Outages
from gptwo.web.rates import Rates
from gptwo.web.request import Client
from gptwo.web.rot import rot_table

STOP_SECONDS = 0.2  # between looks at whether to stop
SWITCH_SECONDS = 0.0002
SPARE_FILES = 128  # open ones besides connections


def crawl(
    links: Path,
    out: Path,
    config: CrawlConfig,
    reporter: Reporter = SILENT,
    *,
    connect_to: str = "",
    lookup: Lookup | None = None,
) -> Manifest:
    """Fetch every link of the folder `links`; kind "pages".

    `connect_to` ("host:port") takes every connection, whatever the URL, as curl's --connect-to;
    `lookup` stands in for the system's resolver of names.
    The manifest's fingerprint is that of the content: it does not depend on the order of arrival.
    """
    source = open_folder(links, "links")
    inputs = {"links": source.fingerprint}
    with stage(out, kind="pages", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        _allow_files(config.concurrency)
        frontier = Frontier(links, made.work)
        with reporter.bar("crawl", len(frontier), "links") as bar, _short_switches():
            work = _Crawl(made, config, frontier, bar, reporter)
            asyncio.run(work.run(connect_to, lookup))
        frontier.close()
        return _commit(made, links, reporter)


@contextmanager
def _short_switches() -> Iterator[None]:
    """Let the thread that writes pages not hold up the loop at each of its system calls."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _allow_files(connections: int) -> None:
    """Raise the limit of open files as far as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted, needed = 4 * connections + SPARE_FILES, connections + SPARE_FILES
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != unlimited and soft < needed:
        raise ResourceError(
            f"{connections:,} hosts at once need {needed:,} open files, the limit is {soft:,}",
            remedy=f"set concurrency to {max(soft - SPARE_FILES, 1):,}, or raise the limit",
        )


def _commit(made: Stage, links: Path, reporter: Reporter) -> Manifest:
    counts, years, content = write_fetched(made, links)
    for line in rot_table(years):
        reporter.say(line)
    total: dict[str, int] = {}
    for classes in years.values():
        for name, n in classes.items():
            total[name] = total.get(name, 0) + n
    counts["link_rot"] = dict(sorted(total.items(), key=lambda pair: -pair[1]))
    return made.commit(counts=counts, details={"link_rot_by_year": years}, fingerprint=content)


class _Crawl:
    """One pass over the links that are left."""

    def __init__(
        self, made: Stage, config: CrawlConfig, frontier: Frontier, bar: Bar, reporter: Reporter
    ) -> None:
        self.made, self.config, self.frontier, self.reporter = made, config, frontier, reporter
        self.asked = self.bytes = 0
        self.rates = Rates(bar)
        if config.host_bytes:
            frontier.keep_sizes()
        self.segment = recover(made, self._recall)

    def _recall(self, note: Note) -> None:
        """A link that an earlier run had done."""
        self.frontier.note(note["link"], note["bytes"])
        self.asked += 1
        self.bytes += note["bytes"]
        self.rates.recall(note["outcome"], note["place"])

    async def run(self, connect_to: str, lookup: Lookup | None) -> None:
        """Visit hosts until all is done, a budget is used up or a stop is asked for.

        Then pages under way are given up: the next run asks for them again.
        """
        async with Client(self.config, connect_to, lookup) as client:
            self.fetcher = Fetcher(self.config, client)
            archive = Archive(self.made, self.config, self.segment)
            self.outages = Outages(self.config, client, archive)
            hosts = self.frontier.hosts(self.config.host_pages)
            visits = [
                asyncio.create_task(self._visit_hosts(hosts))
                for _ in range(self.config.concurrency)
            ]
            writing = asyncio.create_task(archive.run())
            try:
                if await self._watch(asyncio.gather(*visits), writing):
                    await self.outages.end()
            finally:
                for visit in visits:
                    visit.cancel()
                await asyncio.gather(*visits, return_exceptions=True)
                archive.close()
                await writing
                self.rates.show()
        self.reporter.check()

    async def _watch(self, visits: asyncio.Future, writing: asyncio.Future) -> bool:
        """Look on; whether all that was to be visited is."""
        deadline = time.monotonic() + (self.config.total_seconds or math.inf)
        while not (visits.done() or writing.done() or self.reporter.stop_requested):
            await asyncio.wait({visits, writing}, timeout=STOP_SECONDS, return_when=FIRST_COMPLETED)
            await self.outages.look()
            self.rates.show()
            if time.monotonic() > deadline:
                return not visits.cancel()
        if visits.done():
            visits.result()
        return visits.done()

    async def _visit_hosts(self, hosts: Iterator[HostQueue]) -> None:
        for queue in hosts:
            self.rates.visits += 1
            left, size = len(queue), queue.done_bytes
            for link in queue:
                left -= 1
                if self._spent() or size >= (self.config.host_bytes or math.inf):
                    break
                self.asked += 1
                page = await self.fetcher.fetch(self.frontier.url(link), more=left > 0)
                size += len(page.answer.body)
                self.bytes += len(page.answer.body)
                self.rates.add(page)
                await self.outages.add(link, page)
            self.rates.visits -= 1

    def _spent(self) -> bool:
        """Whether a budget of the whole crawl is used up."""
        config = self.config
        return self.asked >= (config.total_pages or math.inf) or self.bytes >= (
            config.total_bytes or math.inf
        )
