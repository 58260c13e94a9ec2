"""Compressed files as streams, with a cap on what they may expand to."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

MAX_RATIO = 200  # prose compresses 3 to 10 times; what expands further ...
RATIO_FREE_BYTES = 64 << 20  # ... and beyond this size is a bomb, not a text

BUFFER_BYTES = 1 << 18

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    # A file may begin with a frame to skip, as those of pzstd and seekable files do.
    **{bytes([0x50 + i]) + b"\x2a\x4d\x18": "zstd" for i in range(16)},
}

ZSTD_WINDOW = 1 << 31  # Reddit's dumps use long windows
ZSTD_BYTES = 2048  # read at once; expand to 64 MB at the very worst
ZSTD_PIECE = 1 << 15  # bytes: the library's own size is given back to the system each time


class _ZstdFile(io.RawIOBase):
    """A zstd file as a stream of bytes that, unlike the library's own, notices a missing end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._file = raw
        self._library = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._library.decompressobj(ZSTD_PIECE)
        self._waiting = memoryview(b"")
        self._damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer) and (self._waiting or self._expand()):
            n = min(len(buffer) - filled, len(self._waiting))
            buffer[filled : filled + n] = self._waiting[:n]
            self._waiting = self._waiting[n:]
            filled += n
        if not filled and len(buffer) and self._damage:  # what comes before it was given first
            raise self._damage
        return filled

    def _expand(self) -> bool:
        """Take the next piece of the file; False at its end and at damage."""
        if self._damage:
            return False
        try:
            rest = self._frame.unused_data if self._frame.eof else b""
            data = rest or self._file.read(ZSTD_BYTES)
            if not data and not self._frame.eof:
                raise EOFError("the file ends inside a zstd frame")
            if data and self._frame.eof:  # files may hold several frames
                self._frame = self._library.decompressobj(ZSTD_PIECE)
            self._waiting = memoryview(self._frame.decompress(data) if data else b"")
        except (OSError, EOFError, zstandard.ZstdError) as error:
            self._damage = error
            return False
        return bool(data)


OPENERS: dict[str, Callable[[IO[bytes]], Any]] = {
    "gzip": lambda raw: gzip.GzipFile(fileobj=raw),
    "xz": lzma.LZMAFile,
    "zstd": _ZstdFile,
    "bzip2": bz2.BZ2File,
}

# What the decompressors raise on damaged or cut data.
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)


class BombError(OSError):
    """A stream that expands beyond all reason."""


class _Capped(io.RawIOBase):
    """A decompressing stream that refuses to expand without end."""

    def __init__(self, stream: Any, compressed: IO[bytes]) -> None:
        # readinto1: what comes before damage must not be lost with it
        self._read_into = getattr(stream, "readinto1", None) or stream.readinto
        self.compressed, self._bytes = compressed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._read_into(buffer)
        self._bytes += count
        if self._bytes > max(RATIO_FREE_BYTES, MAX_RATIO * self.compressed.tell()):
            raise BombError(f"expands more than {MAX_RATIO}-fold")
        return count


@contextmanager
def decompressed(path: Path) -> Iterator["io.BufferedReader[Any]"]:
    """Open a file for reading, whatever it is compressed with (told by its first bytes)."""
    with io.BufferedReader(io.FileIO(path), BUFFER_BYTES) as raw:
        head = raw.read(8)
        raw.seek(0)
        kind = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
        if not kind:
            yield raw
            return
        yield io.BufferedReader(_Capped(OPENERS[kind](raw), raw), BUFFER_BYTES)


def position(stream: IO[bytes]) -> int:
    """How far into the file itself a stream made by `decompressed` has come, in bytes."""
    raw = getattr(stream, "raw", None)
    return raw.compressed.tell() if isinstance(raw, _Capped) else stream.tell()
