"""A crawl's folder: which response in its WARC files belongs to which link."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from gptwo.corpus.sources import FETCHED
from gptwo.corpus.warc import Response, read_warc
from gptwo.errors import DataError

_COLUMNS = ("url", "final_url", "outcome", "score", "date")


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A link that was fetched, and where it led."""

    url: str
    final_url: str
    score: int | None
    date: str


def read_visits(folder: Path) -> list[Visit]:
    """The links of a crawl that ended well; what became of the others is the crawl's to tell."""
    path = folder / FETCHED
    names = set(pq.read_schema(path).names)
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise DataError(
            f"{path} lacks the column {missing[0]}", remedy="make the folder with gptwo crawl"
        )
    rows = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
    return [
        Visit(
            url=row["url"],
            final_url=row["final_url"] or row["url"],
            score=row["score"],
            date=row["date"] or "",
        )
        for row in sorted(rows, key=lambda row: row["url"])
        if row["outcome"] == "ok"
    ]


def read_pages(folder: Path, max_bytes: int) -> Iterator[tuple[Visit, Response | None]]:
    """Every link with the response it got; None where the WARC files do not hold one.

    The files lie in the order in which pages happened to arrive, and a crawl that was killed may
    have stored a page twice: the first whole response counts.
    """
    waiting: dict[str, list[Visit]] = {}
    for visit in read_visits(folder):
        waiting.setdefault(visit.final_url, []).append(visit)
    spoiled: dict[str, Response] = {}
    for path in sorted([*folder.glob("*.warc.gz"), *folder.glob("*.warc")]):
        for response in read_warc(path, max_bytes):
            if response.problem:  # or a redirect on the way to a page
                if response.url in waiting:
                    spoiled.setdefault(response.url, response)
                continue
            for visit in waiting.pop(response.url, ()):
                yield visit, response
    for url, visits in waiting.items():
        for visit in visits:
            yield visit, spoiled.get(url)
