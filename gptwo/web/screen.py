"""Blocks of a dump -> columns of judged links. The kernel is C where it could be built."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gptwo.web.config import LinksConfig
from gptwo.web.rules import ABSENT, CODES, EPOCH, REASONS, Row, Rules
from gptwo.web.submissions import Block, Submission, from_json

COLUMNS = [
    ("url", pa.string()),
    ("key", pa.string()),
    ("score", pa.int32()),
    ("date", pa.string()),
    ("source", pa.string()),
]
LINKS = pa.schema(COLUMNS)
DROPPED = pa.schema([*COLUMNS, ("reason", pa.string())])
FAULTS_SHOWN = 5  # of a file


class Columns(NamedTuple):
    """Rows as the kernel gives them: native integers and UTF-8, each column as bytes."""

    codes: bytes  # uint8
    scores: bytes  # int32, as all below
    days: bytes
    url_ends: bytes  # one entry more than there are rows, from 0
    urls: bytes
    key_ends: bytes
    keys: bytes


# What judges a line: the line and its place in the block -> its rows, none for a blank one.
Take = Callable[[bytes, int], list[Row]]


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What became of some submissions."""

    kept: pa.Table  # LINKS
    dropped: pa.Table  # DROPPED
    faults: tuple[str, ...]  # the first few lines that could not be read
    reasons: dict[str, int]

    @property
    def read(self) -> int:
        return self.kept.num_rows + self.dropped.num_rows


class Screener:
    """Judges the submissions of one file, from several threads at once."""

    def __init__(self, config: LinksConfig, source: str, *, native: bool = True) -> None:
        self.rules, self.source = Rules(config), source
        self._reasons = words_of(REASONS)
        self._screen = (_kernel(self.rules) if native else None) or plain_screen

    def block(self, block: Block) -> Screened:
        """The lines of a block of JSON."""
        faults: list[str] = []

        def take(line: bytes, at: int) -> list[Row]:
            rows = []
            for piece in line.split(b"\r"):
                text = piece.decode("utf-8", "replace")
                if text and not text.isspace():
                    found = from_json(text)
                    if found.fault and len(faults) < FAULTS_SHOWN:
                        faults.append(f"{found.fault} at byte {block.start + at:,}")
                    rows.append(self.rules.row(found))
            return rows

        if block.fault:
            found = Submission(fault=f"{block.fault} at byte {block.start:,}")
            return self.submissions([found])
        return self._tables(Columns(*self._screen(block.data, take)), faults)

    def submissions(self, submissions: Iterable[Submission]) -> Screened:
        """Submissions that were read already."""
        found = list(submissions)
        faults = [one.fault for one in found if one.fault][:FAULTS_SHOWN]
        return self._tables(pack(map(self.rules.row, found)), faults)

    def _tables(self, columns: Columns, faults: list[str]) -> Screened:
        codes = np.frombuffer(columns.codes, np.uint8)
        scores = np.frombuffer(columns.scores, np.int32)
        days, day = np.unique(np.frombuffer(columns.days, np.int32), return_inverse=True)
        dates = ["" if one == ABSENT else date.fromordinal(EPOCH + one).isoformat() for one in days]
        links = pa.table(
            [
                _strings(columns.url_ends, columns.urls),
                _strings(columns.key_ends, columns.keys),
                _numbers(scores, _bits(scores != ABSENT)),
                words_of(dates).take(_numbers(day)),
                repeated(self.source, len(codes)),
            ],
            schema=LINKS,
        )
        dropped = links.append_column("reason", self._reasons.take(_numbers(codes)))
        is_kept = codes == CODES[""]
        counts = np.bincount(codes, minlength=len(REASONS))
        return Screened(
            kept=links.filter(_flags(is_kept)),
            dropped=dropped.filter(_flags(~is_kept)),
            faults=tuple(faults),
            reasons={reason: int(n) for reason, n in zip(REASONS, counts, strict=True) if n},
        )


def _kernel(rules: Rules) -> Callable[[Any, Take], tuple[bytes, ...]] | None:
    try:
        from gptwo.native._links import Screen  # type: ignore[import-not-found]
    except ImportError:
        return None
    return Screen(*rules.for_kernel()).screen


def plain_screen(data: bytes | bytearray, take: Take) -> Columns:
    """The kernel's plain twin: every line is judged by `take`, none by a shortcut."""
    return pack(row for line, at in _lines(bytes(data)) for row in take(line, at))


def _lines(data: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    for line in data.split(b"\n"):
        if line:
            yield line, at
        at += len(line) + 1


def pack(rows: Iterable[Row]) -> Columns:
    """Rows as columns."""
    codes, urls, keys, scores, days = tuple(zip(*rows, strict=True)) or ((),) * 5
    packed_urls, packed_keys = [x.encode() for x in urls], [x.encode() for x in keys]
    return Columns(
        bytes(codes),
        np.array(scores, np.int32).tobytes(),
        np.array(days, np.int32).tobytes(),
        _ends(packed_urls),
        b"".join(packed_urls),
        _ends(packed_keys),
        b"".join(packed_keys),
    )


def _ends(words: list[bytes]) -> bytes:
    return np.cumsum([0, *map(len, words)], dtype=np.int32).tobytes()


# Columns are made of buffers: pa.array() would import pandas wherever that is installed.


def _numbers(values: np.ndarray, present: pa.Buffer | None = None) -> pa.Array:
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [present, pa.py_buffer(values)])


def words_of(words: Sequence[str]) -> pa.Array:
    """`words_of(["a", "b"])` is pa.array(["a", "b"])."""
    packed = [word.encode() for word in words]
    return _strings(_ends(packed), b"".join(packed))


def repeated(word: str, count: int) -> pa.Array:
    """One word `count` times."""
    return words_of([word]).take(_numbers(np.zeros(count, np.int8)))


def _flags(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def _strings(ends: bytes, text: bytes) -> pa.Array:
    count = len(ends) // 4 - 1
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(text))
