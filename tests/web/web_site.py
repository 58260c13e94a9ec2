"""A small web on loopback that misbehaves on request, and counts what it is asked."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from warcio.archiveiterator import ArchiveIterator

from gptwo.artifacts import Manifest
from gptwo.progress import SILENT, Reporter
from gptwo.web.config import CrawlConfig, LinksConfig
from gptwo.web.crawl import crawl
from gptwo.web.links import collect_links
from gptwo.web.names import Lookup

Reply = bytes | Callable[[socket.socket], None]

QUICK = {
    "allow_private": True,
    "host_delay_seconds": 0.0,
    "retry_seconds": 0.01,
    "max_delay_seconds": 0.3,
    "page_seconds": 5.0,
    "retries": 1,
}


def ok(
    body: str | bytes = "<p>page", type_: str = "text/html; charset=utf-8", **more: str
) -> bytes:
    return reply(200, body, content_type=type_, **more)


def reply(status: int, body: str | bytes = "", **headers: str) -> bytes:
    """A whole response; header names are written with underscores."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Word", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


def moved(location: str, status: int = 302) -> bytes:
    return reply(status, "", location=location)


def robots(text: str) -> bytes:
    return ok(text, "text/plain")


@dataclass(frozen=True)
class Hit:
    """One request that arrived."""

    url: str
    headers: dict[str, str]
    began: float
    ended: float = 0.0


@dataclass
class Site:
    """`pages["a.example/path"]` is a reply, or a list of replies to give one after the other."""

    pages: dict[str, Any] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    connections: int = 0
    at_once: Counter[str] = field(default_factory=Counter)  # most requests at one time, by host
    hosts_at_once: int = 0
    delay_seconds: float = 0.0  # that every page takes
    address: str = ""
    _open: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def urls(self, *, robots: bool = False) -> list[str]:
        """What was asked for, in order; without robots.txt unless wanted."""
        return [hit.url for hit in self.hits if robots or not hit.url.endswith("/robots.txt")]

    def serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while line := stream.readline():
                began = time.monotonic()
                headers = {}
                while (head := stream.readline().decode("latin-1")).strip():
                    name, _, value = head.partition(":")
                    headers[name.lower()] = value.strip()
                host = headers["host"]
                url = host + line.decode().split(" ")[1]
                with self._lock:
                    self._open[host] += 1
                    self.at_once[host] = max(self.at_once[host], self._open[host])
                    self.hosts_at_once = max(
                        self.hosts_at_once, sum(n > 0 for n in self._open.values())
                    )
                    answer = self.pages.get(url, reply(404))
                    if isinstance(answer, list):
                        answer = answer.pop(0) if len(answer) > 1 else answer[0]
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                with self._lock:
                    self._open[host] -= 1
                    self.hits.append(Hit(url, headers, began, time.monotonic()))
                if callable(answer):
                    answer(connection)
                    return
                connection.sendall(answer)


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        site.address = f"127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                site.connections += 1
                threading.Thread(target=site.serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield site
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def send_then_close(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def hang(connection: socket.socket) -> None:
    """Never answer; ends when the client goes away."""
    connection.recv(1)


def endless(connection: socket.socket) -> None:
    """A body without end."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
    while True:
        connection.sendall(b"<p>more" * 10_000)


def link_folder(folder: Path, urls: list[str], **config: Any) -> Path:
    """A links folder made by the room itself."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "urls.txt").write_text("\n".join(urls) + "\n")
    collect_links([folder / "urls.txt"], folder / "links", LinksConfig(**config))
    return folder / "links"


def run_crawl(
    site: Site,
    tmp_path: Path,
    urls: list[str],
    reporter: Reporter = SILENT,
    lookup: Lookup | None = None,
    **config: Any,
) -> Manifest:
    """Crawl `urls` over the site into tmp_path/pages."""
    links = tmp_path / "links"
    if not links.exists():
        link_folder(tmp_path, urls)
    return crawl(
        links,
        tmp_path / "pages",
        CrawlConfig(**{**QUICK, **config}),
        reporter,
        connect_to=site.address,
        lookup=lookup,
    )


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """url -> its row in fetched.parquet."""
    return {row["url"]: row for row in pq.read_table(folder / "fetched.parquet").to_pylist()}


def outcomes(folder: Path) -> dict[str, str]:
    return {url: row["outcome"] for url, row in rows(folder).items()}


@dataclass(frozen=True)
class Record:
    kind: str
    url: str
    headers: dict[str, str]
    http: dict[str, str]
    body: bytes
    status: str = ""  # of a response


def records(folder: Path) -> list[Record]:
    """Every WARC record of a crawl as warcio reads it, digests checked."""
    found = []
    for path in sorted(folder.glob("pages-*.warc.gz")):
        with path.open("rb") as handle:
            for record in ArchiveIterator(handle, check_digests="raise"):
                http = record.http_headers.headers if record.http_headers else []
                found.append(
                    Record(
                        record.rec_type,
                        record.rec_headers.get_header("WARC-Target-URI") or "",
                        dict(record.rec_headers.headers),
                        {name.lower(): value for name, value in http},
                        record.raw_stream.read(),
                        record.http_headers.get_statuscode() if record.http_headers else "",
                    )
                )
    return found


def page_responses(folder: Path) -> list[Record]:
    """The responses of a crawl that are pages, not redirects."""
    return [r for r in records(folder) if r.kind == "response" and r.status == "200"]


PAGE = "http://a.example/page"


def outcome_of(site: Site, tmp_path: Path, url: str = PAGE, **config: object) -> str:
    run_crawl(site, tmp_path, [url], **config)
    return outcomes(tmp_path / "pages")[url]
