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

BLOCK_BYTES = 1 << 22  # of lines handed on together
MAX_LINE = 10_000_000  # bytes
MAX_SCORE = 2**31 - 1  # what the column holds
BOM = b"\xef\xbb\xbf"

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Whole lines of a file, or in their place a fault."""

    data: bytes | bytearray = b""
    start: int  # byte of what the file expands to
    fault: str = ""


TOO_LONG = f"a line of more than {MAX_LINE:,} bytes"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A link file as the bytes it expands to."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {found}, expected a link file", remedy="check the path")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty", remedy="give a Reddit dump, a CSV or a list of URLs")
    with decompressed(path) as raw:
        yield raw


def read_blocks(stream: IO[bytes]) -> Iterator[Block]:
    """Every line of a stream in blocks of about BLOCK_BYTES, cut the same on every machine.

    A line that is too long becomes one fault; a stream that ends early gives the whole lines before
    the damage and one fault.
    """
    rest, start, skipping = b"", 0, False
    while True:
        data, damage, ended = _fill(stream, rest)
        if start == 0 and not rest and data.startswith(BOM):
            del data[: len(BOM)]
            start = len(BOM)
        if skipping:  # the rest of a line that is too long
            length = _first_end(data)
            skipping = not length
            start += length or len(data)
            del data[: length or len(data)]
        length = len(data) if ended and not damage else _last_end(data)
        rest = bytes(memoryview(data)[length:])
        if length:
            del data[length:]
            yield Block(data=data, start=start)
            start += length
        elif len(rest) >= MAX_LINE:
            yield Block(start=start, fault=TOO_LONG)
            start += len(rest)
            rest, skipping = b"", True
        if damage:
            yield Block(start=start + len(rest), fault=f"truncated: {damage}")
        if ended:
            return


def _fill(stream: IO[bytes], rest: bytes) -> tuple[bytearray, str, bool]:
    """`rest` and what follows it, whether it was stopped by damage, and whether that was all."""
    data = bytearray(min(max(BLOCK_BYTES, 2 * len(rest)), MAX_LINE))
    data[: len(rest)] = rest
    filled = len(rest)
    read_into = getattr(stream, "readinto1", None) or stream.readinto  # type: ignore[attr-defined]
    damage, count = "", 1
    with memoryview(data) as view:
        while filled < len(data) and count:
            try:
                count = read_into(view[filled:])
            except DAMAGE as error:
                damage, count = str(error) or type(error).__name__, 0
            filled += count
    del data[filled:]
    return data, damage, not count


def _first_end(data: bytearray) -> int:
    """The length of the first line, its end included; 0 where none ends."""
    ends = [found for found in (data.find(b"\n"), data.find(b"\r")) if found >= 0]
    return 1 + min(ends, default=-1)


def _last_end(data: bytearray) -> int:
    """The length of all whole lines."""
    return 1 + max(data.rfind(b"\n"), data.rfind(b"\r"))


def is_dump(path: Path, first: Block) -> bool:
    """Whether a file that begins with `first` holds JSON lines; DataError for what is no list."""
    line = next(_lines([first]), "") if not first.fault else ""
    start = line.lstrip()
    other = next((what for sign, what in OTHERS.items() if start.startswith(sign)), "")
    if other or "\0" in line[:MAX_LINE]:
        raise DataError(
            f"{path} is {other or 'no text'}, expected links", remedy="download the file again"
        )
    return start.startswith("{")


def parse(path: Path, dump: bool, blocks: Iterator[Block]) -> Iterator[Submission]:
    """The submissions of a dump, a table or a list."""
    lines = _lines(blocks)
    try:
        if dump:
            for line in lines:
                yield from_json(line) if line else Submission(fault=TOO_LONG)
            return
        first = next(lines, "")
        if names := _columns(path, first.lstrip()):
            yield from _from_table(names, lines)
            return
        for line in chain((first,), lines):
            yield submission({"url": line.strip()}) if line else Submission(fault=TOO_LONG)
    except EOFError as damage:
        yield Submission(fault=str(damage))


def _lines(blocks: Iterator[Block] | list[Block]) -> Iterator[str]:
    """Lines that are not blank; "" stands for one that is too long. EOFError at damage."""
    for block in blocks:
        if block.fault == TOO_LONG:
            yield ""
        elif block.fault:
            raise EOFError(block.fault)
        for line in io.StringIO(block.data.decode("utf-8", "replace"), newline=None):
            if not line.isspace():
                yield line


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
        values = dict(zip(names, row, strict=False))
        yield submission(values) if row else Submission(fault=TOO_LONG)


def from_json(line: str) -> Submission:
    """A line of a dump."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Submission(fault=f"{type(error).__name__}: {error}")
    return submission(value)


def submission(value: Any) -> Submission:
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
