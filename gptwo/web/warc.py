"""Fetched pages -> a WARC 1.1 file (ISO 28500): request, response and metadata for each."""

import base64
import gzip
import hashlib
import io
import uuid
from http import HTTPStatus
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from fastwarc.warc import WarcRecord, WarcRecordType

from gptwo.artifacts import atomic_write
from gptwo.web.fetch import Fetched
from gptwo.web.request import Headers

# What described the transfer, not the page: bodies are stored as they are after it.
HOP_BY_HOP = (b"transfer-encoding", b"connection", b"keep-alive", b"content-length")


def write_segment(path: Path, pages: list[Fetched], user_agent: str) -> None:
    """Write one file, whole or not at all; each record is a gzip member of its own."""
    with atomic_write(path) as handle:
        info = f"software: gptwo\r\nuser-agent: {user_agent}\r\nformat: WARC File Format 1.1\r\n"
        _write(handle, WarcRecordType.warcinfo, info.encode(), "application/warc-fields", {})
        for page in pages:
            _write_page(handle, page)


def _write_page(handle: IO[bytes], page: Fetched) -> None:
    answer = page.answer
    parts = urlsplit(page.final_url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    request = _head(f"GET {target} HTTP/1.1", page.request_headers)
    kept = [header for header in answer.headers if header[0].lower() not in HOP_BY_HOP]
    kept.append((b"Content-Length", str(len(answer.body)).encode()))
    head = _head(f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", kept)
    http = "application/http; msgtype="
    fields = {"WARC-Target-URI": page.final_url, "WARC-Date": answer.date}
    hashed = base64.b32encode(hashlib.sha1(answer.body).digest()).decode()
    response = _write(
        handle,
        WarcRecordType.response,
        head + answer.body,
        http + "response",
        {**fields, "WARC-Payload-Digest": f"sha1:{hashed}"},
    )
    fields["WARC-Concurrent-To"] = response
    _write(handle, WarcRecordType.request, request, http + "request", fields)
    note = f"link: {page.url}\r\n".encode()
    _write(handle, WarcRecordType.metadata, note, "application/warc-fields", fields)


def _head(first: str, headers: Headers) -> bytes:
    lines = [first.encode("utf-8"), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _write(
    handle: IO[bytes], kind: WarcRecordType, content: bytes, type_: str, fields: dict[str, str]
) -> str:
    """Append one record; returns its id."""
    record = WarcRecord()
    record.init_headers(kind, f"uuid:{uuid.uuid4()}".encode())
    for name, value in fields.items():
        record.headers[name] = value
    record.headers["Content-Type"] = type_
    record.set_bytes_content(content)
    plain = io.BytesIO()
    record.write(plain, checksum_data=True)
    handle.write(gzip.compress(plain.getvalue(), compresslevel=6, mtime=0))
    return record.headers["WARC-Record-ID"]
