"""The bytes of a WARC or ARC file, decompressed, with where they came from.

The records of a compressed archive should be gzip members of their own; some archives are one long
member, or are cut into members anywhere. `Archive` is a window that moves over the decompressed
bytes of all of them. It never reaches over the place where a member begins with a record header,
so a record that is too short does not swallow the next one.
"""

import io
import re
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from isal import igzip_lib, isal_zlib

from gptwo.streams import DAMAGE, MAX_RATIO, RATIO_FREE_BYTES, decompressed

PIECE_BYTES = 1 << 18  # of the file, read at once
AHEAD_BYTES = 1 << 17  # at least held of it for the kernel, which takes whole members
MAX_VAIN = 8  # then the archive is one of another build
FIRST_FEED_BYTES = 1 << 14  # of a member: few are longer ...
FEED_BYTES = 1 << 16  # ... and those are inflated by pieces
HEADER_BYTES = 1 << 16  # more is no header
BROKEN: Any = igzip_lib.IsalError  # which isal's own types take for an instance
_MAGIC = b"\x1f\x8b"
_MEMBER = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_LINE_ENDS = re.compile(rb"[\r\n]*")


class Damaged(Exception):  # noqa: N818 - a finding, not a failure
    """Something that cannot be read: `byte 1,024: why`.

    `offset` is that of its gzip member; `url` is known where only the end of a record is missing.
    """

    def __init__(self, offset: int, inside: int, why: str, url: str = "") -> None:
        where = f"byte {offset:,}" + (f" + {inside:,} decompressed" if inside else "")
        super().__init__(f"{where}: {why}")
        self.offset, self.url = offset, url


def _kernel() -> Any:
    try:
        from gptwo.native import _records  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _records


class Archive:
    """A window `data[at:]` over the bytes of an archive whose records begin with `header`."""

    def __init__(self, path: Path, header: re.Pattern[bytes]) -> None:
        self.header = header
        self._search = re.compile(rb"(?<=\n)" + header.pattern)
        self.data, self.at = b"", 0
        self._begin = self._passed = 0  # the member where the window began, bytes of it gone by
        self._held: tuple[bytes, int] | None = None  # a piece that begins with a header
        self._closing = ExitStack()
        raw = self._closing.enter_context(path.open("rb"))
        self._gzip = raw.read(2) == _MAGIC or path.suffix == ".gz"  # whatever has hit its begin
        raw.seek(0)
        self._file: IO[bytes] = (
            raw if self._gzip else self._closing.enter_context(decompressed(path))
        )
        self._read, self._raw, self._next = 0, b"", 0  # offset of `_raw`, place in it
        self._member: Any = None
        self._start = self._inflated = self._read_twice = 0
        self._vain = 0  # calls of the kernel, the latest ones, that found nothing

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def position(self) -> tuple[int, int]:
        """Where the window begins: the offset of a member in the file, and bytes inside it."""
        inside = self._passed + self.at
        return (self._begin, inside) if self._gzip else (self._begin + inside, 0)

    def fill(self) -> bool:
        """Make the window longer; False where the file ends or a member begins with a header."""
        piece = self._piece()
        if piece is None:
            return False
        if self._begin < 0:
            self._begin = self._start
        self._passed += self.at
        self.data, self.at = self.data[self.at :] + piece, 0
        return True

    def take(self, length: int, *, keep: bool) -> tuple[bytes, int]:
        """Move on by `length` bytes, or as many as there are; those bytes, and how many."""
        end = self.at + length
        if end <= len(self.data):
            block, self.at = self.data[self.at : end] if keep else b"", end
            return block, length
        parts = [self.data[self.at :]]
        size = len(parts[0])
        self._passed += len(self.data)
        self.data, self.at = b"", 0
        while size < length and (piece := self._piece()) is not None:
            rest = length - size
            if len(piece) > rest:
                self.data, self.at = piece, rest
                piece = piece[:rest]
            else:
                self._passed += len(piece)
            size += len(piece)
            if keep:
                parts.append(piece)
        return b"".join(parts) if keep else b"", size

    def whole_members(self, max_bytes: int) -> list[tuple[Any, ...]] | None:
        """The pages of WARC records that fill the next members, by the kernel's quick way.

        None where it has none to give: the window holds something still, there is no kernel, or the
        next member is not whole, in order, and of one record. Afterwards the window is at the end
        of the last of them, as if it had passed over each.
        """
        kernel = _kernel() if self._gzip and self._vain < MAX_VAIN else None
        if kernel is None or self._member is not None or self._held is not None:
            return None
        if _LINE_ENDS.match(self.data, self.at).end() < len(self.data):  # type: ignore[union-attr]
            return None
        if len(self._raw) - self._next < AHEAD_BYTES:
            self._read_on()
        read = kernel.read(self._raw, self._next, self._read, max_bytes, isal_zlib.crc32)
        behind, last, size, pages = read
        self._vain = self._vain + 1 if last < 0 else 0
        if last < 0:
            return None
        self._next = behind
        self._begin = self._start = self._read + last
        self.data, self.at, self._passed = b"", 0, size
        return pages

    def find_header(self) -> bool:
        """Move on to the next record, which must be here; False when the file is over."""
        while True:
            self.at = _LINE_ENDS.match(self.data, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.data):
                if self.header.match(self.data, self.at):
                    return True
                if len(self.data) - self.at < HEADER_BYTES and self.fill():
                    continue
                raise Damaged(*self.position(), "no record begins here")
            if not self.fill() and not self._begin_anew():
                return False

    def search_header(self) -> None:
        """Move on to the next place that looks like the begin of a record, or to the end."""
        self.at = min(self.at + 1, len(self.data))
        while True:
            try:
                if found := self._search.search(self.data, self.at):
                    self.at = found.start()
                    return
                self.at = max(self.at, len(self.data) - HEADER_BYTES)
                if not self.fill():
                    self.at = len(self.data)
                    return
            except Damaged:  # one run of damage counts once
                continue

    def _begin_anew(self) -> bool:
        """Put the window where the next member begins; False at the end of the file."""
        held, self._held = self._held or self._next_piece(), None
        if held is None:
            return False
        self.data, self._begin = held
        self.at = self._passed = 0
        return True

    def _piece(self) -> bytes | None:
        """The next bytes; None at the end, and before a member that begins with a header."""
        if self._held is None:
            self._held = self._next_piece()
        if self._held is None:
            return None
        piece, start = self._held
        if start >= 0 and self.header.match(piece):
            return None
        self._held = None
        return piece

    def _next_piece(self) -> tuple[bytes, int] | None:
        """Some bytes, and the offset of the member that begins with them or -1; None at the end.

        Raises `Damaged` where nothing can be read, and goes on behind it the next time.
        """
        if not self._gzip:
            begin, self._start = (0, 1) if not self._start else (-1, 1)
            try:
                piece = self._file.read(PIECE_BYTES)
            except DAMAGE as damage:
                raise self._lose(str(damage)) from damage
            return (piece, begin) if piece else None
        begin = -1
        if self._member is None:
            if not self._open_member():
                return None
            begin = self._start
        piece = b""
        while not piece and self._member is not None:
            piece = self._inflate(begin >= 0)
        return piece, begin

    def _open_member(self) -> bool:
        """Begin a gzip member; False at the end of the file."""
        while len(self._raw) - self._next < len(_MAGIC) or not self._raw[self._next]:
            if self._next < len(self._raw):  # zeros fill the last block of a tape
                self._next = len(self._raw) - len(self._raw[self._next :].lstrip(b"\0"))
            if len(self._raw) - self._next < len(_MAGIC) and not self._read_on():
                break
        if len(self._raw) - self._next < FIRST_FEED_BYTES:  # so that its first piece is no scrap
            self._read_on()
        self._start, self._inflated = self._read + self._next, 0
        if self._next == len(self._raw):
            return False
        if not self._raw.startswith(_MAGIC, self._next):
            raise self._lose("no gzip member begins here")
        self._member = isal_zlib.decompressobj(31)
        return True

    def _inflate(self, first: bool) -> bytes:
        """The next bytes of the member; ends it where it ends."""
        if self._next == len(self._raw) and not self._read_on():
            raise self._lose("the file ends inside a gzip member")
        feed = self._raw[self._next : self._next + (FIRST_FEED_BYTES if first else FEED_BYTES)]
        try:
            piece = self._member.decompress(feed)
        except BROKEN as damage:
            raise self._lose(str(damage)) from damage
        self._next += len(feed)
        self._inflated += len(piece)
        taken = self._read + self._next - self._start
        if self._inflated > max(RATIO_FREE_BYTES, MAX_RATIO * taken):
            raise self._lose(f"expands more than {MAX_RATIO}-fold")
        if self._member.eof:
            self._next -= len(self._member.unused_data)
            self._member = None
        return piece

    def _read_on(self) -> bool:
        self._read += self._next
        more = self._file.read(PIECE_BYTES)
        self._raw, self._next = self._raw[self._next :] + more, 0
        return bool(more)

    def _lose(self, why: str) -> Damaged:
        """Drop the window, and go to the next place that looks like the begin of a member."""
        damage = Damaged(self._start if self._gzip else self.position()[0], 0, why)
        self.data, self.at, self._passed, self._begin = b"", 0, 0, -1
        self._held, self._member = None, None
        if not self._gzip:  # what comes after it cannot be found
            self._file = io.BytesIO()
            return damage
        # The next one may begin anywhere behind the begin of what failed. But no more is read twice
        # than once: a file of nothing but beginnings would be read for ever.
        here = self._read + self._next
        twice = min(here - self._start - 1, max(here + PIECE_BYTES - self._read_twice, 0))
        self._read_twice += max(twice, 0)
        again = here - twice
        if again < self._read:
            self._file.seek(again)
            self._read, self._raw = again, b""
        self._next = again - self._read
        if self._next > len(self._raw):
            self._read_on()
        while not (found := _MEMBER.search(self._raw, self._next)):
            self._next = max(self._next, len(self._raw) - 3)
            if not self._read_on():
                self._next = len(self._raw)
                return damage
        self._next = found.start()
        return damage
