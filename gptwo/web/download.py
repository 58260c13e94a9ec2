"""Downloads that are pinned: one file by its address and SHA-256, resumed where it stopped.

Nothing is trusted on first use. What is received lies in a `.part` file, which survives a kill; a
file gets its name once its hash is the pinned one. Proxies are those of the environment.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptwo import __version__
from gptwo.artifacts import sha256_file, sync_folder
from gptwo.errors import DataError, ModelError, NetworkError, ResourceError, UsageError
from gptwo.lock import disk_errors
from gptwo.progress import Reporter, duration

if TYPE_CHECKING:
    import httpx2

SPARE_BYTES = 16_000_000  # left on the disk beside a download
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better next time
NOT_OURS = {  # how things begin that servers and proxies send in a file's place
    rb"\s*<(!doctype|html|head|\?xml)": "a web page",
    rb"version https://git-lfs": "a Git LFS pointer, not the file itself",
}


@dataclass(frozen=True)
class Pin:
    """How a file must be. The size is None where only the hash is known from two sources."""

    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a download waits, and how often it tries again without any progress."""

    connect_seconds: float = 10.0
    stall_seconds: float = 20.0  # without a single byte
    tries: int = 5
    pause_seconds: float = 1.0  # before the second try; doubles
    max_pause_seconds: float = 30.0  # a longer Retry-After is cut to this


PATIENCE = Patience()


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """What a download is for: the error that a wrong file is, and what else one could do."""

    error: type[DataError] | type[ModelError]
    mirror: str  # how to name another server
    instead: str
    room: str  # what helps when the disk is too small


class _AgainError(Exception):
    """A fault that may be gone at the next try; `wait` is what the server asked for, in seconds."""

    def __init__(self, what: str, wait: float = 0.0) -> None:
        super().__init__(what)
        self.wait = wait


@contextmanager
def client(patience: Patience) -> "Iterator[httpx2.Client]":
    try:
        import httpx2
    except ImportError:
        raise UsageError(
            "downloading needs the package httpx2", remedy="pip install 'gptwo[web]'"
        ) from None
    stall = patience.stall_seconds
    with httpx2.Client(
        timeout=httpx2.Timeout(stall, connect=patience.connect_seconds),
        follow_redirects=True,
        max_redirects=5,  # the hub sends one to where its large files lie
        headers={"User-Agent": f"gptwo/{__version__}", "Accept-Encoding": "identity"},
    ) as client:
        yield client


class Download:
    """One file on its way: what of it lies in `part`, how that hashes, how large it will be."""

    def __init__(
        self, client: "httpx2.Client", url: str, part: Path, pin: Pin, purpose: Purpose
    ) -> None:
        self.client, self.url, self.part, self.pin = client, url, part, pin
        self.purpose = purpose
        self.size = pin.bytes  # of the whole file; the server's word where there is no pin
        self.have, self.hash = 0, hashlib.sha256()
        if part.exists():
            with part.open("rb") as handle:
                self.hash = hashlib.file_digest(handle, "sha256")
            self.have = part.stat().st_size
            if self.hash.hexdigest() == pin.sha256:  # stopped just before it was named
                self.size = self.have

    def finish(self, target: Path, reporter: Reporter, patience: Patience) -> None:
        """Receive what is missing, check the whole, put it in its place."""
        if target.exists() and sha256_file(target) == self.pin.sha256:
            return
        resumed = self.have > 0
        with reporter.bar(f"download {target.name}", self.size, "bytes") as self.bar:
            self._receive_all(reporter, patience)
            if resumed and self.hash.hexdigest() != self.pin.sha256:
                self._start_over()  # what lay there was not the beginning of this file
                self._receive_all(reporter, patience)
        if self.hash.hexdigest() != self.pin.sha256:
            self.part.unlink()
            raise self.purpose.error(
                f"{self.url} has {self.have:,} bytes with SHA-256 {self.hash.hexdigest()}, "
                f"expected {self.pin.sha256}",
                remedy="the file was changed on its way or at its source: try another network, or "
                f"{self.purpose.instead}",
            )
        with disk_errors(target):
            self.part.replace(target)
            sync_folder(target.parent)

    def _receive_all(self, reporter: Reporter, patience: Patience) -> None:
        """Ask until the last byte is there or nothing new comes any more."""
        failures, furthest = 0, self.have
        while self.size is None or self.have != self.size:
            try:
                self._receive(reporter)
            except _AgainError as fault:
                failures = 1 if self.have > furthest else failures + 1
                furthest = max(furthest, self.have)
                if failures >= patience.tries:
                    raise NetworkError(
                        f"{self.url}: {fault} ({failures} tries, {self.have:,} bytes are here)",
                        remedy="run the same command again, it goes on from there; behind a proxy "
                        f"set HTTPS_PROXY{self.purpose.mirror}",
                    ) from fault
                pause = max(fault.wait, patience.pause_seconds * 2 ** (failures - 1))
                pause = min(pause, patience.max_pause_seconds)
                reporter.say(f"{self.part.stem}: {fault}; asking again in {duration(pause)}")
                _pause(pause, reporter)

    def _receive(self, reporter: Reporter) -> None:
        """One request for the rest of the file."""
        import httpx2

        asked = {"Range": f"bytes={self.have}-"} if self.have else {}
        try:
            with self.client.stream("GET", self.url, headers=asked) as answer:
                self._append(answer, self._goes_on(answer), reporter)
        except (httpx2.TooManyRedirects, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise NetworkError(
                f"{self.url}: {error}", remedy=f"check the proxy{self.purpose.mirror}"
            ) from error
        except httpx2.TransportError as error:
            raise _AgainError(f"{type(error).__name__} {error}".strip()) from error
        if self.have != self.size:
            raise _AgainError(f"the answer ended after {self.have:,} of {self.size:,} bytes")

    def _goes_on(self, answer: "httpx2.Response") -> bool:
        """Whether an answer continues what is here; False: it is the file from its start."""
        status = answer.status_code
        if status in BUSY:
            raise _AgainError(f"the server answered {status}", _retry_after(answer))
        if self.have and status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("content-range", ""))
            if found and int(found[1]) == self.have and self.size in (None, int(found[2])):
                self.size = int(found[2])
                return True
        if self.have and status in (206, 416):  # another file, or none as long as what is here
            self._start_over()
            raise _AgainError(f"the server answered {status} to a part of the file")
        if status != 200:
            raise NetworkError(
                f"{self.url} was answered with {status}, expected the file",
                remedy=f"check the network and the proxy{self.purpose.mirror}, or "
                f"{self.purpose.instead}",
            )
        return False

    def _append(self, answer: "httpx2.Response", goes_on: bool, reporter: Reporter) -> None:
        chunks = answer.iter_raw()
        first = next(chunks, b"")
        if not goes_on:  # what is here is dropped only for what looks like the file
            self._check_start(first, answer.headers.get("content-length", ""))
            self._start_over()
            self.size = self.pin.bytes or int(answer.headers["content-length"])
        assert self.size is not None
        self.bar.total = self.size - self.have + self.bar.done
        _check_room(self.part, self.size - self.have, self.purpose)
        with disk_errors(self.part), self.part.open("ab") as handle:
            while first:
                if self.have + len(first) > self.size:
                    raise self._wrong(f"more than {self.size:,} bytes")
                handle.write(first)
                self.hash.update(first)
                self.have += len(first)
                self.bar.advance(len(first))
                reporter.check()
                first = next(chunks, b"")
            handle.flush()
            os.fsync(handle.fileno())

    def _check_start(self, first: bytes, length: str) -> None:
        """Call what is no such file by its name, before it is received."""
        for start, kind in NOT_OURS.items():
            if re.match(start, first, re.IGNORECASE):
                raise self._wrong(kind)
        if self.pin.bytes is None and not length.isdigit():
            raise self._wrong("a file of unknown size")
        if self.pin.bytes is not None and length.isdigit() and int(length) != self.pin.bytes:
            raise self._wrong(f"{int(length):,} bytes, not {self.pin.bytes:,}")

    def _wrong(self, found: str) -> DataError | ModelError:
        return self.purpose.error(
            f"{self.url} gave {found}, expected {self.part.stem}",
            remedy="a proxy or a sign-in page may answer in its place: open the address in a "
            f"browser, or {self.purpose.instead}",
        )

    def _start_over(self) -> None:
        self.part.unlink(missing_ok=True)
        self.have, self.hash, self.size = 0, hashlib.sha256(), self.pin.bytes


def _check_room(path: Path, needed: int, purpose: Purpose) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed + SPARE_BYTES:
        raise ResourceError(
            f"{path} needs {needed / 1e6:,.0f} MB more, {free / 1e6:,.0f} MB are free",
            remedy=f"make room, or {purpose.room}",
        )


def _retry_after(answer: "httpx2.Response") -> float:
    asked = answer.headers.get("retry-after", "")
    return float(asked[:9]) if asked.isascii() and asked.isdigit() else 0.0


def _pause(seconds: float, reporter: Reporter) -> None:
    """Sleep, but hear a request to stop."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        reporter.check()
        time.sleep(min(left, 0.2))
