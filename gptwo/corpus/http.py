"""HTTP responses as archives hold them: headers, and the payload with its encodings undone."""

import re
from dataclasses import dataclass

import zstandard
from fastwarc.warc import WarcRecord
from isal import isal_zlib

from gptwo.corpus.archive import BROKEN

_STATUS = re.compile(rb"\s*HTTP/\S+[ \t]+(\d{3})\b")
_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\s\"';]+)", re.IGNORECASE)
_PLAIN_GZIP = b"\x1f\x8b\x08\0"  # no name, no comment: six more bytes and the data begins


class Cut(Exception):  # noqa: N818 - a finding, not a failure
    """A payload that ends before its end."""


@dataclass(kw_only=True, slots=True)
class Message:
    """A response. `content_type` is in small letters, without parameters."""

    status: int
    payload: bytes = b""
    content_type: str = ""
    charset: str = ""


def parse_message(block: bytes, max_bytes: int) -> Message | None:
    """The parts of a response; None where there is no status line.

    The payload of an answer other than 200 is left out; of one that is longer than `max_bytes` the
    first `max_bytes + 1` bytes are given. Servers lie about encodings: what is not encoded as they
    say is taken as it is. Raises `Cut` where the encoded payload breaks off.
    """
    status = _STATUS.match(block)
    if status is None:
        return None
    end, start = end_of_head(block, status.end())
    head = block[:end]
    small = head.lower()
    kind, _, parameters = field(head, small, b"content-type").decode("latin-1").partition(";")
    charset = _CHARSET.search(parameters) if parameters else None
    message = Message(
        status=int(status.group(1)),
        content_type=kind.strip().lower(),
        charset=charset.group(1).lower() if charset else "",
    )
    if message.status != 200:
        return message
    payload = block[start:]
    if b"-encoding:" in small:
        if b"chunked" in field(small, small, b"transfer-encoding"):
            payload = _join_chunks(payload)
        encoding = field(small, small, b"content-encoding")
        if encoding and payload:
            payload = _decoded(payload, encoding, max_bytes)
    message.payload = payload if len(payload) <= max_bytes else payload[: max_bytes + 1]
    return message


def end_of_head(data: bytes, at: int) -> tuple[int, int]:
    """Where header lines end and where what follows them begins; both the end if they do not."""
    end, length = data.find(b"\r\n\r\n", at), 4
    for sloppy in (b"\n\n", b"\n\r\n"):
        before = data.find(sloppy, at, end) if end >= 0 else data.find(sloppy, at)
        if before >= 0:
            end, length = before, len(sloppy)
    return (end, end + length) if end >= 0 else (len(data), len(data))


def field(head: bytes, small: bytes, name: bytes) -> bytes:
    """The value of a header field, b"" where there is none; `small` is `head` in small letters."""
    begin = small.find(b"\n" + name + b":")
    if begin < 0:
        return b""
    begin += len(name) + 2
    end = small.find(b"\n", begin)
    return (head[begin:end] if end >= 0 else head[begin:]).strip()


def _join_chunks(payload: bytes) -> bytes:
    """Chunks -> what they hold; something that is not in chunks as it is."""
    parts, at = [], 0
    while chunk := _CHUNK.match(payload, at):
        size = int(chunk.group(1), 16)
        if not size:
            return b"".join(parts)
        at = chunk.end() + size
        if at > len(payload):
            if not parts and not payload.startswith(b"\r\n", at):
                return payload  # words that look like a number
            raise Cut(f"ends inside a chunk of {size:,} bytes")
        parts.append(payload[chunk.end() : at])
        at += 2 if payload.startswith(b"\r\n", at) else payload.startswith(b"\n", at)
    if not parts:
        return payload
    raise Cut("ends between two chunks" if at >= len(payload) else "holds a broken chunk")


def _decoded(payload: bytes, encoding: bytes, max_bytes: int) -> bytes:
    if encoding in (b"gzip", b"x-gzip"):
        return _inflated(payload, 31, max_bytes) if payload[:2] == b"\x1f\x8b" else payload
    if encoding == b"deflate":
        if payload[0] & 15 == 8 and int.from_bytes(payload[:2], "big") % 31 == 0:
            return _inflated(payload, 15, max_bytes)  # zlib's header
        try:
            return _inflated(payload, -15, max_bytes)
        except Cut:
            return payload
    if encoding == b"zstd":
        try:
            with zstandard.ZstdDecompressor().stream_reader(payload) as reader:
                return reader.read(max_bytes + 1)
        except zstandard.ZstdError:
            return payload
    if encoding == b"br":
        return _unbrotlied(payload, max_bytes)
    return payload


def _inflated(payload: bytes, window: int, max_bytes: int) -> bytes:
    stream = isal_zlib.decompressobj(window)
    try:
        decoded = stream.decompress(payload, max_bytes + 1)
    except BROKEN as damage:
        raise Cut(f"is no {'gzip' if window > 15 else 'deflate'}: {damage}") from damage
    if stream.eof or len(decoded) > max_bytes:
        return decoded
    if payload.startswith(_PLAIN_GZIP):  # perhaps only its checksum is missing
        return _inflated(payload[len(_PLAIN_GZIP) + 6 :], -15, max_bytes)
    raise Cut("ends inside its compression")


def _unbrotlied(payload: bytes, max_bytes: int) -> bytes:
    message = WarcRecord()
    message.set_bytes_content(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + payload)
    message.is_http = True
    try:
        message.parse_http(auto_decode="content", quirks_mode=True)
        return message.reader.read(max_bytes + 1)
    except OSError:
        return payload
