"""Evaluation sets: from where they are published into a data folder, by pinned SHA-256.

`evaluation_sets.json` has an entry for every file that anyone may download: its address, hash and
licence, and the tasks that read it. What may not be passed on, such as the Penn Treebank, or is not
published as a task reads it, has none.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gptwo.artifacts import atomic_write, lock
from gptwo.errors import DataError, UsageError
from gptwo.progress import Reporter
from gptwo.web.download import PATIENCE, Download, Patience, Pin, Purpose, client

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Member:
    """The one file of a zip archive that is wanted."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file of an evaluation set: `path` under the data folder, what of it, and whose it is."""

    path: str
    tasks: tuple[str, ...]
    url: str
    pin: Pin
    licence: str
    member: Member | None = None

    @property
    def sha256(self) -> str:
        """Of the file as it will lie in the data folder."""
        return self.member.sha256 if self.member else self.pin.sha256


def evaluation_sets() -> list[Source]:
    """Every file that can be downloaded."""
    known = json.loads(Path(__file__).with_name("evaluation_sets.json").read_text("utf-8"))
    return [
        Source(
            path=path,
            tasks=tuple(entry["tasks"]),
            url=entry["url"],
            pin=Pin(entry["sha256"], entry.get("bytes")),
            licence=entry["licence"],
            member=Member(**entry["member"]) if "member" in entry else None,
        )
        for path, entry in known.items()
    ]


def fetch_evaluation_sets(
    tasks: Sequence[str],
    data: Path | None,
    reporter: Reporter,
    patience: Patience = PATIENCE,
    sources: Sequence[Source] | None = None,
) -> list[Path]:
    """Download what `tasks` read and `data` does not hold; returns the files that are new.

    A file that is there is left as it is, right or wrong: evaluation proves it. Raises UsageError
    without a folder, NetworkError where there is no answer, DataError where the answer is something
    else, ResourceError where the disk is too small.
    """
    if data is None:
        raise UsageError(
            "there is no folder to download into", remedy="name it with --data DIR or GPTWO_DATA"
        )
    known = evaluation_sets() if sources is None else sources
    wanted = [source for source in known if set(source.tasks) & set(tasks)]
    missing = [source for source in wanted if not (data / source.path).exists()]
    if not missing:
        return []
    purpose = Purpose(
        error=DataError,
        mirror="",
        instead="put the published file there yourself",
        room="name a --data folder on another disk",
    )
    with client(patience) as connection:
        for source in missing:
            target = data / source.path
            reporter.say(f"{source.path}: from {source.url}; licence: {source.licence}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with lock(target.parent):
                name = source.url.rsplit("/", 1)[1] if source.member else target.name
                part = target.with_name(f"{name}.part")
                arrived = target.with_name(name)
                download = Download(connection, source.url, part, source.pin, purpose)
                download.finish(arrived, reporter, patience)
                if source.member:
                    unpack(arrived, source.member, target, reporter)
                    arrived.unlink()
    return [data / source.path for source in missing]


def unpack(archive: Path, member: Member, target: Path, reporter: Reporter) -> None:
    """Write one file of a zip archive, if it is the pinned one; `DataError` if it is another."""
    found, size = hashlib.sha256(), 0
    try:
        with (
            zipfile.ZipFile(archive) as files,
            files.open(member.name) as source,
            atomic_write(target) as handle,
        ):
            while size <= member.bytes and (chunk := source.read(CHUNK_BYTES)):
                reporter.check()
                size += len(chunk)
                found.update(chunk)
                handle.write(chunk)
            if found.hexdigest() != member.sha256:
                raise zipfile.BadZipFile(
                    f"not the published file of {member.bytes:,} bytes, SHA-256 {member.sha256}"
                )
    except (KeyError, zipfile.BadZipFile, NotImplementedError, EOFError) as damage:
        raise DataError(
            f"{member.name} in {archive} cannot be taken: {damage}",
            remedy="delete the archive and run the command again",
        ) from damage
