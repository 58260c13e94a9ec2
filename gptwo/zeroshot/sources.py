"""What the tasks read: evaluation files known by their hash, and the documents of a corpus."""

import hashlib
import heapq
import io
import json
import lzma
import tarfile
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

HELD_BYTES = 1 << 27  # contents kept, so that no step of a task reads and proves a file again


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file of a published evaluation set; `path` is relative to the data folder.

    `member` names the file inside, where the published one is a tar archive: its hash is the
    archive's.
    """

    path: str
    size: int
    sha256: str
    member: str = ""

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
        with path.open("rb") as handle:
            size = path.stat().st_size
            if size != self.size or hashlib.file_digest(handle, "sha256").hexdigest() != (
                self.sha256
            ):
                handle.seek(0)
                raise DataError(
                    f"{path} has {size:,} bytes {_looks_like(handle.read(200))}and is not the "
                    f"published file of {self.size:,} bytes, SHA-256 {self.sha256[:16]}...",
                    remedy="fetch it again; it must arrive unchanged, line ends included",
                )
            handle.seek(0)
            return _member(handle, self.member, path) if self.member else handle.read()

    def describe(self) -> dict[str, Any]:
        inside = {"member": self.member} if self.member else {}
        return {"file": self.path, **inside, "bytes": self.size, "sha256": self.sha256}


def _member(archive: io.BufferedReader, name: str, path: Path) -> bytes:
    """One file of a tar archive, read as a stream up to it."""
    with tarfile.open(fileobj=archive, mode="r|*") as files:
        for found in files:
            if found.name.removeprefix("./") == name and found.isfile():
                content = files.extractfile(found)
                assert content is not None
                return content.read()
    raise DataError(f"{path} holds no {name}", remedy="fetch the published archive again")


def _looks_like(content: bytes) -> str:
    start = content[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html")):
        return "of a web page "
    return "of a git-lfs pointer " if start.startswith(b"version https://git-lfs") else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A document of a corpus; `title` as its source gave it, or empty."""

    id: str
    text: str
    title: str = ""


class Sources:
    """The data folder and the corpus of one evaluation; either may be absent."""

    def __init__(self, data: Path | None, corpus: Path | None) -> None:
        self.data, self.corpus = data, corpus
        self._contents: dict[DataFile, bytes] = {}

    def read(self, file: DataFile) -> bytes:
        """The content of a published file; proven once, then remembered for the next step."""
        if file not in self._contents:
            content = file.read(self.data)
            self._contents[file] = content
            while len(self._contents) > 1 and sum(map(len, self._contents.values())) > HELD_BYTES:
                del self._contents[next(iter(self._contents))]
        return self._contents[file]

    def rows(self, file: DataFile, limit: int = 0) -> list[dict[str, Any]]:
        """The objects of a published file of JSON lines, which may be xz; the first `limit`."""
        content = self.read(file)
        if file.path.endswith(".xz"):
            content = lzma.decompress(content)
        # Only the line feed ends a line: splitlines() would cut at U+2028 inside a text.
        lines = [line for line in content.split(b"\n") if line.strip()]
        return [json.loads(line) for line in lines[: limit or None]]

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

    def whole_documents(self, split: str) -> Iterator[Document]:
        """Every document of a split with its title."""
        for file in self._parts(split):
            known = [name for name in ("id", "text", "meta") if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=256, columns=known):
                for row in batch.to_pylist():
                    title = json.loads(row.get("meta") or "{}").get("title") or ""
                    yield Document(id=row["id"], text=row["text"], title=str(title).strip())

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
