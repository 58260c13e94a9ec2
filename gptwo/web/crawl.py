"""Links -> WARC files: many hosts at once, each one politely, nothing fetched twice.

Work is committed in segments of some hundred links: a WARC file, then the note of what became of
each link. A segment without its note is thrown away and fetched again; one with it never is.
"""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import Manifest, Stage, atomic_write, digest, open_folder, stage
from gptwo.errors import NetworkError
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.urls import host_of
from gptwo.web.config import CrawlConfig
from gptwo.web.fetch import Fetched, Fetcher
from gptwo.web.warc import write_segment

FETCHED = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("final_url", pa.string()),
        ("outcome", pa.string()),
        ("status", pa.int32()),
        ("bytes", pa.int64()),
        ("score", pa.int32()),
        ("date", pa.string()),
        ("detail", pa.string()),
        ("sha256", pa.string()),
    ]
)

SEGMENT_BYTES = 256 << 20  # of pages that wait in memory to be committed
STOP_SECONDS = 0.2  # between looks at whether to stop

# When so many links or more end like this and none otherwise, the fault is on our side.
UNREACHED, MANY = {"connection", "timeout"}, 10

Row = dict[str, Any]


def crawl(
    links: Path,
    out: Path,
    config: CrawlConfig,
    reporter: Reporter = SILENT,
    *,
    connect_to: str = "",
) -> Manifest:
    """Fetch every link of the folder `links`; kind "pages".

    `connect_to` ("host:port") takes every connection, whatever the URL, as curl's --connect-to.
    The manifest's fingerprint is that of the content: it does not depend on the order of arrival.
    """
    source = open_folder(links, "links")
    inputs = {"links": source.fingerprint}
    with stage(out, kind="pages", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        table = pq.read_table(links / "links.parquet").to_pylist()
        known = _recover(made)
        waiting = [link for link in table if link["url"] not in known]
        with reporter.bar("crawl", len(table), "links") as bar:
            bar.advance(len(table) - len(waiting))
            asyncio.run(_Crawl(made, config, bar, reporter, connect_to).run(waiting))
        return _commit(made)


def _recover(made: Stage) -> set[str]:
    """Links already done; removes segments whose note was never written, and the reverse."""
    pages = {_number(path): path for path in made.folder.glob("pages-*.warc.gz")}
    notes = {_number(path): path for path in made.work.glob("fetched-*.parquet")}
    for number in pages.keys() ^ notes.keys():
        (pages.get(number) or notes[number]).unlink()
    known: set[str] = set()
    for number in pages.keys() & notes.keys():
        known.update(pq.read_table(notes[number], columns=["url"]).column("url").to_pylist())
    return known


def _number(path: Path) -> int:
    """7 for pages-00007.warc.gz and fetched-00007.parquet"""
    return int(path.name.split("-")[1].split(".")[0])


def _commit(made: Stage) -> Manifest:
    rows: list[Row] = []
    for path in sorted(made.work.glob("fetched-*.parquet")):
        rows += pq.read_table(path).to_pylist()
    rows.sort(key=lambda row: (row["key"], row["url"]))
    outcomes = Counter(row["outcome"] for row in rows)
    if len(rows) >= MANY and set(outcomes) <= UNREACHED:
        _forget(made)
        told = ", ".join(f"{name} {count:,}" for name, count in sorted(outcomes.items()))
        raise NetworkError(
            f"not one of {len(rows):,} links could be reached ({told}); {rows[0]['url']}: "
            f"{rows[0]['detail']}",
            remedy="check the network and run the same command again: all will be asked anew",
        )
    _write(made.folder / "fetched.parquet", rows)
    content = digest([[row[k] for k in ("url", "outcome", "final_url", "sha256")] for row in rows])
    counts = {
        "links": len(rows),
        "fetched": outcomes["ok"],
        "outcomes": dict(sorted(outcomes.items())),
        "bytes": sum(row["bytes"] for row in rows),
    }
    return made.commit(counts=counts, fingerprint=content)


def _forget(made: Stage) -> None:
    """Drop what was noted, so that the same command begins anew."""
    for path in (*made.folder.glob("pages-*.warc.gz"), *made.work.glob("fetched-*.parquet")):
        path.unlink()


def _write(path: Path, rows: list[Row]) -> None:
    with atomic_write(path) as handle:
        pq.write_table(pa.Table.from_pylist(rows, FETCHED), handle, compression="zstd")


class _Crawl:
    """One pass over the links that are left."""

    def __init__(
        self, made: Stage, config: CrawlConfig, bar: Bar, reporter: Reporter, connect_to: str
    ) -> None:
        self.made, self.config, self.bar, self.reporter = made, config, bar, reporter
        self.fetcher = Fetcher(config, connect_to)
        self.ready: list[tuple[Row, Fetched]] = []
        self.outcomes: Counter[str] = Counter()
        self.ready_bytes = 0
        numbers = map(_number, made.work.glob("fetched-*.parquet"))
        self.segment = max(numbers, default=-1) + 1

    async def run(self, waiting: list[Row]) -> None:
        """Visit hosts, `concurrency` at a time, the ones with most links first.

        When a stop is asked for, pages under way are given up: the next run asks for them again.
        """
        hosts: defaultdict[str, deque[Row]] = defaultdict(deque)
        for link in waiting:
            hosts[host_of(link["url"])].append(link)
        queues = iter(sorted(hosts.values(), key=len, reverse=True))
        workers = min(self.config.concurrency, len(hosts))
        # Names are resolved in threads; the loop has few, and a dead name server holds each long.
        names = ThreadPoolExecutor(max(workers, 1), thread_name_prefix="resolve")
        asyncio.get_running_loop().set_default_executor(names)
        visits = {asyncio.create_task(self._visit_hosts(queues)) for _ in range(workers)}
        try:
            while visits and not self.reporter.stop_requested:
                done, visits = await asyncio.wait(
                    visits, timeout=STOP_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for visit in done:
                    visit.result()
        finally:
            for visit in visits:
                visit.cancel()
            await asyncio.gather(*visits, return_exceptions=True)
            await self.fetcher.close()
        self._save()
        self.reporter.check()

    async def _visit_hosts(self, queues: Iterator[deque[Row]]) -> None:
        for queue in queues:
            while queue:
                link = queue.popleft()
                fetched = await self.fetcher.fetch(link["url"])
                self.ready.append((link, fetched))
                self.ready_bytes += len(fetched.answer.body)
                if fetched.answer.outcome != "ok":
                    self.outcomes[fetched.answer.outcome] += 1
                self.bar.advance(1, **{k: str(v) for k, v in self.outcomes.most_common(3)})
                full = len(self.ready) >= self.config.segment_links
                if full or self.ready_bytes >= SEGMENT_BYTES:
                    self._save()

    def _save(self) -> None:
        """Commit what has arrived as one segment."""
        if not self.ready:
            return
        ready, self.ready, self.ready_bytes = self.ready, [], 0
        name = f"pages-{self.segment:05d}.warc.gz"
        pages = [fetched for _, fetched in ready if fetched.answer.outcome == "ok"]
        write_segment(self.made.folder / name, pages, self.config.user_agent)
        rows = [_row(link, fetched) for link, fetched in ready]
        _write(self.made.work / f"fetched-{self.segment:05d}.parquet", rows)
        self.segment += 1


def _row(link: Row, fetched: Fetched) -> Row:
    answer = fetched.answer
    return {
        "url": link["url"],
        "key": link["key"],
        "final_url": fetched.final_url,
        "outcome": answer.outcome,
        "status": answer.status,
        "bytes": len(answer.body) if answer.outcome == "ok" else 0,
        "score": link["score"],
        "date": link["date"],
        "detail": answer.detail,
        "sha256": fetched.payload_hash,
    }
