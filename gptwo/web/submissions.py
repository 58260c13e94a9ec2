"""Reading link files of any size: Reddit dumps (JSON lines), CSV with a header, one URL a line."""

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import zstandard

from gptwo.errors import DataError

MAX_LINE = 10_000_000  # characters
MAX_WINDOW = 1 << 31  # Reddit dumps use zstd's long windows
DAMAGE = (EOFError, OSError, lzma.LZMAError, zstandard.ZstdError, zlib.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One line of a link file; `fault` says why it could not be read."""

    url: str = ""
    score: int | None = None
    date: str = ""
    subreddit: str = ""
    is_self: bool = False
    over_18: bool = False
    fault: str = ""


def read_submissions(path: Path) -> Iterator[Submission]:
    """Every line of a file, bad ones included, in constant memory.

    A compressed file that ends early gives the lines before the damage and one fault.
    """
    with _open(path) as lines:
        try:
            first = next(lines, "")
            yield from _parse(path, first, lines)
        except DAMAGE as damage:
            yield Submission(fault=f"truncated: {damage}")


def _open(path: Path) -> IO[str]:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}, expected a link file", remedy="check the path")
    with path.open("rb") as handle:
        magic = handle.read(6)
    if not magic:
        raise DataError(f"{path} is empty", remedy="give a Reddit dump, a CSV or a list of URLs")
    raw: Any
    if magic[:2] == b"\x1f\x8b":
        raw = gzip.open(path)  # noqa: SIM115 - closed by the reader of the text
    elif magic == b"\xfd7zXZ\x00":
        raw = lzma.open(path)  # noqa: SIM115
    elif magic[:4] == b"\x28\xb5\x2f\xfd":
        raw = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            path.open("rb"), read_across_frames=True, closefd=True
        )
    else:
        raw = path.open("rb")
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=None)


def _parse(path: Path, first: str, lines: Iterator[str]) -> Iterator[Submission]:
    if first.lstrip().startswith("<"):
        raise DataError(f"{path} is a web page, expected links", remedy="download the file again")
    if first.lstrip().startswith("{"):
        yield _from_json(first)
        for line in lines:
            if line.strip():
                yield _from_json(line)
    elif "," in first and not first.lower().startswith("http"):
        names = [name.strip().lower() for name in next(csv.reader([first]))]
        if "url" not in names:
            raise DataError(f"{path} has columns {names}, none is url", remedy="name one url")
        for row in csv.reader(lines):
            yield _from_row(dict(zip(names, row, strict=False)))
    else:
        for line in (first, *lines):
            if line.strip():
                yield Submission(url=line.strip())


def _from_json(line: str) -> Submission:
    if len(line) > MAX_LINE:
        return Submission(fault="line too long")
    try:
        value = json.loads(line)
        return Submission(
            url=str(value["url"]).replace("&amp;", "&"),
            score=None if value.get("score") is None else int(value["score"]),
            date=_day(value.get("created_utc")),
            subreddit=str(value.get("subreddit") or "").lower(),
            is_self=bool(value.get("is_self")),
            over_18=bool(value.get("over_18")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return Submission(fault=f"{type(error).__name__}: {error}")


def _from_row(row: dict[str, str]) -> Submission:
    score = row.get("score", "").strip()
    try:
        return Submission(
            url=row["url"].strip(), score=int(score) if score else None, date=row.get("date", "")
        )
    except (ValueError, KeyError) as error:
        return Submission(fault=f"{type(error).__name__}: {error}")


def _day(created: Any) -> str:
    if created is None:
        return ""
    return datetime.fromtimestamp(int(created), UTC).date().isoformat()
