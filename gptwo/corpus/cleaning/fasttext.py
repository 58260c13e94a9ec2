"""fastText's language classifier lid.176.ftz (Joulin et al. 2016), read for a kernel of our own.

Its library reaches 3,000 texts a second, whose time goes into hash tables and quantised rows. The
kernel (`native/language.c`) computes the same sums in the same order from tables that are laid out
here, so that languages and scores are equal to the bit.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MAGIC = [0x2F4F16BA, 12]  # of the file format, and its version
_SHAPE = {"dim": 16, "word_ngrams": 1, "loss": 1, "model": 3, "bucket": 2_000_000}
_SETTINGS = "dim window epochs min_count negative word_ngrams loss model bucket minn maxn rate"
_CENTROIDS = 256  # of each part of a quantised row


class _File:
    """Numbers and words of a model file, one after the other."""

    def __init__(self, path: Path) -> None:
        self.data, self.place = path.read_bytes(), 0

    def numbers(self, kind: str, count: int) -> NDArray[Any]:
        found = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found

    def number(self, kind: str) -> int:
        return int(self.numbers(kind, 1)[0])

    def word(self) -> bytes:
        end = self.data.index(b"\0", self.place)
        begin, self.place = self.place, end + 1
        return self.data[begin:end]


def load_model(path: Path, kernel: Any) -> tuple[Any, list[str]]:
    """The kernel's model and the language of each of its labels.

    Raises:
        ValueError: the file is not of the one shape that the kernel computes.
    """
    file = _File(path)
    if file.numbers("<i4", 2).tolist() != _MAGIC:
        raise ValueError(f"{path} is not a fastText model of version 12")
    settings: dict[str, int] = dict(
        zip(_SETTINGS.split(), file.numbers("<i4", 12).tolist(), strict=True)
    )
    shape = {name: settings[name] for name in _SHAPE}
    if shape != _SHAPE or (settings["minn"], settings["maxn"]) != (2, 4):
        raise ValueError(f"{path} is of another shape: {settings}")
    file.number("<f8")
    names = _read_names(file)
    rows = _read_rows(file, len(names.words) + len(names.buckets))
    if file.number("?"):
        raise ValueError(f"{path} has a quantised output")
    decisions = file.numbers("<f4", int(np.prod(file.numbers("<i8", 2))))
    order = np.concatenate([np.arange(len(names.words)), len(names.words) + names.bucket_rows])
    model = kernel.load(
        b"".join(word + b"\0" for word in names.words),
        names.buckets,
        np.ascontiguousarray(rows[order]),
        huffman_tree(names.counts),
        decisions[: (len(names.labels) - 1) * settings["dim"]],
    )
    return model, names.labels


class _Names(NamedTuple):
    words: list[bytes]
    labels: list[str]  # by falling count
    counts: list[int]  # texts of each label
    buckets: NDArray[np.int32]  # of n-grams, those that are kept, in ascending order
    bucket_rows: NDArray[np.int32]  # beyond those of the words


def _read_names(file: _File) -> _Names:
    size, words, _ = file.numbers("<i4", 3).tolist()
    _, pruned = file.numbers("<i8", 2).tolist()
    entries = []
    for _ in range(size):
        entries.append((file.word(), file.number("<i8")))
        file.number("i1")
    pairs = file.numbers("<i4", 2 * pruned).reshape(-1, 2)
    buckets, rows = np.ascontiguousarray(pairs[np.argsort(pairs[:, 0])].T, np.int32)
    return _Names(
        words=[word for word, _ in entries[:words]],
        labels=[word.decode().removeprefix("__label__") for word, _ in entries[words:]],
        counts=[count for _, count in entries[words:]],
        buckets=buckets,
        bucket_rows=rows,
    )


def _read_rows(file: _File, expected: int) -> NDArray[np.float32]:
    """(rows, 16) a product-quantised matrix, unpacked: parts of a row, times the row's norm."""
    quantised, has_norm = file.numbers("?", 2).tolist()
    rows, dim = file.numbers("<i8", 2).tolist()
    if not (quantised and has_norm) or rows != expected:
        raise ValueError(f"a quantised matrix of {expected} rows was expected, found {rows}")
    codes = file.numbers("u1", file.number("<i4")).reshape(rows, -1)
    parts = _read_centroids(file, codes.shape[1])
    norms = _read_norms(file, rows)
    unpacked = np.concatenate([parts[i][codes[:, i]] for i in range(codes.shape[1])], axis=1)
    if unpacked.shape[1] != dim:
        raise ValueError(f"rows of {dim} were expected, found {unpacked.shape[1]}")
    return unpacked * norms


def _read_norms(file: _File, rows: int) -> NDArray[np.float32]:
    """(rows, 1) the norm of each row."""
    codes = file.numbers("u1", rows)
    return _read_centroids(file, 1)[0][codes]


def _read_centroids(file: _File, expected: int) -> list[NDArray[np.float32]]:
    """For each part of a row its 256 centroids, (256, width of the part)."""
    _, parts, width, last = file.numbers("<i4", 4).tolist()
    if parts != expected:
        raise ValueError(f"{expected} parts of a row were expected, found {parts}")
    widths = [width] * (parts - 1) + [last]
    return [file.numbers("<f4", _CENTROIDS * w).reshape(_CENTROIDS, w) for w in widths]


def huffman_tree(counts: list[int]) -> NDArray[np.int16]:
    """(inner nodes, 2) children of the Huffman tree over labels, which come by falling count."""
    nodes = counts + [10**15] * (len(counts) - 1)
    leaf, inner = len(counts) - 1, len(counts)
    children = np.zeros((len(counts) - 1, 2), np.int16)
    for number in range(len(children)):
        for side in range(2):
            if leaf >= 0 and nodes[leaf] < nodes[inner]:
                children[number, side] = leaf
                leaf -= 1
            else:
                children[number, side] = inner
                inner += 1
        nodes[len(counts) + number] = sum(nodes[child] for child in children[number])
    return children
