"""Who may write to a folder, and what to say when the disk will not."""

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gptwo.errors import ResourceError, UsageError

LOCK = ".lock"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process. A lock left by a dead process of this host is taken over.

    A folder that is made for it and stays empty is removed again.
    """
    refuse_file(folder)
    path, is_new = folder / LOCK, not folder.exists()
    mine = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
    while True:
        try:
            with disk_errors(path):
                _make(folder)
                with path.open("x", encoding="utf-8") as handle:
                    handle.write(mine)
            break
        except FileNotFoundError:  # another process has just removed the folder it had made
            continue
        except FileExistsError:
            if _held_by_us(path):  # a stage inside a run that holds the same folder
                yield
                return
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # some file systems, as /proc, have no room for folders
        raise ResourceError(
            f"cannot make {folder}: {error.strerror}", remedy="choose a folder you may write to"
        ) from error


def refuse_file(folder: Path) -> None:
    """A `UsageError` where a file lies in the way of `folder`."""
    found = existing_parent(folder)
    if not found.is_dir():
        raise UsageError(f"{found} is a file, expected a folder", remedy="choose another --out")


def _held_by_us(path: Path) -> bool:
    """True when this process holds the lock; a stale one is removed; a living one refuses."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        pid, host = int(holder["pid"]), str(holder["host"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError):
        pid, host = -1, socket.gethostname()  # killed while writing it
    if pid == os.getpid() and host == socket.gethostname():
        return True
    if host != socket.gethostname() or (pid > 0 and _is_running(pid)):
        raise UsageError(
            f"{path.parent} is in use by process {pid} on {host}",
            remedy=f"wait for it, choose another folder, or delete {path} if it is gone",
        )
    path.unlink(missing_ok=True)
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with suppress(OSError):  # a zombie runs no more
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into an error that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            free = shutil.disk_usage(existing_parent(path)).free
            raise ResourceError(
                f"cannot write {path}: {error.strerror}, {free / 1e6:,.0f} MB free",
                remedy="make room and run the same command again; nothing committed was lost",
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise ResourceError(
                f"cannot write {path}: {error.strerror}",
                remedy="choose a folder you may write to",
            ) from error
        raise


def existing_parent(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
