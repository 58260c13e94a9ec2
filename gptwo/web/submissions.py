"""Reading link files of any size: Reddit dumps (JSON lines), CSV with a header, one URL a line."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain
from pathlib import Path
from typing import IO, Any

from gptwo.errors import DataError
from gptwo.streams import DAMAGE, decompressed

MAX_LINE = 10_000_000  # characters
MAX_SCORE = 2**31 - 1  # what the column holds

# How files begin that hold no links, and what they are.
OTHERS = {
    "<": "a web page",
    "[": "one JSON value, not one object a line",
    "version https://git-lfs": "a Git LFS pointer",
}


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


TOO_LONG = Submission(fault=f"a line of more than {MAX_LINE:,} characters")


def read_submissions(path: Path) -> Iterator[Submission]:
    """Every line of a file, bad ones included, in constant memory.

    A compressed file that ends early gives the lines before the damage and one fault.
    """
    with _opened(path) as text:
        try:
            yield from _parse(path, _lines(text))
        except DAMAGE as damage:
            yield Submission(fault=f"truncated: {damage}")


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}, expected a link file", remedy="check the path")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty", remedy="give a Reddit dump, a CSV or a list of URLs")
    with decompressed(path) as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="replace", newline=None)


def _lines(text: IO[str]) -> Iterator[str]:
    """Lines that are not blank; "" stands for one that is too long."""
    while line := text.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith("\n"):
            if not line.isspace():
                yield line
            continue
        while (rest := text.readline(MAX_LINE)) and not rest.endswith("\n"):
            pass
        yield ""


def _parse(path: Path, lines: Iterator[str]) -> Iterator[Submission]:
    first = next(lines, "")
    start = first.lstrip()
    other = next((what for sign, what in OTHERS.items() if start.startswith(sign)), "")
    if other or "\0" in first:
        raise DataError(
            f"{path} is {other or 'no text'}, expected links", remedy="download the file again"
        )
    if start.startswith("{"):
        for line in chain((first,), lines):
            yield _from_json(line) if line else TOO_LONG
    elif names := _columns(path, start):
        yield from _from_table(names, lines)
    else:
        for line in chain((first,), lines):
            yield _submission({"url": line.strip()}) if line else TOO_LONG


def _columns(path: Path, first: str) -> list[str]:
    """The names in the first line of a CSV file; none for a list of URLs."""
    names = [name.strip().lower() for name in next(csv.reader([first[:10_000]]), [])]
    if "url" in names:
        return names
    if "," in first and "://" not in first:
        raise DataError(f"{path} has columns {names}, none is url", remedy="name one url")
    return []


def _from_table(names: list[str], lines: Iterator[str]) -> Iterator[Submission]:
    rows = csv.reader(lines)
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:  # a quote that never ends, mostly
            yield Submission(fault=f"CSV: {error}")
            continue
        yield _submission(dict(zip(names, row, strict=False))) if row else TOO_LONG


def _from_json(line: str) -> Submission:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Submission(fault=f"{type(error).__name__}: {error}")
    return _submission(value)


def _submission(value: Any) -> Submission:
    """The fields of a line, from JSON or from text."""
    try:
        url = str(value["url"]).strip().replace("&amp;", "&")
        url.encode()  # a lone surrogate is no address and cannot be stored
        return Submission(
            url=url,
            score=_score(value.get("score")),
            date=_day(value.get("created_utc"), value.get("date")),
            subreddit=str(value.get("subreddit") or "").lower(),
            is_self=_flag(value.get("is_self")),
            over_18=_flag(value.get("over_18")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        return Submission(fault=f"{type(error).__name__}: {error}")


def _score(value: Any) -> int | None:
    if value is None or value == "":
        return None
    score = int(value)
    if abs(score) > MAX_SCORE:
        raise ValueError(f"a score of {score}")
    return score


def _flag(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "t", "yes")


def _day(seconds: Any, text: Any) -> str:
    """ISO day of a submission, from seconds since 1970 or from a date."""
    if seconds not in (None, ""):
        return datetime.fromtimestamp(int(float(seconds)), UTC).date().isoformat()
    return date.fromisoformat(str(text).strip()[:10]).isoformat() if text else ""
