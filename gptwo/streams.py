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

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}

ZSTD_WINDOW = 1 << 31  # Reddit's dumps use long windows
ZSTD_BYTES = 2048  # read at once; expand to 64 MB at the very worst


class _ZstdFile(io.RawIOBase):
    """A zstd file as a stream of bytes that, unlike the library's own, notices a missing end."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._file = raw
        self._library = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame = self._library.decompressobj()
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            data = (self._frame.unused_data if self._frame.eof else b"") or self._file.read(
                ZSTD_BYTES
            )
            if self._frame.eof and data:  # files may hold several frames
                self._frame = self._library.decompressobj()
            if not data:
                if not self._frame.eof:
                    raise EOFError("the file ends inside a zstd frame")
                return 0
            self._waiting = memoryview(self._frame.decompress(data))
        n = min(len(buffer), len(self._waiting))
        buffer[:n] = self._waiting[:n]
        self._waiting = self._waiting[n:]
        return n


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
        # read1: what comes before damage must not be lost with it
        self._read = getattr(stream, "read1", stream.read)
        self._compressed, self._bytes = compressed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        self._bytes += len(data)
        if self._bytes > max(RATIO_FREE_BYTES, MAX_RATIO * self._compressed.tell()):
            raise BombError(f"expands more than {MAX_RATIO}-fold")
        return len(data)


@contextmanager
def decompressed(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for reading, whatever it is compressed with (told by its first bytes)."""
    with path.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        kind = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
        if not kind:
            yield raw
            return
        yield io.BufferedReader(_Capped(OPENERS[kind](raw), raw), buffer_size=1 << 16)
