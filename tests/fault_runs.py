"""One tiny run for the tests of commands and faults, and ways to call, start and damage things."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_arrow

from gptwo.artifacts import Manifest, read_json, sha256_file, write_manifest
from gptwo.cli import main

MODULE = [sys.executable, "-m", "gptwo.cli"]
TRAIN = (
    "train {run}/tokens --tokenizer {run}/tokenizer --out {out} --size femto "
    "--set training.batch_tokens=256 --set training.micro_batch=2 --set training.warmup_steps=2 "
    "--set training.validation_tokens=256 "
)


@dataclass(frozen=True)
class Made:
    """A finished run, not to be changed, and what the command that made it said."""

    run: Path
    out: str
    err: str


_made: list[Made] = []


def tiny_run(factory: pytest.TempPathFactory) -> Made:
    """Made once for all test files of one process."""
    if not _made:
        run = factory.mktemp("faults") / "run"
        ran = subprocess.run(
            [*MODULE, *tiny_arrow.arguments(run)], capture_output=True, text=True, timeout=250
        )
        assert ran.returncode == 0, ran.stderr
        _made.append(Made(run, ran.stdout, ran.stderr))
    return _made[0]


def spelt(template: str, **places: Path) -> list[str]:
    """The words of a quiet command."""
    return [word.format(**places) for word in [*template.split(), "--quiet"]]


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)

    def is_error(self, code: int, *texts: str) -> None:
        """Two lines on stderr, no traceback, everything in `texts` (in any case) named."""
        assert self.code == code, (self.code, self.err)
        lines = [line for line in self.err.splitlines() if line.startswith(("error: ", "try:   "))]
        assert [line[:5] for line in lines] == ["error", "try: "], self.err
        assert "Traceback" not in self.err and "should have been said better" not in self.err
        for text in texts:
            assert text.lower() in " ".join(lines).lower(), (text, self.err)


class Caller:
    """Calls commands in this process: `call("verify", run)`."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *words: str | Path) -> Answer:
        self.capfd.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *self.capfd.readouterr())


def start(words: list[str], stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*MODULE, *words], stdin=stdin, stdout=pipe, stderr=pipe, text=True)


def end(process: subprocess.Popen[str]) -> Answer:
    """Wait, within a bound, for a command that was started."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return Answer(process.returncode, out, err)


def wait_for(process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
    """Until `moment` has come; the process must still be there."""
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.001)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, here and in child processes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder that must be the same on every run, and their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("timings.jsonl", ".lock")
    }


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def flip(path: Path, *, at: float = 0.5) -> None:
    """Flip one bit, `at` this share of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def cut(path: Path, *, to: float = 0.5) -> None:
    os.truncate(path, int(to * path.stat().st_size))


def sign_again(folder: Path) -> None:
    """Write the manifest anew, as if the files had been made as they are now."""
    manifest = Manifest(**read_json(folder / "manifest.json"))
    for name, entry in manifest.files.items():
        path = folder / name
        entry.update(bytes=path.stat().st_size, sha256=sha256_file(path))
    write_manifest(folder, manifest)


@contextmanager
def one_core() -> Iterator[None]:
    """Here and in child processes: sums are cut among threads, and two cores may be busy."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
