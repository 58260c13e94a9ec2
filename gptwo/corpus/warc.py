"""Records of WARC and ARC files, damaged ones included.

A crawl is a pile of single pages, so one bad byte costs one page: after damage reading goes on at
the next place that looks like the start of a record.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType

from gptwo.streams import DAMAGE, decompressed

SEARCH_BYTES = 1 << 20
_RECORD = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]|(?<=\n)WARC/[01]\.\d+\r?\n")
_ARC_LINE = re.compile(rb"^(\S.*) (\S+) (\d{14})\d* (\S+) (-?\d+)\r?\n$")


@dataclass(frozen=True, kw_only=True)
class Response:
    """One page as it came over the wire, HTTP encodings undone.

    Attributes:
        problem: "" or why there is no payload ("damaged", "too-large", "http-404").
        text: true where the record holds extracted text already (a WET file).
    """

    url: str
    offset: int
    payload: bytes = b""
    content_type: str = ""
    charset: str = ""
    date: str = ""
    problem: str = ""
    detail: str = ""
    text: bool = False


def read_warc(path: Path, max_bytes: int) -> Iterator[Response]:
    """Every page of a WARC file, in order; requests, metadata and DNS records are passed over."""
    wanted = (WarcRecordType.response, WarcRecordType.resource, WarcRecordType.conversion)
    with path.open("rb") as handle:
        plain = handle.read(2) != b"\x1f\x8b"
        start: int | None = 0
        last, lost, ended = 0, False, False
        while start is not None:
            handle.seek(start)
            last = following = start
            try:
                for record in ArchiveIterator(handle, parse_http=False):
                    if ended and not lost:  # the library had stopped before the end
                        yield _damaged(start, "unreadable until here")
                    last, lost, ended = max(start, record.stream_pos), False, False
                    following = last + (record.content_length if plain else 0)
                    is_page = record.record_type in wanted
                    response = _response(record, max_bytes) if is_page else None
                    if response is not None:
                        yield response
                        lost = response.problem == "damaged"
                ended = True
            except OSError as damage:
                if not ended:  # after an end it may be the inside of the last record
                    if not lost:  # one run of damage counts once
                        yield _damaged(last, str(damage))
                    lost = True
                following = last
            start = _next_record(handle, following + 1)


def _next_record(handle: IO[bytes], start: int) -> int | None:
    """Where the next gzip member or plain WARC header begins, at or after `start`."""
    handle.seek(max(start - 1, 0))  # one byte back: a header follows a line end
    base, window = handle.tell(), handle.read(SEARCH_BYTES)
    while window:
        for match in _RECORD.finditer(window):
            if base + match.start() >= start:
                return base + match.start()
        more = handle.read(SEARCH_BYTES)
        if not more:
            return None
        keep = window[-16:]
        base, window = base + len(window) - len(keep), keep + more
    return None


def _damaged(offset: int, why: str, url: str = "") -> Response:
    return Response(url=url, offset=offset, problem="damaged", detail=f"byte {offset:,}: {why}")


def _response(record: WarcRecord, max_bytes: int) -> Response | None:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ")
    offset, length = record.stream_pos, record.content_length
    if not url.startswith(("http:", "https:")):
        return None  # DNS answers, file: resources
    if length > max_bytes:
        return Response(
            url=url, offset=offset, problem="too-large", detail=f"{length:,} bytes at {offset:,}"
        )
    block = record.reader.read()
    if len(block) < length:
        return _damaged(offset, f"cut after {len(block):,} of {length:,} bytes", url)
    date = (record.headers.get("WARC-Date") or "")[:10]
    if record.record_type != WarcRecordType.response:
        content_type = (record.headers.get("Content-Type") or "").split(";")[0].strip().lower()
        return Response(
            url=url,
            offset=offset,
            payload=block,
            content_type=content_type,
            date=date,
            text=record.record_type == WarcRecordType.conversion,
        )
    return parse_http(block, url, offset, date, max_bytes)


def parse_http(block: bytes, url: str, offset: int, date: str, max_bytes: int) -> Response:
    """Split an HTTP response into headers and payload, chunks joined and compression undone."""
    for decoding in ("all", "transfer", "none"):  # servers lie about encodings
        message = WarcRecord()
        message.set_bytes_content(block)
        message.is_http = True
        try:
            message.parse_http(auto_decode=decoding, quirks_mode=True)
            payload = message.reader.read(max_bytes + 1)
            break
        except OSError as error:
            failure = str(error)
    else:
        return _damaged(offset, failure, url)
    headers = message.http_headers
    status = headers.status_code if headers is not None else None
    if headers is None or status is None:
        return _damaged(offset, "no HTTP status line", url)
    problem = detail = ""
    if status != 200:
        problem, detail, payload = f"http-{status}", f"byte {offset:,}", b""
    elif len(payload) > max_bytes:
        problem, detail, payload = "too-large", f"more than {max_bytes:,} bytes decoded", b""
    return Response(
        url=url,
        offset=offset,
        payload=payload,
        content_type=(headers.get("Content-Type") or "").split(";")[0].strip().lower(),
        charset=message.http_charset or "",
        date=date,
        problem=problem,
        detail=detail,
    )


def read_arc(path: Path, max_bytes: int) -> Iterator[Response]:
    """Every page of an ARC file, the format before WARC. Offsets count decompressed bytes."""
    offset, lost = 0, False
    with decompressed(path) as handle:
        try:
            while line := handle.readline(1 << 16):
                start, offset = offset, offset + len(line)
                if not line.strip():
                    continue
                header = _ARC_LINE.match(line)
                length = int(header.group(5)) if header else -1
                if header is None or length < 0:
                    if not lost:
                        yield _damaged(start, "not an ARC record header")
                    lost = True
                    continue
                lost = False
                url = header.group(1).decode("utf-8", "replace")
                stamp = header.group(3).decode()
                date = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"
                block = handle.read(min(length, max_bytes))
                for skipped in range(len(block), length, SEARCH_BYTES):
                    handle.read(min(SEARCH_BYTES, length - skipped))
                offset += length
                if length > max_bytes:
                    detail = f"{length:,} bytes at {start:,}"
                    yield Response(url=url, offset=start, problem="too-large", detail=detail)
                elif len(block) < length:
                    why = f"cut after {len(block):,} of {length:,} bytes"
                    yield _damaged(start, why, url)
                elif url.startswith(("http:", "https:")):
                    yield parse_http(block, url, start, date, max_bytes)
        except DAMAGE as damage:
            yield _damaged(offset, str(damage))
