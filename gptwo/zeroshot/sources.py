"""What the tasks read: evaluation files known by their hash, and the documents of a corpus."""

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import open_folder
from gptwo.errors import DataError
from gptwo.zeroshot.baselines import Trigram


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a published evaluation set; `path` is relative to the data folder."""

    path: str
    size: int
    sha256: str

    def read(self, folder: Path | None) -> bytes:
        """The file's content, once it is proven to be the published one."""
        if folder is None:
            raise DataError(
                f"{self.path} is needed and no data folder is named",
                remedy="name it with --data DIR or GPTWO_DATA",
            )
        path = folder / self.path
        if not path.is_file():
            raise DataError(
                f"{path} is missing",
                remedy=f"put the published file ({self.size:,} bytes) there",
            )
        content = path.read_bytes()
        if len(content) != self.size or hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(
                f"{path} has {len(content):,} bytes {_looks_like(content)}and is not the published "
                f"file of {self.size:,} bytes, SHA-256 {self.sha256[:16]}...",
                remedy="fetch it again; it must arrive unchanged, line ends included",
            )
        return content

    def describe(self) -> dict[str, Any]:
        return {"file": self.path, "bytes": self.size, "sha256": self.sha256}


def _looks_like(content: bytes) -> str:
    start = content[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "of a web page "
    return "of a git-lfs pointer " if start.startswith(b"version https://git-lfs") else ""


class Sources:
    """The data folder and the corpus of one evaluation; either may be absent."""

    def __init__(self, data: Path | None, corpus: Path | None) -> None:
        self.data, self.corpus = data, corpus

    @cached_property
    def corpus_fingerprint(self) -> str:
        if self.corpus is None:
            raise DataError(
                "this task is made from a corpus and none is named",
                remedy="name it with --corpus DIR",
            )
        return open_folder(self.corpus, "corpus", hashes=False).fingerprint

    @cached_property
    def trigram(self) -> Trigram | None:
        """A word trigram of the train split; None without a corpus."""
        if self.corpus is None:
            return None
        return Trigram.learn(text for _, text in self.documents("train"))

    def documents(self, split: str) -> Iterator[tuple[str, str]]:
        """(id, text) of every document of a split, in the order of its files."""
        for file in self._parts(split):
            for batch in file.iter_batches(batch_size=256, columns=["id", "text"]):
                yield from zip(
                    batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True
                )

    def sample(self, split: str, n: int, seed: int) -> list[tuple[str, str]]:
        """`n` documents of a split chosen by a hash of their id, read without the others' texts."""
        ranked = []
        for part, file in enumerate(self._parts(split)):
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["id"]).column(0).to_pylist()
                ranked += [(rank(seed, name), part, group, row) for row, name in enumerate(ids)]
        chosen = heapq.nsmallest(n, ranked)
        files, texts = list(self._parts(split)), {}
        for part, group in sorted({(part, group) for _, part, group, _ in chosen}):
            table = files[part].read_row_group(group, columns=["id", "text"])
            for key, p, g, row in chosen:
                if (p, g) == (part, group):
                    texts[key] = (table["id"][row].as_py(), table["text"][row].as_py())
        return [texts[key] for key, *_ in chosen]

    def _parts(self, split: str) -> Iterator[pq.ParquetFile]:
        assert self.corpus_fingerprint and self.corpus
        for path in sorted((self.corpus / split).glob("part-*.parquet")):
            try:
                yield pq.ParquetFile(path)
            except (pa.ArrowInvalid, OSError) as damage:
                raise DataError(
                    f"{path} cannot be read as Parquet: {damage}", remedy="make the corpus again"
                ) from damage


def rank(seed: int, name: str) -> str:
    """A reproducible shuffle: sort by it."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
