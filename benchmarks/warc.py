"""How fast archives are read: prints JSON.

usage: python benchmarks/warc.py [WARC...] [--records 5000] [--turns 7]

Each WARC named, and one that is generated: responses of about 6 kB of HTML in gzip members of their
own, a quarter of them in chunks and a quarter compressed by their server. Each is read in turns

- by `gptwo`: `read_warc`, as the corpus uses it: HTTP parsed, chunks joined, compression undone,
  what is damaged counted with its place;
- by `warcio`: `ArchiveIterator`, and `content_stream().read()` of every response, resource and
  conversion, which undoes the same; the iterator parses HTTP too;
- by `fastwarc`: `ArchiveIterator` with `parse_http` and `auto_decode="all"`, restricted to those
  records. It is a floor, not a peer: it passes over damage without a word.

Rates are megabytes of payload (10^6) and records per second of processor time, best of the turns.
"""

import argparse
import gzip
import json
import random
import string
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator

from gptwo.corpus.warc import read_warc
from gptwo.world import machine

LIMIT = 20_000_000
PAGES = ("response", "resource", "conversion")
PAGE_TYPES = WarcRecordType.response | WarcRecordType.resource | WarcRecordType.conversion
WORDS = 20_000


def by_gptwo(path: Path) -> tuple[int, int]:
    """Records and bytes of payload."""
    records = size = 0
    for response in read_warc(path, LIMIT):
        records, size = records + 1, size + len(response.payload)
    return records, size


def by_warcio(path: Path) -> tuple[int, int]:
    records = size = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type in PAGES:
                records, size = records + 1, size + len(record.content_stream().read())
    return records, size


def by_fastwarc(path: Path) -> tuple[int, int]:
    records = size = 0
    with path.open("rb") as file:
        for record in FastIterator(
            file, parse_http=True, auto_decode="all", record_types=PAGE_TYPES
        ):
            records, size = records + 1, size + len(record.reader.read(LIMIT))
    return records, size


READERS: dict[str, Callable[[Path], tuple[int, int]]] = {
    "gptwo": by_gptwo,
    "warcio": by_warcio,
    "fastwarc": by_fastwarc,
}


def generate(path: Path, records: int) -> Path:
    """A WARC file of made-up pages."""
    rng = random.Random(1)
    words = [
        "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(WORDS)
    ]
    weights = [1 / (rank + 3) for rank in range(WORDS)]
    texts = [" ".join(rng.choices(words, weights, k=90)) for _ in range(2_000)]
    with path.open("wb") as out:
        for number in range(records):
            body = "".join(f"<p>{text}</p>\n" for text in rng.choices(texts, k=10)).encode()
            body = b"<!doctype html><html><head><title>A page</title></head><body>" + body
            out.write(gzip.compress(record(number, body)))
    return path


def record(number: int, body: bytes) -> bytes:
    fields = ["HTTP/1.1 200 OK", "Server: none", "Content-Type: text/html; charset=utf-8"]
    if number % 4 == 1:
        fields.append("Content-Encoding: gzip")
        body = gzip.compress(body)
    if number % 4 == 2:
        fields.append("Transfer-Encoding: chunked")
        parts = [body[i : i + 1500] for i in range(0, len(body), 1500)]
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    http = "\r\n".join(fields).encode() + b"\r\n\r\n" + body
    head = (
        "WARC/1.1\r\nWARC-Type: response\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{number:012}>\r\n"
        f"WARC-Date: 2017-03-06T04:03:53Z\r\nWARC-Target-URI: http://example/{number}\r\n"
        "Content-Type: application/http; msgtype=response\r\n"
        f"Content-Length: {len(http)}\r\n\r\n"
    )
    return head.encode() + http + b"\r\n\r\n"


def measure(path: Path, turns: int) -> dict[str, Any]:
    """Rates of all readers on one file, in turns."""
    best, found = dict.fromkeys(READERS, float("inf")), {}
    for _ in range(turns):
        for name, reader in READERS.items():
            before = time.process_time()
            found[name] = reader(path)
            best[name] = min(best[name], time.process_time() - before)
    return {
        "bytes": path.stat().st_size,
        "records": {name: records for name, (records, _) in found.items()},
        "payload_bytes": {name: size for name, (_, size) in found.items()},
        "cpu_seconds": {name: round(seconds, 4) for name, seconds in best.items()},
        "payload_mb_per_second": {n: round(found[n][1] / best[n] / 1e6) for n in READERS},
        "records_per_second": {n: round(found[n][0] / best[n]) for n in READERS},
        "ratio_to_warcio": {n: round(best["warcio"] / best[n], 2) for n in READERS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--turns", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder) / f"generated-{asked.records}.warc.gz", asked.records)
        results = {path.name: measure(path, asked.turns) for path in (*asked.files, made)}
    found = {
        "command": " ".join(["python benchmarks/warc.py", *(Path(a).name for a in sys.argv[1:])]),
        "machine": machine(),
        "versions": {name: version(name) for name in ("warcio", "fastwarc", "isal")},
        "files": results,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
