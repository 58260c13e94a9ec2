"""Token shards on disk: flat little-endian integers, written as they come, memory-mapped."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import (
    Manifest,
    Stage,
    atomic_write,
    damage,
    open_folder,
    read_json,
    write_json,
)
from gptwo.config import differences
from gptwo.errors import DataError, ModelError
from gptwo.tokens.tokenizer import Tokenizer

SPLITS = ("train", "valid", "test")
LARGEST_UINT16_VOCABULARY = 65_536
CHUNK = 1 << 24  # ids looked at once when a shard is checked
PACK_AGAIN = "pack the corpus again"


def dtype_for(vocab_size: int) -> str:
    """The narrowest type that holds every id."""
    return "uint16" if vocab_size <= LARGEST_UINT16_VOCABULARY else "uint32"


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """What a manifest says about the ids of its shards."""
    return {
        "dtype": dtype_for(tokenizer.vocab_size),
        "vocab_size": tokenizer.vocab_size,
        "eot": tokenizer.eot,
        "tokenizer_fingerprint": tokenizer.fingerprint,
    }


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A stretch of a split's stream; it may begin and end inside a document."""

    ids: np.ndarray
    starts: np.ndarray  # positions in `ids` at which documents begin
    text_bytes: np.ndarray  # of the stretch, counted to each start and to the end

    def cut(self, start: int) -> tuple["Chunk", "Chunk"]:
        """What lies before the document that begins at `starts[start]`, and the rest."""
        place, size = self.starts[start], self.text_bytes[start]
        return (
            Chunk(
                ids=self.ids[:place],
                starts=self.starts[:start],
                text_bytes=self.text_bytes[: start + 1],
            ),
            Chunk(
                ids=self.ids[place:],
                starts=self.starts[start:] - place,
                text_bytes=self.text_bytes[start:] - size,
            ),
        )


Counts = dict[str, int]  # tokens, documents, bytes


def write_shards(
    made: Stage, split: str, dtype: str, stream: Callable[[Counts], Iterator[Chunk]]
) -> Counts:
    """Write a split as shards; those that a killed run had finished are kept.

    A shard is closed at the first document that begins at or past `shard_tokens` of the settings.
    `stream` gives the chunks that follow what is counted. A split without tokens is one empty file.
    """
    total = {"tokens": 0, "documents": 0, "bytes": 0}
    number = 0
    while (note := made.work / f"{split}-{number:05d}.json").exists():
        total = {name: total[name] + n for name, n in read_json(note).items()}
        number += 1
    chunks = stream(total)
    chunk = next(chunks, None)
    while chunk is not None or not number:
        path = made.folder / f"{split}-{number:05d}.bin"
        shard, chunk = _write_shard(path, chunk, chunks, np.dtype(dtype), made.config)
        write_json(made.work / f"{path.stem}.json", shard)  # last: the shard is whole
        total = {name: total[name] + n for name, n in shard.items()}
        number += 1
    return total


def _write_shard(
    path: Path,
    chunk: Chunk | None,
    following: Iterator[Chunk],
    dtype: np.dtype,
    config: dict[str, Any],
) -> tuple[Counts, Chunk | None]:
    """Write chunks as they come until the shard is full: what it holds, and what is left over."""
    starts, tokens, size = array("Q"), 0, 0
    rest = None
    with atomic_write(path) as handle:
        while chunk is not None and rest is None:
            full = int(np.searchsorted(chunk.starts, config["shard_tokens"] - tokens))
            if full < len(chunk.starts):
                chunk, rest = chunk.cut(full)
            handle.write(chunk.ids.astype(dtype.newbyteorder("<"), copy=False).tobytes())
            starts.frombytes((chunk.starts + tokens).astype(np.uint64).tobytes())
            tokens += len(chunk.ids)
            size += int(chunk.text_bytes[-1])
            chunk = next(following, None) if rest is None else None
    with atomic_write(path.with_suffix(".starts.npy")) as handle:
        np.save(handle, np.frombuffer(starts, np.uint64))
    return {"tokens": tokens, "documents": len(starts), "bytes": size}, rest


@dataclass(frozen=True, kw_only=True)
class Shards:
    """One split's tokens, read as if they were one array. Positions are int64 throughout."""

    parts: tuple[np.ndarray, ...]  # memory maps
    ends: np.ndarray  # cumulative lengths of the parts
    starts: np.ndarray  # uint64 positions of each document's first token, its <|endoftext|>
    corpora: tuple[int, ...]  # tokens of each folder: one, or those of a mix in their order
    vocab_size: int
    eot: int
    tokenizer_fingerprint: str

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def read(self, start: int, length: int) -> np.ndarray:
        """`length` ids from `start`, as int64, across shard borders.

        Raises DataError when the range leaves the split.
        """
        ids = np.empty(max(length, 0), np.int64)
        self.copy(ids, *(np.array([value], np.int64) for value in (0, start, length)))
        return ids

    def copy(
        self, out: np.ndarray, places: np.ndarray, starts: np.ndarray, lengths: np.ndarray
    ) -> None:
        """Copy stretches of the split: `lengths[i]` ids from `starts[i]` to `out[places[i]:]`.

        `out` is flat and int64, so that each id is converted where it comes to lie. Raises
        DataError when a stretch leaves the split.
        """
        stops = starts + lengths
        outside = (starts < 0) | (lengths < 0) | (stops > len(self))
        if outside.any():
            which = int(outside.argmax())
            raise DataError(
                f"tokens {starts[which]:,} to {stops[which]:,} asked for, "
                f"the split has {len(self):,}",
                remedy="use a longer corpus or a shorter context",
            )
        numbers = np.searchsorted(self.ends, starts, side="right")
        begins = starts - np.append(0, self.ends)[numbers]
        stretches = (places, numbers, begins, lengths)
        for place, number, begin, length in zip(*(s.tolist() for s in stretches), strict=True):
            while length > 0:
                piece = self.parts[number][begin : begin + length]
                out[place : place + len(piece)] = piece
                place, length = place + len(piece), length - len(piece)
                number, begin = number + 1, 0


def open_mix(folders: Sequence[Path], split: str) -> Shards:
    """One split of several folders, one after the other, as `open_shards` opens each.

    Raises ModelError, naming both, when two of them were made with different tokenizers.
    """
    opened = [open_shards(folder, split) for folder in folders]
    first, *others = opened
    for folder, other in zip(folders[1:], others, strict=True):
        lines = differences(_vocabulary(first), _vocabulary(other))
        if lines:
            raise ModelError(
                f"{folders[0]} and {folder} were made with different tokenizers "
                f"({'; '.join(lines)})",
                remedy="pack both corpora with one tokenizer",
            )
    begins = np.cumsum([0, *(len(shards) for shards in opened[:-1])])
    return Shards(
        parts=tuple(part for shards in opened for part in shards.parts),
        ends=np.concatenate([s.ends + b for s, b in zip(opened, begins, strict=True)]),
        starts=np.concatenate(
            [s.starts + np.uint64(b) for s, b in zip(opened, begins, strict=True)]
        ),
        corpora=tuple(len(shards) for shards in opened),
        vocab_size=first.vocab_size,
        eot=first.eot,
        tokenizer_fingerprint=first.tokenizer_fingerprint,
    )


def _vocabulary(shards: Shards) -> dict[str, Any]:
    return {
        "fingerprint": shards.tokenizer_fingerprint,
        "vocab_size": shards.vocab_size,
        "eot": shards.eot,
    }


def open_shards(folder: Path, split: str) -> Shards:
    """Open one split of a folder made by `pack`, with hashes, sizes, types and ids checked.

    Raises DataError (exit code 3) naming the file that is missing, truncated, damaged, of another
    type, or that holds an id outside the vocabulary.
    """
    manifest = open_folder(folder, "tokens", hashes=False)
    details = manifest.details
    dtype = _dtype(folder, details)
    names = _verified_names(folder, manifest, split)
    parts, starts, offset = [], [], 0
    for name in names:
        part = _open_part(folder / name, dtype, details["vocab_size"])
        parts.append(part)
        starts.append(_open_starts(folder / name, part, details["eot"]) + np.uint64(offset))
        offset += len(part)
    return Shards(
        parts=tuple(parts),
        ends=np.cumsum([len(part) for part in parts]),
        starts=np.concatenate(starts),
        corpora=(offset,),
        vocab_size=details["vocab_size"],
        eot=details["eot"],
        tokenizer_fingerprint=details["tokenizer_fingerprint"],
    )


def _dtype(folder: Path, details: dict[str, Any]) -> np.dtype:
    missing = {"dtype", "vocab_size", "eot", "tokenizer_fingerprint"} - details.keys()
    if missing:
        raise DataError(f"{folder} does not say its {sorted(missing)[0]}", remedy=PACK_AGAIN)
    expected = dtype_for(details["vocab_size"])
    if details["dtype"] != expected:
        raise DataError(
            f"{folder} has ids of type {details['dtype']!r}, expected {expected!r} "
            f"for a vocabulary of {details['vocab_size']:,}",
            remedy=PACK_AGAIN,
        )
    return np.dtype(expected).newbyteorder("<")


def _verified_names(folder: Path, manifest: Manifest, split: str) -> list[str]:
    """The split's .bin files in order. Only this split is hashed: the others are opened apart."""
    files = [name for name in manifest.files if name.startswith(f"{split}-")]
    names = sorted(name for name in files if name.endswith(".bin"))
    if split not in SPLITS or not names:
        raise DataError(f"{folder} has no split {split!r}", remedy=f"splits are {SPLITS}")
    problems = damage(folder, manifest, names=files)
    if problems:
        raise DataError(
            problems[0], remedy="restore the file from a copy or delete the folder and pack again"
        )
    return names


def _open_starts(path: Path, part: np.ndarray, eot: int) -> np.ndarray:
    """Where the documents of the shard at `path` begin, each at an <|endoftext|>."""
    beside = path.with_name(path.name.replace(".bin", ".starts.npy"))
    try:
        starts = np.load(beside, allow_pickle=False).astype(np.uint64)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{beside} is damaged: {error}", remedy=PACK_AGAIN) from error
    if starts.ndim != 1 or (len(starts) and int(starts.max()) >= len(part)):
        raise DataError(f"{beside} points past the end of {path.name}", remedy=PACK_AGAIN)
    if not (part[starts] == eot).all():
        raise DataError(f"{beside} points where no document starts", remedy=PACK_AGAIN)
    return starts


def _open_part(path: Path, dtype: np.dtype, vocab_size: int) -> np.ndarray:
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise DataError(
            f"{path} has {size:,} bytes, not a multiple of {dtype.itemsize} ({dtype.name})",
            remedy=PACK_AGAIN,
        )
    if not size:
        return np.empty(0, dtype)
    part = np.asarray(np.memmap(path, dtype=dtype, mode="r"))  # a plain view is quicker to cut
    for start in range(0, len(part), CHUNK):
        largest = int(part[start : start + CHUNK].max())
        if largest >= vocab_size:
            raise DataError(
                f"{path} holds token id {largest}, the vocabulary has {vocab_size}",
                remedy="pack the corpus again with the tokenizer of this vocabulary",
            )
    return part
