"""crawl: thousands of hosts at once, each with one request at a time, in bounded memory."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from web_site import QUICK, link_folder, outcomes

from gptwo.web.config import CrawlConfig
from gptwo.web.crawl import crawl

PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n<p>"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


class Busy(asyncio.Protocol):
    """Answers after a while, and counts what is open meanwhile."""

    seconds = 1.0
    open: ClassVar[Counter[str]] = Counter()
    connections = most = most_of_one = pages = most_connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        Busy.connections += 1
        Busy.most_connections = max(Busy.most_connections, Busy.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        Busy.connections -= 1

    def data_received(self, data: bytes) -> None:
        host = data.split(b"Host: ")[1].split(b"\r\n")[0].decode()
        Busy.open[host] += 1
        Busy.most = max(Busy.most, sum(Busy.open.values()))
        Busy.most_of_one = max(Busy.most_of_one, Busy.open[host])
        answer = MISSING if data.startswith(b"GET /robots.txt") else PAGE
        Busy.pages += answer is PAGE
        asyncio.get_running_loop().call_later(self.seconds, self.reply, host, answer)

    def reply(self, host: str, answer: bytes) -> None:
        Busy.open[host] -= 1
        if not Busy.open[host]:
            del Busy.open[host]
        self.transport.write(answer)  # type: ignore[attr-defined]


@contextmanager
def busy_server() -> Iterator[int]:
    """Its port, on every address of 127.0.0.0/8."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        server = await loop.create_server(Busy, "0.0.0.0", 0, backlog=4096)
        started.set_result((server.sockets[0].getsockname()[1], loop, stop))
        await stop.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    port, loop, stop = started.result(10)
    yield port
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


@pytest.mark.slow
def test_thousands_of_hosts_at_once(tmp_path: Path) -> None:
    hosts, pages = 2000, 1
    with busy_server() as port:
        urls = [f"http://h{i}.example:{port}/{j}" for i in range(hosts) for j in range(pages)]
        config = CrawlConfig(**{**QUICK, "page_seconds": 60.0}, concurrency=hosts)
        manifest = crawl(
            link_folder(tmp_path, urls),
            tmp_path / "pages",
            config,
            lookup=lambda name: [f"127.9.{int(name[1:-8]) >> 8}.{int(name[1:-8]) & 255}"],
        )
    assert manifest.counts["outcomes"] == {"ok": hosts * pages}
    assert len(outcomes(tmp_path / "pages")) == hosts * pages == Busy.pages
    assert Busy.most > hosts * 0.5, "requests that were open at one time"
    assert Busy.most_of_one == 1
    assert Busy.most_connections <= hosts * 1.1
