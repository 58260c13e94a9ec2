"""read: sources of every kind -> shards of drafts, good ones and set-aside ones.

A unit is read from front to back by one process and cut every so many documents, so the shards do
not depend on how many processes there are.
"""

import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gptwo.artifacts import read_json, write_json
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.pages import read_pages
from gptwo.corpus.shards import SHARD_BYTES, SHARD_DOCUMENTS, Draft, clean, document_id, write_shard
from gptwo.corpus.sources import PAGE_SUFFIXES, Unit, content_kind, known_kind, list_files
from gptwo.corpus.tables import read_jsonl, read_parquet
from gptwo.corpus.warc import Response, read_arc, read_warc
from gptwo.errors import DataError
from gptwo.pool import Task
from gptwo.streams import DAMAGE, MAX_RATIO, RATIO_FREE_BYTES, decompressed

HTML_TYPES = ("text/html", "application/xhtml+xml")
FREE_DAMAGE = 10  # damaged records any source may hold, however small it is
PROSE_SUFFIXES = ("", ".txt", ".text", ".md", ".markdown", ".rst")
_ROW_BITS = 40  # rows of one unit


def read_unit(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Write a unit's shards `00000-00000.parquet`, ... and, when all are there, `00000.json`."""
    unit: Unit = task.input
    first_row = int(task.output.stem) << _ROW_BITS
    shards = total = damaged = held_bytes = 0
    held: list[Draft] = []

    def write() -> None:
        nonlocal shards, held_bytes
        path = task.output.with_name(f"{task.output.stem}-{shards:05}.parquet")
        if not path.exists():  # a killed reader wrote the same
            write_shard(path, held)
        shards, held_bytes = shards + 1, 0
        held.clear()

    for draft in READERS[unit.kind](unit, config):
        draft.row = first_row + total
        draft.source = draft.source or unit.label
        draft.id = document_id(draft.text or f"{draft.source}\n{draft.url}\n{draft.detail}")
        draft.stage = "read" if draft.reason else ""
        total += 1
        damaged += draft.reason == "damaged"
        held.append(draft)
        held_bytes += len(draft.text) + len(draft.payload or b"")
        if len(held) >= SHARD_DOCUMENTS or held_bytes >= SHARD_BYTES:
            write()
            at(total - 1)
    if held:
        write()
    at(total - 1)
    _check_damage(unit, total, damaged, config)
    write_json(task.output, {"shards": shards})


def shards_of(mark: Path) -> list[Path]:
    """The shards of a unit that `read_unit` has finished."""
    count = read_json(mark)["shards"]
    return [mark.with_name(f"{mark.stem}-{number:05}.parquet") for number in range(count)]


def _check_damage(unit: Unit, total: int, damaged: int, config: CorpusConfig) -> None:
    if total == 0:
        raise DataError(
            f"{unit.path} holds no document", remedy="leave it out, or check how it was made"
        )
    if damaged == total or damaged > FREE_DAMAGE + config.max_damaged_share * total:
        raise DataError(
            f"{unit.path}: {damaged:,} of {total:,} records are damaged",
            remedy="get the file again, or raise max_damaged_share",
        )


def _pages(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    """A crawl: one draft for every link that was fetched."""
    for visit, response in read_pages(unit.path, config.max_document_bytes):
        if response is None:
            draft = Draft(reason="no-response", detail="the WARC files do not hold it")
        else:
            draft = _page(response)
        draft.url, draft.score, draft.date = visit.url, visit.score, visit.date
        draft.source = unit.label
        if visit.final_url != visit.url:
            draft.final_url = visit.final_url
            draft.meta = json.dumps({"final_url": visit.final_url})
        yield draft


def _warc(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    yield from map(_page, read_warc(unit.path, config.max_document_bytes))


def _arc(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    yield from map(_page, read_arc(unit.path, config.max_document_bytes))


def _page(response: Response) -> Draft:
    draft = Draft(url=response.url, date=response.date)
    if response.problem:
        draft.drop(response.problem, response.detail)
        return draft
    kind = response.content_type or content_kind(response.payload[: 1 << 16])
    if not response.payload.strip():
        draft.drop("empty")
    elif kind in (*HTML_TYPES, "html"):
        draft.payload, draft.charset = response.payload, response.charset
    elif kind in ("text/plain", "text"):
        draft.text = clean(decode(response.payload, response.charset))
    else:
        draft.drop("not-html", kind)
    return draft


def _folder(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    """Pages in files; or one page that is a file by itself."""
    if unit.path.is_file():
        with decompressed(unit.path) as handle:
            yield _file(unit.path.name, handle, config, asked_for=True)
        return
    for path in list_files(unit.path):
        name = str(path.relative_to(unit.path))
        if path.suffix.lower() not in PAGE_SUFFIXES and _is_unit(path):
            continue
        try:
            with decompressed(path) as handle:
                draft = _file(name, handle, config)
        except DAMAGE as damage:
            draft = Draft(reason="damaged", detail=str(damage))
        draft.source = f"{unit.label}/{name}"
        yield draft


def _is_unit(path: Path) -> bool:
    return known_kind(path) not in ("", "html", "text")


def _file(name: str, handle: IO[bytes], config: CorpusConfig, *, asked_for: bool = False) -> Draft:
    """A draft from one file or tar member that should be a page.

    In a folder only files called so are texts, not programs and styles; one named by the user is.
    """
    payload = handle.read(config.max_document_bytes + 1)
    kind = content_kind(payload[: 1 << 16])
    draft = Draft()
    if len(payload) > config.max_document_bytes:
        draft.drop("too-large", f"more than {config.max_document_bytes:,} bytes")
    elif not payload.strip():
        draft.drop("empty")
    elif kind == "html" or Path(name).suffix.lower() in (".html", ".htm", ".xhtml"):
        draft.payload = payload
    elif kind == "text" and (asked_for or Path(name).suffix.lower() in PROSE_SUFFIXES):
        draft.text = clean(decode(payload))
    else:
        draft.drop("not-html", kind or "unknown")
    return draft


def _tar(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    """Members of a tar as streams: nothing is ever written under a member's name."""
    with decompressed(unit.path) as handle:
        name = ""
        try:
            with tarfile.open(fileobj=handle, mode="r|") as archive:
                for member in archive:
                    name = clean(member.name)
                    if member.isdir():
                        continue
                    draft = _member(archive, member, config)
                    draft.source = f"{unit.label}/{name}"
                    yield draft
        except (*DAMAGE, tarfile.TarError) as damage:
            yield Draft(reason="damaged", detail=f"after member {name!r}: {damage}")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, config: CorpusConfig) -> Draft:
    if not member.isfile():
        what = "link" if member.issym() or member.islnk() else "device"
        return Draft(reason=f"tar-{what}", detail=clean(member.linkname))
    if _is_unsafe(member.name):
        return Draft(reason="tar-unsafe-name", detail=clean(member.name))
    return _file(member.name, archive.extractfile(member) or io.BytesIO(), config)


def _zip(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    """Members of a zip file as streams, in the order of its directory."""
    try:
        archive = zipfile.ZipFile(unit.path)
    except (zipfile.BadZipFile, NotImplementedError, *DAMAGE) as damage:
        raise DataError(
            f"{unit.path} is not a whole zip file: {damage}", remedy="get the file again"
        ) from damage
    # Members may lie over each other, so that a small file holds far more than any of them.
    left = max(RATIO_FREE_BYTES, MAX_RATIO * unit.path.stat().st_size)
    with archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            draft = _zip_member(archive, member, config) if left > 0 else _bomb()
            draft.source = f"{unit.label}/{clean(member.filename)}"
            yield draft
            if left <= 0:
                return
            left -= min(member.file_size, config.max_document_bytes)


def _bomb() -> Draft:
    return Draft(reason="damaged", detail=f"expands more than {MAX_RATIO}-fold; the rest is left")


def _zip_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, config: CorpusConfig) -> Draft:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return Draft(reason="zip-link" if kind == stat.S_IFLNK else "zip-device")
    if _is_unsafe(member.filename):
        return Draft(reason="zip-unsafe-name", detail=clean(member.filename))
    if member.flag_bits & 1:
        return Draft(reason="zip-encrypted")
    try:
        with archive.open(member) as handle:
            return _file(member.filename, handle, config)
    except (zipfile.BadZipFile, NotImplementedError, *DAMAGE) as damage:
        return Draft(reason="damaged", detail=f"byte {member.header_offset:,}: {damage}")


def _is_unsafe(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in Path(name.replace("\\", "/")).parts


def _jsonl(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    yield from read_jsonl(unit.path, config.max_document_bytes)


def _parquet(unit: Unit, config: CorpusConfig) -> Iterator[Draft]:
    yield from read_parquet(unit.path, config.max_document_bytes)


READERS: dict[str, Callable[[Unit, CorpusConfig], Iterator[Draft]]] = {
    "pages": _pages,
    "warc": _warc,
    "arc": _arc,
    "folder": _folder,
    "tar": _tar,
    "zip": _zip,
    "jsonl": _jsonl,
    "parquet": _parquet,
}
