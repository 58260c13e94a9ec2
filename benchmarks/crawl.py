"""gptwo crawl over loopback: pages a second beside the server's own limit and peers, and memory.

    python benchmarks/crawl.py [--hosts 2000] [--pages 10] [--turns 3] [--scrapy PYTHON]

A server in a process of its own answers on every address of 127.0.0.0/8, so each host has its own.
Contenders take turns on the same pages, each in a process of its own:

- `limit`: a client that only sends requests and counts bytes: what the server can do.
- `aiohttp`: the library that carries our requests, in a bare loop: no robots.txt, nothing is kept.
- `gptwo`: the whole command: robots.txt, turns of hosts, names, WARC, table.
- `scrapy`: with robots.txt and one request at a time for each host, its items counted and dropped;
  PYTHON is that of an environment where it is installed.

Rates are of pages by user and system time (of one core, whatever else the machine does) and by
wall time; memory is the peak of the process. JSON on stdout.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

WORDS = b"<p>Some words of a page that goes on for a while, as pages of prose do. "
BODY = b"<html><body><article>" + WORDS * 60 + b"</article></body></html>"
PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
AT_ONCE = 512  # hosts
SCRAPY = """
import sys, scrapy
from scrapy.crawler import CrawlerProcess
port, hosts, pages, at_once = map(int, sys.argv[1:])
class Pages(scrapy.Spider):
    name = "pages"
    seen = 0
    async def start(self):
        for page in range(pages):
            for i in range(hosts):
                yield scrapy.Request(f"http://127.1.{i >> 8}.{i & 255}:{port}/page/{page}")
    def parse(self, response):
        Pages.seen += len(response.body) > 0
process = CrawlerProcess({
    "ROBOTSTXT_OBEY": True, "LOG_LEVEL": "ERROR", "CONCURRENT_REQUESTS": at_once,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 1, "DOWNLOAD_DELAY": 0, "TELNETCONSOLE_ENABLED": False,
    "RETRY_ENABLED": False, "COOKIES_ENABLED": False, "AUTOTHROTTLE_ENABLED": False,
    "SCHEDULER_PRIORITY_QUEUE": "scrapy.pqueues.DownloaderAwarePriorityQueue",
})
process.crawl(Pages)
process.start()
assert Pages.seen == hosts * pages, Pages.seen
"""


def address(host: int) -> str:
    return f"127.1.{host >> 8}.{host & 255}"


# The server


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.waiting = transport, b""

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            missing = self.waiting.startswith(b"GET /robots.txt")
            self.waiting = self.waiting[end + 4 :]
            self.transport.write(MISSING if missing else PAGE)  # type: ignore[attr-defined]


async def serve(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, sock=listener, backlog=4096)
    await server.serve_forever()


# Contenders: (port, hosts, pages) -> nothing


class _Client(asyncio.Protocol):
    def __init__(self, pages: int) -> None:
        self.left, self.size = pages, 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.size = 0
        request = b"GET /page/%d HTTP/1.1\r\nHost: a\r\n\r\n" % self.left
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.size == len(PAGE):
            self.left -= 1
            if self.left:
                self.ask()
            else:
                self.transport.close()
                self.done.set_result(None)


async def _each_host(hosts: int, visit: Callable[[int], Awaitable[None]]) -> None:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(host: int) -> None:
        async with free:
            await visit(host)

    await asyncio.gather(*(one(host) for host in range(hosts)))


async def limit(port: int, hosts: int, pages: int) -> None:
    loop = asyncio.get_running_loop()

    async def visit(host: int) -> None:
        _, client = await loop.create_connection(lambda: _Client(pages), address(host), port)
        await client.done

    await _each_host(hosts, visit)


async def bare_aiohttp(port: int, hosts: int, pages: int) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

        async def visit(host: int) -> None:
            for page in range(pages):
                async with session.get(f"http://{address(host)}:{port}/page/{page}") as response:
                    assert len(await response.read()) == len(BODY)

        await _each_host(hosts, visit)


def gptwo(port: int, hosts: int, pages: int, folder: Path) -> None:
    from gptwo.web.config import CrawlConfig
    from gptwo.web.crawl import crawl

    config = CrawlConfig(allow_private=True, host_delay_seconds=0.0, concurrency=AT_ONCE)
    made = crawl(
        folder / "links",
        folder / "pages",
        config,
        lookup=lambda name: [address(int(name[1:].split(".")[0]))],
    )
    assert made.counts["outcomes"] == {"ok": hosts * pages}, made.counts


def write_links(folder: Path, port: int, hosts: int, pages: int) -> None:
    from gptwo.web.config import LinksConfig
    from gptwo.web.links import collect_links

    with (folder / "urls.txt").open("w") as out:
        for i in range(hosts):
            out.writelines(f"http://h{i}.example:{port}/page/{page}\n" for page in range(pages))
    collect_links([folder / "urls.txt"], folder / "links", LinksConfig())


# Turns


def take_turn(name: str, port: int, hosts: int, pages: int, scrapy: str) -> dict[str, float]:
    """One run in a process of its own: rates by CPU and wall time, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--turn", name, folder]
        if name == "scrapy":
            command = [scrapy, "-c", SCRAPY]
        else:
            command += ["--port"]
        if name == "gptwo":
            subprocess.run([*command[:2], "--turn", "links", folder, "--port", str(port),
                            str(hosts), str(pages)], check=True)  # fmt: skip
        numbers = [port, hosts, pages] + ([AT_ONCE] if name == "scrapy" else [])
        began = time.perf_counter()
        child = subprocess.Popen([*command, *map(str, numbers)])
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0, f"{name} failed"
    cpu = used.ru_utime + used.ru_stime
    return {
        "pages_per_cpu_second": hosts * pages / cpu,
        "pages_per_second": hosts * pages / seconds,
        "peak_mb": used.ru_maxrss / 1024,
    }


def run_turn(name: str, folder: Path, port: int, hosts: int, pages: int) -> None:
    if name == "links":
        write_links(folder, port, hosts, pages)
    elif name == "gptwo":
        gptwo(port, hosts, pages, folder)
    else:
        contender = {"limit": limit, "aiohttp": bare_aiohttp}[name]
        asyncio.run(contender(port, hosts, pages))


def compare(options: argparse.Namespace, port: int) -> dict[str, object]:
    names = ["limit", "aiohttp", "gptwo", *(["scrapy"] if options.scrapy else [])]
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(options.turns):
        for name in names:
            turn = take_turn(name, port, options.hosts, options.pages, options.scrapy)
            turns[name].append(turn)
            print(name, {key: round(value) for key, value in turn.items()}, file=sys.stderr)
    found = {
        name: {key: round(statistics.median(t[key] for t in each), 1) for key in each[0]}
        for name, each in turns.items()
    }
    ratios = {
        f"gptwo/{name}": round(
            statistics.median(
                ours["pages_per_cpu_second"] / theirs["pages_per_cpu_second"]
                for ours, theirs in zip(turns["gptwo"], turns[name], strict=True)
            ),
            2,
        )
        for name in names
        if name != "gptwo"
    }
    return {"medians": found, "ratios_by_cpu_time": ratios}


def memory(port: int, links: list[int]) -> dict[str, float]:
    """Peak memory of the command at several numbers of links, ten for each host."""
    peaks = {str(n): take_turn("gptwo", port, n // 10, 10, "")["peak_mb"] for n in links}
    return {key: round(value, 1) for key, value in peaks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--pages", type=int, default=10, help="of each host")
    parser.add_argument("--turns", type=int, default=3, help="0 for memory alone")
    parser.add_argument("--scrapy", default="", help="python of an environment with scrapy")
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--turn", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 16_384)), hard))
    if options.turn:
        return run_turn(options.turn[0], Path(options.turn[1]), *options.port)
    listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
    server = os.fork()
    if not server:
        asyncio.run(serve(listener))
        os._exit(0)
    port = listener.getsockname()[1]
    try:
        result = {
            "hosts": options.hosts,
            "pages_of_each": options.pages,
            "page_bytes": len(BODY),
            **(compare(options, port) if options.turns else {}),
            "peak_mb_by_links": memory(port, options.memory),
        }
    finally:
        os.kill(server, 9)
        os.waitpid(server, 0)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
