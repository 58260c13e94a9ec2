"""Records of WARC and ARC files, damaged ones included.

A crawl is a pile of single pages, so one bad byte costs one page: after damage reading goes on at
the next place that looks like the start of a record.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwo.corpus.archive import HEADER_BYTES, Archive, Damaged
from gptwo.corpus.http import Cut, end_of_head, field, parse_message

_WARC = re.compile(rb"WARC/[01]\.\d+[ \t]*\r?\n")
_ARC = re.compile(
    rb"((?:https?|ftp|dns|whois|news|filedesc):[^\r\n]*) (\S+) (\d{14})\d* (\S+) (\d{1,15})\r?\n"
)
_PAGES = (b"response", b"resource", b"conversion")
_HTTP, _BLOCK, _CONVERSION = 0, 1, 3  # of what the kernel finds; 2 is a resource


@dataclass(kw_only=True, slots=True)
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
    """Every page of a WARC file, in order; requests, metadata and DNS records are passed over.

    Where records lie in gzip members of their own, a C kernel (`native/records.c`) reads as many
    as are in order; what is here reads all others, and everything where there is no kernel.
    """
    yield from _read(path, _WARC, _warc_record, max_bytes)


def read_arc(path: Path, max_bytes: int) -> Iterator[Response]:
    """Every page of an ARC file, the format before WARC."""
    yield from _read(path, _ARC, _arc_record, max_bytes)


def _read(
    path: Path,
    header: re.Pattern[bytes],
    record: Callable[[Archive, int], Response | None],
    max_bytes: int,
) -> Iterator[Response]:
    lost = False  # one run of damage counts once
    with Archive(path, header) as archive:
        while True:
            while header is _WARC and (pages := archive.whole_members(max_bytes)) is not None:
                for page in pages:
                    yield _page(page, max_bytes)
                lost = False
            try:
                if not archive.find_header():
                    return
                response = record(archive, max_bytes)
                lost = False
            except Damaged as damage:
                response = None if lost else _damaged(damage)
                lost = True
                archive.search_header()
            if response is not None:
                yield response


def _page(page: tuple[Any, ...], max_bytes: int) -> Response:
    """What the kernel found."""
    kind, offset, url, date, status, content_type, charset, payload = page
    if kind == _BLOCK:
        return _response(payload, url, (offset, 0), date, max_bytes)
    response = Response(
        url=url,
        offset=offset,
        payload=payload,
        content_type=content_type,
        charset=charset,
        date=date,
    )
    if kind == _HTTP and status != 200:
        response.problem, response.detail = f"http-{status}", f"byte {offset:,}"
    response.text = kind == _CONVERSION
    return response


def _damaged(damage: Damaged) -> Response:
    return Response(url=damage.url, offset=damage.offset, problem="damaged", detail=str(damage))


def _warc_record(archive: Archive, max_bytes: int) -> Response | None:
    """The record that begins here, None where it is no page; moves behind it."""
    while True:
        end, begin = end_of_head(archive.data, archive.at)
        if end < len(archive.data):
            break
        if len(archive.data) - archive.at > HEADER_BYTES or not archive.fill():
            raise Damaged(*archive.position(), "a record header without an end")
    place = archive.position()
    head = archive.data[archive.at : end]
    small = head.lower()
    length = field(head, small, b"content-length")
    if not length.isdigit() or len(length) > 15:
        raise Damaged(*place, "a record header without a length")
    archive.at = begin
    url = field(head, small, b"warc-target-uri").strip(b"<> ").decode("utf-8", "replace")
    kind = field(small, small, b"warc-type")
    wanted = kind in _PAGES and url.startswith(("http:", "https:"))  # no dns:, no file:
    block = _block(archive, place, int(length), url, max_bytes if wanted else -1)
    if not wanted:
        return None
    if isinstance(block, Response):
        return block
    date = field(head, small, b"warc-date")[:10].decode("latin-1")
    if kind == b"response":
        return _response(block, url, place, date, max_bytes)
    content_type = field(small, small, b"content-type").split(b";")[0].strip().decode("latin-1")
    return Response(
        url=url,
        offset=place[0],
        payload=block,
        content_type=content_type,
        date=date,
        text=kind == b"conversion",
    )


def _arc_record(archive: Archive, max_bytes: int) -> Response | None:
    header = archive.header.match(archive.data, archive.at)
    assert header is not None
    place = archive.position()
    archive.at = header.end()
    url = header.group(1).decode("utf-8", "replace")
    wanted = url.startswith(("http:", "https:"))
    length = int(header.group(5))
    block = _block(archive, place, length, url, max_bytes if wanted else -1)
    if not wanted:
        return None
    if isinstance(block, Response):
        return block
    stamp = header.group(3).decode()
    date = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"
    return _response(block, url, place, date, max_bytes)


def _block(
    archive: Archive, place: tuple[int, int], length: int, url: str, max_bytes: int
) -> bytes | Response:
    """The block of a record, or what there is to say in its place; b"" for a `max_bytes` of -1."""
    block, size = archive.take(length, keep=length <= max_bytes)
    if size < length and not _is_whole(block):
        raise Damaged(*place, f"cut after {size:,} of {length:,} bytes", url)
    if length > max_bytes >= 0:
        detail = f"{length:,} bytes at {place[0]:,}"
        return Response(url=url, offset=place[0], problem="too-large", detail=detail)
    return block


def _is_whole(block: bytes) -> bool:
    """Whether a page has the length its server gave, whatever the archive says."""
    end, begin = end_of_head(block, 0)
    length = field(block[:end], block[:end].lower(), b"content-length")
    return length.isdigit() and len(length) < 16 and int(length) <= len(block) - begin


def _response(
    block: bytes, url: str, place: tuple[int, int], date: str, max_bytes: int
) -> Response:
    try:
        message = parse_message(block, max_bytes)
    except Cut as cut:
        return _damaged(Damaged(*place, f"the payload {cut}", url))
    if message is None:
        return _damaged(Damaged(*place, "no HTTP status line", url))
    problem = detail = ""
    payload = message.payload
    if message.status != 200:
        problem, detail = f"http-{message.status}", f"byte {place[0]:,}"
    elif len(payload) > max_bytes:
        problem, detail, payload = "too-large", f"more than {max_bytes:,} bytes decoded", b""
    return Response(
        url=url,
        offset=place[0],
        payload=payload,
        content_type=message.content_type,
        charset=message.charset,
        date=date,
        problem=problem,
        detail=detail,
    )
