"""Token files of nanoGPT and llm.c, in and out.

nanoGPT: flat little-endian uint16; `<|endoftext|>` (eot) ends each document; train.bin, val.bin.
llm.c: 256 int32 (20240520, version 1, how many tokens), then uint16; eot begins each document; a
split is one stream over files of up to 100 million tokens, cut anywhere.
Ours is llm.c's stream without headers, cut at documents: nanoGPT's last eot goes to the front.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import Manifest, atomic_write, fingerprint_inputs, open_folder, stage
from gptwo.errors import DataError, UsageError
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.config import PackConfig
from gptwo.tokens.shards import (
    LARGEST_UINT16_VOCABULARY,
    SPLITS,
    Chunk,
    Counts,
    Shards,
    described,
    open_shards,
    write_shards,
)
from gptwo.tokens.tokenizer import Tokenizer

UINT16 = np.dtype("<u2")
CHUNK = 1 << 20  # ids read at once
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
MAGIC, VERSION = 20240520, 1
SHARD_TOKENS = 100_000_000  # of llm.c's files
NAMES = {"train": "train", "valid": "val", "test": "test"}  # how both programs call the splits
OTHER_MAGIC = {  # llm.c's other files, by the first int32
    20240326: "an llm.c model",
    20240327: "a debugging state of llm.c",
    20240328: "an llm.c tokenizer",
    20240522: "an llm.c evaluation file",
    20240527: "an optimizer state of llm.c",
    20240801: "llm.c's tokens of Llama 3 (version 7, uint32)",
    20240803: "a Llama 3 model of llm.c",
}
OTHER_STARTS = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"\x93numpy": "a NumPy file",
    b"pk\x03\x04": "a zip file",
}
SHORT = 64  # bytes that may be text by chance
FETCH_AGAIN = "get the file again, or make it again with the program it comes from"


@dataclass(frozen=True, kw_only=True)
class TokenFile:
    """A file of ids and what makes it a part of our stream."""

    path: Path
    offset: int  # bytes before the first id
    ids: int  # how many are taken, from the first
    opens: bool  # whether an eot goes before them
    documents: int  # ids that are eot
    largest: int

    def __len__(self) -> int:
        return self.ids + self.opens


def import_bins(
    files: Sequence[Path],
    tokenizer: Path,
    out: Path,
    config: PackConfig,
    reporter: Reporter = SILENT,
) -> Manifest:
    """Token files of nanoGPT or llm.c -> token shards in `out`, as `pack` makes them.

    The split is told by the words of a file's name: val or valid, test, else train; files of a
    split follow each other in the order of their names. All ids are looked at before the first is
    written. Raises DataError naming the file that is of another kind, cut, or of another
    vocabulary than the tokenizer's.
    """
    encoder = Tokenizer.load(tokenizer)
    _check_vocabulary(encoder.vocab_size, tokenizer)
    inputs = fingerprint_inputs(files) | {"tokenizer": encoder.fingerprint}
    with stage(out, kind="tokens", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        parts = [examine(path, encoder, reporter) for path in _ordered(files)]
        _check_documents(parts, encoder)
        token_bytes = [len(encoder.token_bytes(i)) for i in range(encoder.eot)]
        sizes = np.array([*token_bytes, 0], np.int64)
        counts = {}
        with reporter.bar("pack", sum(map(len, parts)), "tokens") as bar:
            for split in SPLITS:
                own = [part for part in parts if split_of(part.path) == split]
                stream = partial(_chunks, own, sizes, bar=bar, reporter=reporter)
                counts[split] = write_shards(made, split, UINT16.name, stream)
        return made.commit(counts=counts, details=described(encoder))


def split_of(path: Path) -> str:
    """`split_of(Path("fineweb_val_000000.bin")) == "valid"`"""
    words = set(re.findall("[a-z]+", path.stem.lower()))
    if words & {"val", "valid", "validation"}:
        return "valid"
    return "test" if "test" in words else "train"


def _ordered(files: Sequence[Path]) -> list[Path]:
    return sorted(set(files), key=lambda path: (path.name, path))


def _check_vocabulary(vocab_size: int, folder: Path) -> None:
    if vocab_size > LARGEST_UINT16_VOCABULARY:
        raise UsageError(
            f"{folder} has a vocabulary of {vocab_size:,}; the files of nanoGPT and llm.c hold "
            f"16-bit ids, up to {LARGEST_UINT16_VOCABULARY:,}",
            remedy="use gptwo's own token shards",
        )


def examine(path: Path, encoder: Tokenizer, reporter: Reporter = SILENT) -> TokenFile:
    """Tell a token file by its beginning and look at every id. Raises DataError naming it."""
    offset, length = _layout(path)
    documents = place = 0
    first = last = largest = -1
    for ids in _read(path, offset, length):
        reporter.check()
        wrong = ids >= encoder.vocab_size
        if wrong.any():
            where = int(wrong.argmax())
            raise DataError(
                f"{path} holds token id {ids[where]} at position {place + where:,}, the "
                f"vocabulary has {encoder.vocab_size:,}",
                remedy="name the tokenizer the file was made with",
            )
        first = first if place else int(ids[0])
        last, largest = int(ids[-1]), max(largest, int(ids.max()))
        documents += int((ids == encoder.eot).sum())
        place += len(ids)
    follows = not offset and last == encoder.eot  # eot comes after each document
    return TokenFile(
        path=path,
        offset=offset,
        ids=length - follows,
        opens=not offset and (follows or first != encoder.eot),
        documents=documents,
        largest=largest,
    )


def _layout(path: Path) -> tuple[int, int]:
    """Where the ids of a file begin (0: it has no header) and how many there are."""
    if not path.is_file():
        raise DataError(f"{path} is not a file", remedy="name .bin files of nanoGPT or llm.c")
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    magic, version, length = np.frombuffer(head[:12].ljust(12, b"\0"), "<i4").tolist()
    other = OTHER_MAGIC.get(magic) or _other_kind(head)
    if other:
        raise DataError(f"{path} is {other}; expected token ids (uint16)", remedy=FETCH_AGAIN)
    if magic != MAGIC:
        if size % UINT16.itemsize:
            raise DataError(
                f"{path} has {size:,} bytes, not a multiple of {UINT16.itemsize} (uint16)",
                remedy=FETCH_AGAIN,
            )
        return 0, size // UINT16.itemsize
    if version != VERSION:
        raise DataError(
            f"{path} is an llm.c token file of version {version}, expected {VERSION} (uint16)",
            remedy="make it again with llm.c's gpt-2 setting",
        )
    expected = HEADER_BYTES + UINT16.itemsize * length
    if length < 1 or size != expected:
        raise DataError(
            f"{path} has {size:,} bytes; its header tells of {length:,} tokens: {expected:,} bytes",
            remedy=FETCH_AGAIN,
        )
    return HEADER_BYTES, length


def _other_kind(head: bytes) -> str:
    """What a file is that begins so; "" where it may hold ids."""
    if not head:
        return "empty"
    start = head.lstrip().lower()
    kind = next((kind for mark, kind in OTHER_STARTS.items() if start.startswith(mark)), "")
    if kind or len(head) < SHORT or b"\0" in head:
        return kind
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return ""
    return "a text file"


def _check_documents(parts: list[TokenFile], encoder: Tokenizer) -> None:
    """Refuse ids that fit the vocabulary only by being small: characters, or a smaller one's."""
    largest = max(part.largest for part in parts)
    if not any(part.documents for part in parts) and largest < encoder.vocab_size // 2:
        raise DataError(
            f"{parts[0].path} holds no <|endoftext|> (id {encoder.eot}) and no id above {largest}: "
            f"it looks like another vocabulary, expected ids up to {encoder.vocab_size - 1}",
            remedy="name the tokenizer the file was made with; characters are no tokens of GPT-2",
        )


def _read(path: Path, offset: int, length: int) -> Iterator[np.ndarray]:
    """`length` ids from byte `offset` on, a chunk at a time."""
    with path.open("rb") as handle:
        handle.seek(offset)
        for start in range(0, length, CHUNK):
            yield np.fromfile(handle, UINT16, min(CHUNK, length - start))


def _stream(parts: list[TokenFile], eot: int, skip: int) -> Iterator[np.ndarray]:
    """The ids of a split in our order, from position `skip` on."""
    for part in parts:
        if skip < len(part):
            if part.opens and not skip:
                yield np.array([eot], UINT16)
            first = max(0, skip - part.opens)
            yield from _read(part.path, part.offset + UINT16.itemsize * first, part.ids - first)
        skip = max(0, skip - len(part))


def _chunks(
    parts: list[TokenFile], sizes: np.ndarray, done: Counts, *, bar: Bar, reporter: Reporter
) -> Iterator[Chunk]:
    """The stream after the tokens that are done. `sizes` are the bytes of each token."""
    eot = len(sizes) - 1
    bar.advance(done["tokens"])
    for ids in _stream(parts, eot, done["tokens"]):
        reporter.check()
        starts = np.flatnonzero(ids == eot)
        text_bytes = np.concatenate([[0], np.cumsum(sizes[ids])])
        yield Chunk(ids=ids, starts=starts, text_bytes=text_bytes[[*starts, len(ids)]])
        bar.advance(len(ids))


@dataclass(frozen=True, kw_only=True)
class Span:
    """A file to write: the tokens from `start` to `end`, and the bytes around them."""

    name: str
    start: int
    end: int
    before: bytes = b""
    after: bytes = b""


def export_bins(tokens: Path, out: Path, to: str, reporter: Reporter = SILENT) -> dict[str, Any]:
    """Token shards -> files of nanoGPT or llm.c in `out`; returns {"format", "tokens", "files"}.

    nanogpt: train.bin, val.bin, test.bin. llmc: gptwo_train_000000.bin and so on, equally long
    files of up to 100 million tokens. A split without tokens has no file.
    """
    if to not in SPANS:
        raise UsageError(
            f"token shards cannot be written as {to!r}", remedy=f"use one of {', '.join(SPANS)}"
        )
    source = open_folder(tokens, "tokens", hashes=False)
    _check_vocabulary(int(source.details.get("vocab_size", 0)), tokens)
    inputs = {"tokens": source.fingerprint}
    with stage(out, kind=f"{to} tokens", config={"to": to}, inputs=inputs) as made:
        manifest = made.done
        if manifest is None:
            splits = {NAMES[split]: open_shards(tokens, split) for split in SPLITS}
            counts = {}
            with reporter.bar("convert", sum(map(len, splits.values())), "tokens") as bar:
                for name, shards in splits.items():
                    for span in SPANS[to](shards, name) if len(shards) else ():
                        _write(out / span.name, shards, span, bar, reporter)
                        counts[span.name] = span.end - span.start + len(span.after) // 2
            manifest = made.commit(counts=counts)
    return {"format": to, "tokens": sum(manifest.counts.values()), "files": manifest.counts}


def _nanogpt_spans(shards: Shards, name: str) -> list[Span]:
    """One file: the first document's eot goes behind the last document."""
    opens = int(shards.read(0, 1)[0] == shards.eot)
    eot = np.array([shards.eot], UINT16).tobytes()
    return [Span(name=f"{name}.bin", start=opens, end=len(shards), after=eot)]


def _llmc_spans(shards: Shards, name: str) -> list[Span]:
    """Files of equal length, for llm.c's loader refuses one that is shorter than a batch."""
    files = -(-len(shards) // SHARD_TOKENS)
    limits = [len(shards) * number // files for number in range(files + 1)]
    spans = []
    for number, (start, end) in enumerate(pairwise(limits)):
        header = np.zeros(HEADER_INTS, "<i4")
        header[:3] = MAGIC, VERSION, end - start
        file = f"gptwo_{name}_{number:06d}.bin"
        spans.append(Span(name=file, start=start, end=end, before=header.tobytes()))
    return spans


SPANS = {"nanogpt": _nanogpt_spans, "llmc": _llmc_spans}


def _write(path: Path, shards: Shards, span: Span, bar: Bar, reporter: Reporter) -> None:
    """Write one file, unless a run that was stopped has written it."""
    if path.exists():
        return bar.advance(span.end - span.start)
    with atomic_write(path) as handle:
        handle.write(span.before)
        for start in range(span.start, span.end, CHUNK):
            reporter.check()
            ids = shards.read(start, min(CHUNK, span.end - start))
            handle.write(ids.astype(UINT16).tobytes())
            bar.advance(len(ids))
        handle.write(span.after)
