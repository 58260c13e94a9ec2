"""How results lie on disk: whole or not at all, and able to prove it.

A file is written under a temporary name, synced and renamed. A folder counts once its
`manifest.json`, written last, lists every file with its size and SHA-256 together with the settings
and the inputs that made it. `stage` is the one way a room makes such a folder: it locks it,
recognises finished work, keeps partial work of the same settings and commits at the end.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from gptwo.config import differences
from gptwo.errors import DataError, GptwoError, UsageError
from gptwo.lock import LOCK, disk_errors, lock, refuse_file
from gptwo.progress import SILENT, Reporter
from gptwo.records import label_paths

MANIFEST = "manifest.json"
WORK = ".work"  # partial results of an unfinished stage
FORMAT_VERSION = 1
PIECE = 1 << 20  # bytes of a file that are hashed at a time


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary sibling of `path`; on success sync it and rename it into place."""
    refuse_file(path.parent)
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a file", remedy="choose another name")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        encoding = None if "b" in mode else "utf-8"
        with disk_errors(path), temporary.open(mode, encoding=encoding) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        with disk_errors(path):
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    with atomic_write(path, "w") as handle:
        handle.write(_json_text(value))


def _json_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n"


def read_json(path: Path, *, error: type[GptwoError] = DataError) -> Any:
    """Parse a JSON file of ours; `error` is raised when it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist", remedy="check the path") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as damage:
        raise error(
            f"{path} is not JSON: {damage}", remedy="restore the file or make it again"
        ) from damage


def sha256_file(path: Path, advance: Callable[[], None] = lambda: None) -> str:
    """The hash of a file in hex; `advance` is called after every piece."""
    found, buffer = hashlib.sha256(), bytearray(PIECE)
    with path.open("rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            found.update(memoryview(buffer)[:count])
            advance()
    return found.hexdigest()


def digest(value: object) -> str:
    """SHA-256 of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished folder holds and what it was made of."""

    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]  # name -> fingerprint
    files: dict[str, dict[str, Any]]  # relative path -> {"bytes", "sha256"}
    counts: dict[str, Any]
    details: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""  # identity of the content; what later stages depend on
    format_version: int = FORMAT_VERSION
    manifest_sha256: str = ""  # of this manifest's text with "" here; filled in when written


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json with the SHA-256 of its own text: no bit of it changes unnoticed."""
    text = _json_text(replace(manifest, manifest_sha256="").__dict__)
    own = hashlib.sha256(text.encode("utf-8")).hexdigest()
    sealed = replace(manifest, manifest_sha256=own)
    write_json(folder / MANIFEST, sealed.__dict__)
    return sealed


def read_manifest(folder: Path, *, error: type[GptwoError] = DataError) -> Manifest:
    """The manifest of a finished folder; raises `error` when there is none."""
    if not (folder / MANIFEST).exists():
        found = "is unfinished" if (folder / WORK).exists() else "has no manifest.json"
        missing = "does not exist" if not folder.exists() else found
        raise error(
            f"{folder} {missing}", remedy="run the command that makes it, again if it was stopped"
        )
    value = read_json(folder / MANIFEST, error=error)
    try:
        manifest = Manifest(**value)
        for entry in manifest.files.values():
            _ = int(entry["bytes"]), str(entry["sha256"])
    except (TypeError, ValueError, LookupError, AttributeError):
        raise error(
            f"{folder / MANIFEST} is not a gptwo manifest", remedy="make the folder again"
        ) from None
    text, own = (folder / MANIFEST).read_bytes(), str(manifest.manifest_sha256)
    if hashlib.sha256(text.replace(own.encode("utf-8"), b"", 1)).hexdigest() != own:
        raise error(
            f"{folder / MANIFEST} ({len(text):,} bytes) does not match its own SHA-256",
            remedy="restore it from a copy, or delete the folder and make it again",
        )
    return manifest


def damage(
    folder: Path,
    manifest: Manifest,
    *,
    hashes: bool = True,
    names: Collection[str] | None = None,
) -> list[str]:
    """What is wrong with a folder's files, a line each; empty when all is well.

    With `names` only those are looked at: beside them may lie gigabytes that are not read now.
    """
    problems = []
    for name, expected in manifest.files.items():
        if names is not None and name not in names:
            continue
        path = folder / name
        if not path.exists():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(f"{path} has {path.stat().st_size:,} bytes, not {expected['bytes']:,}")
        elif hashes and sha256_file(path) != expected["sha256"]:
            problems.append(f"{path} ({expected['bytes']:,} bytes) does not match its SHA-256")
    return problems


def open_folder(
    folder: Path, kind: str, *, error: type[GptwoError] = DataError, hashes: bool = True
) -> Manifest:
    """The verified manifest of a finished folder of `kind`."""
    manifest = read_manifest(folder, error=error)
    if manifest.kind != kind:
        raise error(
            f"{folder} holds {manifest.kind}, expected {kind}", remedy="check the order of paths"
        )
    problems = damage(folder, manifest, hashes=hashes)
    if problems:
        raise error(
            f"{problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""),
            remedy="restore the file from a copy or delete the folder and make it again",
        )
    return manifest


def describe_files(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """name -> {"bytes", "sha256"} for files under `folder`."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)}
        for name in sorted(names)
    }


def content_files(folder: Path) -> list[str]:
    """Relative names of all files that belong to the folder's content."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in (MANIFEST, LOCK)
        and ".tmp-" not in path.name
        and WORK not in path.relative_to(folder).parts
    )


def fingerprint_inputs(paths: Iterable[Path], reporter: Reporter = SILENT) -> dict[str, str]:
    """label -> SHA-256 for files a user handed in; folders count through their files."""
    labels = label_paths(paths)
    files = {path: _files_in(path) for path in labels}
    pieces = sum(-(-file.stat().st_size // PIECE) for held in files.values() for file in held)
    with reporter.bar("reading inputs", pieces, "MiB") as bar:

        def advance() -> None:
            reporter.check()
            bar.advance()

        return {label: _fingerprint(path, files[path], advance) for path, label in labels.items()}


def _files_in(path: Path) -> list[Path]:
    """The files that must be read to know a path; none where a manifest speaks for them."""
    if not path.exists():
        raise DataError(f"{path} does not exist", remedy="check the path")
    if not path.is_dir():
        return [path]
    if (path / MANIFEST).exists():
        return []
    return [path / name for name in content_files(path)]


def _fingerprint(path: Path, files: list[Path], advance: Callable[[], None]) -> str:
    if not path.is_dir():
        return sha256_file(path, advance)
    if (path / MANIFEST).exists():
        return read_manifest(path).fingerprint
    return digest({str(file.relative_to(path)): sha256_file(file, advance) for file in files})


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed writer left behind."""
    for path in folder.rglob("*.tmp-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


@dataclass
class Stage:
    """A folder being made. `done` holds its manifest when there is nothing left to do."""

    folder: Path
    kind: str
    config: dict[str, Any]
    inputs: dict[str, str]
    done: Manifest | None = None

    @property
    def work(self) -> Path:
        """Where partial results live until the commit; survives a kill, not a change of plan."""
        path = self.folder / WORK
        path.mkdir(parents=True, exist_ok=True)
        return path

    def commit(
        self,
        *,
        counts: Mapping[str, Any],
        details: Mapping[str, Any] | None = None,
        fingerprint: str | None = None,
    ) -> Manifest:
        """Hash every file of the folder, drop the partial work, write the manifest last.

        `fingerprint` identifies the content; by default the hash of all file names and hashes.
        Give one where the bytes may differ for the same content (records in arrival order).
        """
        files = describe_files(self.folder, content_files(self.folder))
        content = digest({name: entry["sha256"] for name, entry in files.items()})
        manifest = Manifest(
            kind=self.kind,
            config=self.config,
            inputs=self.inputs,
            files=files,
            counts=dict(counts),
            details=dict(details or {}),
            fingerprint=fingerprint or content,
        )
        sealed = write_manifest(self.folder, manifest)
        shutil.rmtree(self.folder / WORK, ignore_errors=True)
        return sealed


@contextmanager
def stage(
    folder: Path, *, kind: str, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> Iterator[Stage]:
    """Make `folder` under a lock, or find it finished (`stage.done`).

    A finished folder of other settings or inputs is refused; partial work of other settings is
    discarded.
    """
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    plan = {"kind": kind, "config": plain, "inputs": dict(inputs), "format": FORMAT_VERSION}
    with lock(folder):
        _refuse_foreign(folder)
        remove_leftovers(folder)
        made = Stage(folder=folder, kind=kind, config=plain, inputs=dict(inputs))
        if (folder / MANIFEST).exists():
            made.done = _finished(folder, plan)
            yield made
            return
        _prepare_work(folder, plan)
        try:
            yield made
        except GptwoError:
            _drop_empty_work(folder)
            raise


def _refuse_foreign(folder: Path) -> None:
    """Nothing is touched in a folder that holds files and is neither finished nor begun."""
    if (folder / MANIFEST).exists() or (folder / WORK).exists():
        return
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / LOCK]
    if files:
        raise UsageError(
            f"{folder} exists and holds other files ({min(files).relative_to(folder)})",
            remedy="choose another --out",
        )


def _drop_empty_work(folder: Path) -> None:
    """An attempt that made nothing leaves nothing."""
    plan = folder / WORK / "plan.json"
    files = {path for path in folder.rglob("*") if path.is_file()}
    if files <= {plan, folder / LOCK}:
        shutil.rmtree(folder / WORK, ignore_errors=True)


def _finished(folder: Path, plan: dict[str, Any]) -> Manifest:
    manifest = read_manifest(folder)
    changed = differences(
        {"kind": manifest.kind, "config": manifest.config, "inputs": manifest.inputs},
        {key: plan[key] for key in ("kind", "config", "inputs")},
    )
    if changed:
        raise UsageError(
            f"{folder} exists, made from something else ({'; '.join(changed[:3])})",
            remedy="choose another --out, or delete the folder first",
        )
    problems = damage(folder, manifest, hashes=False)
    if problems:
        raise DataError(problems[0], remedy="delete the folder and run the command again")
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return manifest


def _prepare_work(folder: Path, plan: dict[str, Any]) -> None:
    work, path = folder / WORK, folder / WORK / "plan.json"
    leftovers = content_files(folder)
    known = read_json(path) if path.exists() else None
    if work.exists() and known != plan:  # partial work of another plan
        for name in leftovers:
            (folder / name).unlink()
        shutil.rmtree(work)
    if known != plan:
        work.mkdir(parents=True, exist_ok=True)
        write_json(path, plan)


def verify(folder: Path, *, error: type[GptwoError] = DataError) -> dict[str, Any]:
    """Check every finished folder at or below `folder` against its hashes.

    Returns {"folders": n, "files": n, "bytes": n}; raises `error` that lists what is damaged.
    """
    found = sorted(
        path.parent for path in folder.rglob(MANIFEST) if WORK not in path.relative_to(folder).parts
    )
    if not found:
        raise error(f"{folder} holds no {MANIFEST}", remedy="name a run or a model folder")
    problems, files, total = [], 0, 0
    for part in found:
        manifest = read_manifest(part, error=error)
        problems += damage(part, manifest)
        files += len(manifest.files)
        total += sum(entry["bytes"] for entry in manifest.files.values())
    if problems:
        raise error(
            f"{len(problems)} damaged: " + "; ".join(problems[:5]),
            remedy="restore them from a copy, or delete their folder and make it again",
        )
    return {"folders": len(found), "files": files, "bytes": total}
