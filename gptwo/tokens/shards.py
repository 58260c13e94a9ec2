"""Token shards on disk: flat little-endian integers, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptwo.artifacts import open_folder
from gptwo.errors import DataError

SPLITS = ("train", "valid", "test")
LARGEST_UINT16_VOCABULARY = 65_536
CHUNK = 1 << 24  # ids looked at once when a shard is checked


def dtype_for(vocab_size: int) -> str:
    """The narrowest type that holds every id."""
    return "uint16" if vocab_size <= LARGEST_UINT16_VOCABULARY else "uint32"


@dataclass(frozen=True, kw_only=True)
class Shards:
    """One split's tokens, read as if they were one array."""

    parts: tuple[np.ndarray, ...]  # memory maps
    ends: np.ndarray  # cumulative lengths of the parts
    starts: np.ndarray  # uint64 positions of each document's first token, its <|endoftext|>
    vocab_size: int
    eot: int
    tokenizer_fingerprint: str

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start: int, length: int) -> np.ndarray:
        """`length` ids from `start`, as int64, across shard borders.

        Raises DataError when the range leaves the split.
        """
        if start < 0 or length < 0 or start + length > len(self):
            raise DataError(
                f"tokens {start:,} to {start + length:,} asked for, the split has {len(self):,}",
                remedy="use a longer corpus or a shorter context",
            )
        pieces = []
        part = int(np.searchsorted(self.ends, start, side="right"))
        while length:
            begin = start - (int(self.ends[part - 1]) if part else 0)
            piece = self.parts[part][begin : begin + length]
            pieces.append(piece.astype(np.int64))
            start, length, part = start + len(piece), length - len(piece), part + 1
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def open_shards(folder: Path, split: str) -> Shards:
    """Open one split of a folder made by `pack`, with hashes, sizes, types and ids checked.

    Raises DataError (exit code 3) naming the file that is missing, truncated, damaged, of another
    type, or that holds an id outside the vocabulary.
    """
    manifest = open_folder(folder, "tokens")
    details = manifest.details
    dtype = np.dtype(details["dtype"]).newbyteorder("<")
    names = sorted(n for n in manifest.files if n.startswith(f"{split}-") and n.endswith(".bin"))
    if split not in SPLITS or not names:
        raise DataError(f"{folder} has no split {split!r}", remedy=f"splits are {SPLITS}")
    parts, starts, offset = [], [], 0
    for name in names:
        part = _open_part(folder / name, dtype, details["vocab_size"])
        begins = np.load(folder / name.replace(".bin", ".starts.npy"), allow_pickle=False)
        parts.append(part)
        starts.append(begins.astype(np.uint64) + np.uint64(offset))
        offset += len(part)
    return Shards(
        parts=tuple(parts),
        ends=np.cumsum([len(part) for part in parts]),
        starts=np.concatenate(starts),
        vocab_size=details["vocab_size"],
        eot=details["eot"],
        tokenizer_fingerprint=details["tokenizer_fingerprint"],
    )


def _open_part(path: Path, dtype: np.dtype, vocab_size: int) -> np.ndarray:
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise DataError(
            f"{path} has {size:,} bytes, not a multiple of {dtype.itemsize} ({dtype.name})",
            remedy="pack the corpus again",
        )
    if not size:
        return np.empty(0, dtype)
    part = np.memmap(path, dtype=dtype, mode="r")
    for start in range(0, len(part), CHUNK):
        largest = int(part[start : start + CHUNK].max())
        if largest >= vocab_size:
            raise DataError(
                f"{path} holds token id {largest}, the vocabulary has {vocab_size}",
                remedy="pack the corpus again with the tokenizer of this vocabulary",
            )
    return part
