"""What became of a link -> WARC 1.1 records (ISO 28500), each a gzip member of its own.

A page gives a response, its request and a metadata record; each redirect on the way a response and
its request; a link without a page the metadata record alone, which says why.
"""

import base64
import hashlib
import re
import uuid
import zlib
from http import HTTPStatus
from urllib.parse import urlsplit

from gptwo.web.fetch import Fetched
from gptwo.web.request import Answer, Headers

# What described the transfer, not the page: bodies are stored as they are after it.
HOP_BY_HOP = (b"transfer-encoding", b"connection", b"keep-alive", b"content-length")
SNIFFED_BYTES = 1024  # of a page that may name its charset
_FIELDS, _HTTP = "application/warc-fields", "application/http; msgtype="
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.I)
_BREAKS = re.compile(r"[\x00-\x1f\x7f]+")


def begin_segment(name: str, user_agent: str, date: str) -> bytes:
    """The warcinfo record a file begins with."""
    info = (
        f"software: gptwo\r\nhttp-header-user-agent: {user_agent}\r\n"
        "format: WARC File Format 1.1\r\n"
        "conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/"
        "warc-1.1/\r\nrobots: obey\r\n"
    )
    record, _ = _record(
        "warcinfo", info.encode(), _FIELDS, {"WARC-Date": date, "WARC-Filename": name}
    )
    return record


def page_records(page: Fetched, charset: str) -> bytes:
    """All records of one link, in the order in which they came about."""
    parts, last = [], ""
    for url, answer in page.hops:
        exchanged, last = _exchange(url, answer)
        parts.append(exchanged)
    if page.answer.outcome == "ok":
        exchanged, last = _exchange(page.final_url, page.answer)
        parts.append(exchanged)
    fields = {"WARC-Target-URI": page.final_url, "WARC-Date": page.answer.date}
    if last:
        fields["WARC-Concurrent-To"] = last
    record, _ = _record("metadata", _metadata(page, charset), _FIELDS, fields)
    return b"".join((*parts, record))


def charset_of(answer: Answer) -> str:
    """The charset that a page names, in its header or its first bytes; "" for none."""
    found = _CHARSET.search(answer.header(b"content-type").encode("latin-1"))
    if not found:
        start = answer.body[:SNIFFED_BYTES]
        if answer.body[:2] == b"\x1f\x8b":
            try:
                plain = zlib.decompressobj(zlib.MAX_WBITS | 16)
                start = plain.decompress(answer.body[: 4 * SNIFFED_BYTES], SNIFFED_BYTES)
            except zlib.error:
                return ""
        if start.startswith(b"\xef\xbb\xbf"):
            return "utf-8"
        found = _CHARSET.search(start)
    return found[1].decode("ascii").lower() if found else ""


def _metadata(page: Fetched, charset: str) -> bytes:
    answer = page.answer
    lines = [
        f"link: {page.url}",
        f"outcome: {answer.outcome}",
        f"fetchTimeMs: {round(answer.seconds * 1000)}",
        f"requests: {page.tries}",
    ]
    lines += [f"detail: {answer.detail}"] if answer.detail else []
    lines += [f"charset: {charset}"] if charset else []
    lines += [f"via: {hop.status} {url}" for url, hop in page.hops]
    return "".join(f"{_BREAKS.sub(' ', line)}\r\n" for line in lines).encode("utf-8", "replace")


def _exchange(url: str, answer: Answer) -> tuple[bytes, str]:
    """A response, then the request it answers; with the id of the response."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    kept = [header for header in answer.headers if header[0].lower() not in HOP_BY_HOP]
    kept.append((b"Content-Length", str(len(answer.body)).encode()))
    status = f"HTTP/{answer.version} {answer.status} {answer.reason or _phrase(answer.status)}"
    fields = {"WARC-Target-URI": url, "WARC-Date": answer.date}
    if answer.address:
        fields["WARC-IP-Address"] = answer.address
    digest = {"WARC-Payload-Digest": _digest(answer.body)}
    content = _head(_BREAKS.sub(" ", status), kept) + answer.body
    # What is compressed already is not worth a second time, its head alone is.
    packed = answer.header(b"content-encoding") not in ("", "identity") and len(content) > 4096
    response, name = _record(
        "response", content, _HTTP + "response", {**fields, **digest}, 0 if packed else 6
    )
    fields["WARC-Concurrent-To"] = name
    names = [(name.encode(), value.encode()) for name, value in answer.request.items()]
    sent = _head(f"GET {target} HTTP/1.1", names)
    request, _ = _record("request", sent, _HTTP + "request", fields)
    return response + request, name


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Unknown"


def _head(first: str, headers: Headers) -> bytes:
    lines = [first.encode("utf-8", "replace"), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _digest(content: bytes) -> str:
    return f"sha1:{base64.b32encode(hashlib.sha1(content).digest()).decode()}"


def _record(
    kind: str, content: bytes, type_: str, fields: dict[str, str], level: int = 6
) -> tuple[bytes, str]:
    """One record, compressed, and its id."""
    name = f"<urn:uuid:{uuid.uuid4()}>"
    lines = [
        "WARC/1.1",
        f"WARC-Type: {kind}",
        f"WARC-Record-ID: {name}",
        *(f"{key}: {value}" for key, value in fields.items()),
        f"WARC-Block-Digest: {_digest(content)}",
        f"Content-Type: {type_}",
        f"Content-Length: {len(content)}",
    ]
    plain = b"".join(("\r\n".join(lines).encode(), b"\r\n\r\n", content, b"\r\n\r\n"))
    # A window no wider than the record and a small table: zlib clears all of both each time.
    window = min(max((len(plain) - 1).bit_length(), 10), zlib.MAX_WBITS)
    pack = zlib.compressobj(level, zlib.DEFLATED, window | 16, max(window - 7, 3))
    return pack.compress(plain) + pack.flush(), name
