"""TensorFlow's checkpoint files, read without TensorFlow.

PREFIX.index is a table of sorted keys in blocks, each followed by its kind and checksum; a value
tells a tensor's type, shape, place and checksum. PREFIX.data-00000-of-00001 holds the numbers.
Every checksum is verified, so a flipped bit is an error and not a slightly different model.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from gptwo.errors import ModelError
from gptwo.formats.extras import extra_for

FOOTER_BYTES = 48  # places of two blocks, zeros, the magic number
MAGIC = 0xDB4775248B80FB57
TRAILER_BYTES = 5  # after a block: how it is compressed, then its checksum
MASK = 0xA282EAD8  # checksums are stored rotated and shifted by this
MAX_INDEX_BYTES = 64_000_000  # GPT-2 XL has 20,000
DTYPES = {1: torch.float32, 14: torch.bfloat16, 19: torch.float16}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int  # bytes
    checksum: int


class Bundle:
    """An open checkpoint: the names it holds, and one tensor at a time.

    Raises ModelError for files that are damaged, truncated or something else.
    """

    def __init__(self, index: Path) -> None:
        self.index = index
        self.crc32c = _checksums()
        size = index.stat().st_size
        if not FOOTER_BYTES <= size <= MAX_INDEX_BYTES:
            raise self._damaged(f"has {size:,} bytes")
        try:
            entries = dict(self._entries(index.read_bytes()))
            header = _fields(entries.pop(b"", b""))
            self.shards = _number(header, 1, default=1)
            self.entries = {name.decode(): _entry(value) for name, value in entries.items()}
        except (IndexError, ValueError, TypeError, struct.error) as error:
            raise self._damaged(f"cannot be read ({error})") from error

    def tensor(self, name: str) -> Tensor:
        """The tensor called `name`, float32, its checksum verified."""
        entry = self.entries[name]
        if entry.dtype not in DTYPES:
            raise self._damaged(f"gives {name} type {entry.dtype}, which is not floating-point")
        dtype = DTYPES[entry.dtype]
        path = self.index.with_suffix(f".data-{entry.shard:05d}-of-{self.shards:05d}")
        if not path.exists():
            raise ModelError(f"{path} is missing", remedy="put it beside the index")
        end, there = entry.offset + entry.size, path.stat().st_size
        if end > there or math.prod(entry.shape) * dtype.itemsize != entry.size:
            raise ModelError(
                f"{path} has {there:,} bytes; {name} of shape {entry.shape} is said to take "
                f"{entry.size:,} up to byte {end:,}",
                remedy="download both files again",
            )
        data = bytearray(entry.size)
        with path.open("rb") as handle:
            handle.seek(entry.offset)
            handle.readinto(data)
        if self._masked(data) != entry.checksum:
            raise ModelError(
                f"{path}: {name} (bytes {entry.offset:,} to {end:,}) does not match its checksum",
                remedy="download the file again",
            )
        return torch.frombuffer(data, dtype=dtype).view(entry.shape).float()

    def _entries(self, table: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of all blocks, in order."""
        if struct.unpack("<Q", table[-8:])[0] != MAGIC:
            raise self._damaged("does not end as a table of TensorFlow does")
        footer = table[-FOOTER_BYTES:]
        place = _varint(footer, _varint(footer, _varint(footer, 0)[1])[1])  # of the second block
        root = self._block(table, place[0], _varint(footer, place[1])[0])
        for _, handle in _records(root):
            offset, used = _varint(handle, 0)
            yield from _records(self._block(table, offset, _varint(handle, used)[0]))

    def _block(self, table: bytes, offset: int, size: int) -> bytes:
        end = offset + size
        kind, stored = struct.unpack("<BI", table[end : end + TRAILER_BYTES])
        if self._masked(table[offset : end + 1]) != stored:
            raise self._damaged(f"does not match its checksum at byte {offset:,}")
        if kind:
            raise self._damaged("is compressed, expected it as TensorFlow writes checkpoints")
        return table[offset:end]

    def _masked(self, data: bytes | bytearray) -> int:
        crc = self.crc32c.value(bytes(data))
        return (((crc >> 15) | (crc << 17)) + MASK) & 0xFFFFFFFF

    def _damaged(self, what: str) -> ModelError:
        return ModelError(f"{self.index} {what}", remedy="download the checkpoint's files again")


def _checksums() -> ModuleType:
    with extra_for("a TensorFlow checkpoint"):
        import google_crc32c
    return google_crc32c


def _records(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block; a key names only what differs from the one before."""
    restarts = struct.unpack("<I", block[-4:])[0]
    place, end, key = 0, len(block) - 4 - 4 * restarts, b""
    while place < end:
        shared, place = _varint(block, place)
        fresh, place = _varint(block, place)
        length, place = _varint(block, place)
        key = key[:shared] + block[place : place + fresh]
        place += fresh + length
        yield key, block[place - length : place]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first -> the number, where the next thing begins."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than 64 bits")


def _fields(message: bytes) -> dict[int, list[int | bytes]]:
    """A protocol-buffers message -> the values of every field number."""
    found: dict[int, list[int | bytes]] = {}
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        wire = tag & 7
        if wire == 0:
            value, place = _varint(message, place)
        else:
            length, place = {1: (8, place), 5: (4, place)}.get(wire) or _varint(message, place)
            value, place = message[place : place + length], place + length
        found.setdefault(tag >> 3, []).append(value)
    return found


def _number(fields: dict[int, list[int | bytes]], field: int, default: int = 0) -> int:
    value = fields.get(field, [default])[0]
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def _parts(fields: dict[int, list[int | bytes]], field: int) -> list[bytes]:
    """Messages inside a message, or numbers of fixed width."""
    values = fields.get(field, [])
    if not all(isinstance(value, bytes) for value in values):  # bytes(a number) may be huge
        raise ValueError(f"field {field} is a number")
    return [value for value in values if isinstance(value, bytes)]


def _entry(message: bytes) -> Entry:
    fields = _fields(message)
    shape = _fields(b"".join(_parts(fields, 2)))
    sides = tuple(_number(_fields(side), 1) for side in _parts(shape, 2))
    checksum = struct.unpack("<I", b"".join(_parts(fields, 6)).ljust(4, b"\0"))[0]
    dtype, shard, offset, size = (_number(fields, field) for field in (1, 3, 4, 5))
    return Entry(dtype, sides, shard, offset, size, checksum)
