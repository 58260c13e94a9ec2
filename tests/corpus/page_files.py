"""Pages, WARC files and crawl folders for the tests of this room."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def html(text: str, title: str = "A page") -> str:
    """A page with the text in paragraphs and the usual things around it."""
    paragraphs = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    return (
        f"<!doctype html><html><head><title>{title}</title></head><body>"
        "<nav><ul><li><a href='/'>Home</a></li><li><a href='/about'>About</a></li></ul></nav>"
        f"<main><article><h1>{title}</h1>{paragraphs}</article></main>"
        "<aside><a href='/ad'>Buy one, get one free</a></aside>"
        "<footer>Copyright, terms and conditions apply</footer></body></html>"
    )


def record(url: str, body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    """One WARC response record, not compressed."""
    http = f"HTTP/1.1 {status}\r\n{headers or 'Content-Type: text/html'}\r\n\r\n".encode() + body
    head = (
        "WARC/1.0\r\nWARC-Type: response\r\n"
        "WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-000000000000>\r\n"
        f"WARC-Date: 2017-03-06T04:03:53Z\r\nWARC-Target-URI: {url}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def write_warc(path: Path, pages: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(gzip.compress(record(*page), mtime=0) for page in pages))
    return path


def write_crawl(folder: Path, visits: list[tuple[str, str, int]], pages: dict[str, bytes]) -> Path:
    """A crawl's folder: (link, where it led, score) and what lay there."""
    write_warc(folder / "pages-00000.warc.gz", list(pages.items()))
    rows = [
        {
            "url": url,
            "key": url,
            "final_url": final_url,
            "outcome": "ok" if final_url else "http-404",
            "status": 200,
            "bytes": 1,
            "score": score,
            "date": "2017-01-01",
            "detail": "",
        }
        for url, final_url, score in visits
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "fetched.parquet")
    return folder


def rows_of(folder: Path, split: str) -> list[dict]:
    """All rows of one split of a corpus."""
    files = sorted((folder / split).glob("part-*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]
