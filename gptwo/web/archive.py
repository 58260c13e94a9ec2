"""Fetched pages -> WARC files and notes, written as they come.

A page's records are appended to the open file, then a line to its notes says what became of the
link and where in the file its records end. What has its note survives a kill: the next run cuts the
file behind the last whole page and goes on there. Only pages that were under way are asked again.
A file that is full is synced and moved to its place; nobody sees an unfinished one.
"""

import asyncio
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from gptwo.artifacts import Stage, sync_folder
from gptwo.lock import disk_errors
from gptwo.web.config import CrawlConfig
from gptwo.web.fetch import Fetched
from gptwo.web.request import now
from gptwo.web.rot import SAME, place_of
from gptwo.web.warc import begin_segment, charset_of, page_records

WAITING_BYTES = 32 << 20  # of pages that wait to be written, before fetching waits
WAITING_PAGES = 2000
GATHER_SECONDS = 0.02  # for pages to write in one go: each switch of threads costs
CHUNK_BYTES = 1 << 20
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")  # what no table of texts has room for

Note = dict[str, Any]


def segment_name(number: int) -> str:
    return f"pages-{number:05d}.warc.gz"


def notes_name(number: int) -> str:
    return f"fetched-{number:05d}.jsonl"


def segment_of(path: Path) -> int:
    """7 for pages-00007.warc.gz and fetched-00007.jsonl"""
    return int(path.name.split("-")[1].split(".")[0])


def recover(made: Stage, seen: Callable[[Note], None]) -> int:
    """Tell `seen` every note that counts; returns the number of the segment to go on with.

    A file without its notes, notes without their file and what lies behind the last whole page
    are dropped: these links will be asked again.
    """
    notes = {segment_of(path): path for path in made.work.glob("fetched-*.jsonl")}
    closed = {segment_of(path): path for path in made.folder.glob("pages-*.warc.gz")}
    begun = {segment_of(path): path for path in made.work.glob("pages-*.warc.gz")}
    following = 0
    for number in sorted(notes.keys() | closed.keys() | begun.keys()):
        if number in notes and number in closed:
            if _end_of(notes[number]) == closed[number].stat().st_size:
                for note, _ in read_notes(notes[number]):
                    seen(note)
                following = number + 1
                continue
        elif number in notes and number in begun:  # no other can be open: it was the last
            for note in _mend(begun[number], notes[number]):
                seen(note)
            return number
        for kind in (notes, closed, begun):
            if number in kind:
                kind[number].unlink()
    return following


def read_notes(path: Path) -> Iterator[tuple[Note, int]]:
    """Whole lines and where they end; what follows the first that is none does not count."""
    end = 0
    with path.open("rb") as handle:
        for line in handle:
            end += len(line)
            note = None
            with suppress(ValueError):
                note = json.loads(line) if line.endswith(b"\n") else None
            if not isinstance(note, dict):
                return
            yield note, end


def _end_of(notes: Path) -> int:
    """Where the records of the last page end."""
    end = 0
    for note, _ in read_notes(notes):
        end = note["end"]
    return end


def _mend(pages: Path, notes: Path) -> list[Note]:
    """Cut an open segment behind its last whole page; returns the notes that are left."""
    kept: list[Note] = []
    pages_end = notes_end = 0
    size = pages.stat().st_size
    with pages.open("rb") as handle:
        for note, end in read_notes(notes):
            if not pages_end < note["end"] <= size or not _whole(
                handle.read(note["end"] - pages_end)
            ):
                break
            kept.append(note)
            pages_end, notes_end = note["end"], end
    os.truncate(notes, notes_end)
    os.truncate(pages, pages_end)
    return kept


def _whole(data: bytes) -> bool:
    """Whether data is whole gzip members, checksums included."""
    with suppress(zlib.error):
        while data:
            member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            rest = data
            while rest:
                member.decompress(rest, CHUNK_BYTES)
                rest = member.unconsumed_tail
            if not member.eof:
                return False
            data = member.unused_data
        return True
    return False


class Archive:
    """Where pages go. A thread of its own makes the records and writes them."""

    def __init__(self, made: Stage, config: CrawlConfig, segment: int) -> None:
        self.made, self.config, self.segment = made, config, segment
        self._ready: list[tuple[int, Fetched]] = []
        self._ready_bytes = 0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._closing = self._ended = False
        self._pages: IO[bytes] | None = None
        self._notes: IO[bytes] | None = None
        self._links = self._end = 0

    async def add(self, link: int, page: Fetched) -> None:
        """Take over what became of a link. Waits while too much is waiting to be written."""
        self._ready.append((link, page))
        self._ready_bytes += len(page.answer.body)
        self._some.set()
        full = self._ready_bytes >= WAITING_BYTES or len(self._ready) >= WAITING_PAGES
        if full and not self._ended:
            self._room.clear()
        await self._room.wait()

    def close(self) -> None:
        """Nothing more will come: `run` ends when all is written."""
        self._closing = True
        self._some.set()

    async def run(self) -> None:
        """Write what comes until `close` is called. Raises ResourceError where the disk is full."""
        loop = asyncio.get_running_loop()
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="archive") as thread:
                while not self._closing or self._ready:
                    await self._some.wait()
                    if not self._closing and self._room.is_set():
                        await asyncio.sleep(GATHER_SECONDS)
                    self._some.clear()
                    ready, self._ready, self._ready_bytes = self._ready, [], 0
                    self._room.set()
                    await loop.run_in_executor(thread, self._write, ready)
                await loop.run_in_executor(thread, self._finish)
        finally:
            self._ended = True
            self._room.set()  # nobody is to wait for what will never be written
            for handle in (self._pages, self._notes):
                if handle is not None:
                    with suppress(OSError):
                        handle.close()

    def _write(self, ready: list[tuple[int, Fetched]]) -> None:
        with disk_errors(self.made.folder):
            for link, page in ready:
                self._append(link, page)
            if self._notes is not None:
                self._notes.flush()

    def _append(self, link: int, page: Fetched) -> None:
        answer = page.answer
        page = page if answer.date else replace(page, answer=replace(answer, date=now()))
        kept = answer.outcome == "ok"
        charset = charset_of(answer) if kept else ""
        if self._pages is None or self._notes is None:
            pages = self.made.work / segment_name(self.segment)
            self._pages = pages.open("ab")
            self._notes = (self.made.work / notes_name(self.segment)).open("ab")
            self._end, self._links = self._pages.tell(), 0
        first = b"" if self._end else self._begin()
        records = first + page_records(page, charset)
        self._pages.write(records)
        self._end += len(records)
        note = {
            "link": link,
            "end": self._end,
            "final_url": page.final_url,
            "outcome": answer.outcome,
            "status": answer.status,
            "bytes": len(answer.body) if kept else 0,
            "detail": _CONTROLS.sub(" ", answer.detail),
            "sha256": hashlib.sha256(answer.body).hexdigest() if kept else "",
            "charset": charset,
            "place": place_of(page.url, page.final_url) if page.hops else SAME,
            "redirects": len(page.hops),
            "requests": page.tries,
            "seconds": round(answer.seconds, 3),
            "fetched": page.answer.date,
        }
        self._pages.flush()  # before its note: what has its note is there
        self._notes.write(json.dumps(note).encode() + b"\n")
        self._links += 1
        if self._links >= self.config.segment_links or self._end >= self.config.segment_bytes:
            self._finish()

    def _begin(self) -> bytes:
        return begin_segment(segment_name(self.segment), self.config.user_agent, now())

    def _finish(self) -> None:
        """Close the segment; it is whole and gets its place."""
        if self._pages is None or self._notes is None:
            return
        for handle in (self._pages, self._notes):
            with handle:
                handle.flush()
                os.fsync(handle.fileno())
        name = segment_name(self.segment)
        (self.made.work / name).replace(self.made.folder / name)
        sync_folder(self.made.folder)
        self._pages = self._notes = None
        self.segment += 1
