"""What a source is, told by its content: a file's name may lie.

A source becomes one or more units; a unit is read by one process from front to back.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from gptwo.artifacts import label_paths
from gptwo.errors import DataError
from gptwo.streams import DAMAGE, decompressed

FORMATS = "WARC, ARC, HTML, JSON lines, Parquet, plain text, or a folder, tar or zip of pages"
PAGE_SUFFIXES = (".html", ".htm", ".xhtml", ".txt", ".md")
FETCHED = "fetched.parquet"
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One thing to read: `label` is what documents name as their source."""

    kind: str  # a key of read.READERS
    path: Path
    label: str


def find_units(sources: list[Path]) -> list[Unit]:
    """The units of all sources, in an order that does not depend on how they were given.

    Raises `DataError` naming a source that is missing, empty or of a kind we cannot read.
    """
    if not sources:
        raise DataError("no source was given", remedy=f"name at least one: {FORMATS}")
    labels = label_paths(sources)
    units = [unit for path in labels for unit in _units(path, labels[path])]
    return sorted(units, key=lambda unit: (unit.label, str(unit.path)))


def _units(path: Path, label: str) -> list[Unit]:
    if not path.exists():
        raise DataError(f"{path} does not exist", remedy="check the path")
    if path.is_file():
        kind = file_kind(path)
        return [Unit(kind="folder" if kind in ("html", "text") else kind, path=path, label=label)]
    if (path / FETCHED).exists():
        return [Unit(kind="pages", path=path, label=label)]
    files = list_files(path)
    if not files:
        raise DataError(f"{path} is an empty folder", remedy=f"it may hold {FORMATS}")
    kinds = {name: known_kind(name) for name in files}
    if not any(kinds.values()):
        raise DataError(
            f"{path} holds nothing we can read, for instance {files[0].name}",
            remedy=f"a source is {FORMATS}",
        )
    units = [
        Unit(kind=kind, path=name, label=f"{label}/{name.relative_to(path)}")
        for name, kind in kinds.items()
        if kind not in ("html", "text", "")
    ]
    if any(kind in ("html", "text") for kind in kinds.values()):
        units.append(Unit(kind="folder", path=path, label=label))
    return units


def list_files(folder: Path) -> list[Path]:
    """Regular files below `folder`, sorted; hidden ones and links are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not path.is_symlink()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def known_kind(path: Path) -> str:
    """The kind of a file in a folder by its name or content; "" when it is none of ours."""
    if path.suffix.lower() in PAGE_SUFFIXES:
        return "html"
    try:
        return file_kind(path)
    except DataError:
        return ""


def file_kind(path: Path) -> str:
    """`pages`-free kinds: warc, arc, tar, zip, parquet, jsonl, html or text, by the first bytes."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", remedy=f"a source is {FORMATS}")
    named = next((kind for kind in ("warc", "arc") if f".{kind}" in path.suffixes), "")
    try:
        kind = content_kind(_head(path)) or named
    except DataError:
        if not named:
            raise
        kind = named  # its begin is damaged, perhaps the rest is not
    if kind == "zip" and path.suffix.lower() != ".zip":
        kind = ""  # a program, or a document of an office
    if kind == "pointer":
        raise DataError(
            f"{path} is a Git LFS pointer, not the file", remedy="fetch it with git lfs pull"
        )
    if kind == "json-array":
        raise DataError(
            f"{path} is one JSON value, expected JSON lines",
            remedy="write one object a line, with the field text",
        )
    if not kind:
        raise DataError(f"{path} is of no kind we can read", remedy=f"a source is {FORMATS}")
    if kind == "text" and any(part in (".jsonl", ".ndjson") for part in path.suffixes):
        raise DataError(
            f"{path} holds no JSON object in its first line",
            remedy="write one object a line, with the field text",
        )
    return kind


def _head(path: Path) -> bytes:
    """The first bytes of a file, decompressed; fewer where the file is cut short."""
    head = b""
    try:
        with decompressed(path) as handle:
            while len(head) < _HEAD_BYTES and (more := handle.read1(_HEAD_BYTES)):
                head += more
    except DAMAGE as damage:
        if not head:
            raise DataError(
                f"{path} cannot be decompressed: {damage}", remedy="get the file again"
            ) from damage
    return head


def content_kind(head: bytes) -> str:
    """The kind of file that begins with `head`; "" for none of ours."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"WARC/"):
        return "warc"
    if head.startswith(b"filedesc:"):
        return "arc"
    if head.startswith(b"PK\x03\x04"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if start.startswith(b"version https://git-lfs"):
        return "pointer"
    if start.startswith(b"{"):
        return "jsonl" if _is_object(start) else "text"
    if start.startswith(b"[") and start[1:64].lstrip().startswith((b"{", b'"')):
        return "json-array"
    if start.startswith(b"<") and looks_like_html(start):
        return "html"
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "" if b"\0" in head and not wide else "text"


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a page hold a tag that only HTML has."""
    lowered = head[:4096].lower()
    tags = (b"<!doctype html", b"<html", b"<head", b"<body", b"<title", b"<p>", b"<div")
    return any(tag in lowered for tag in tags)


def _is_object(start: bytes) -> bool:
    """Whether the first line is a JSON object, or at least begins as one when it is cut."""
    line, newline, _ = start.partition(b"\n")
    if not newline:
        return start[1:64].lstrip()[:1] in (b'"', b"}")
    try:
        return isinstance(json.loads(line.decode("utf-8", "replace")), dict)
    except ValueError:
        return start[1:64].lstrip()[:1] == b'"'
