"""Measurements of a run: files with one JSON object per line, nothing else parses the console."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gptwo.artifacts import disk_errors

TAIL_BYTES = 1 << 16  # of a file, to find its last whole line


def ignore(line: Mapping[str, Any]) -> None:
    """Nobody else is told of a line."""


class Lines:
    """A file of JSON lines that carry a "step", open at its end.

    Opening it cuts off what came after `step`, the checkpoint that training goes on from, and with
    it any line a kill left half written. Held-out losses are cut after `valid_step`, if given: the
    run may have been stopped while one was measured. `tell` is called with every line.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        valid_step: int | None = None,
        tell: Callable[[Mapping[str, Any]], None] = ignore,
    ) -> None:
        self.path, self._tell = path, tell
        with disk_errors(path):
            if path.exists():
                os.truncate(path, _length_until(path, step, valid_step))
            self._handle = path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: Mapping[str, Any]) -> None:
        with disk_errors(self.path):
            self._handle.write(json.dumps(line) + "\n")
        self._tell(line)

    def sync(self) -> None:
        """What was written is on the disk after this, even if the machine stops."""
        with disk_errors(self.path):
            self._handle.flush()
            os.fsync(self._handle.fileno())

    def close(self) -> None:
        with disk_errors(self.path):
            self._handle.close()


def last_step(path: Path) -> int:
    """The largest step among the last whole lines of `path`; -1 where there is none."""
    try:
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - TAIL_BYTES))
            tail = handle.read().split(b"\n")[:-1]
    except OSError:
        return -1
    found = -1
    for text in tail:
        try:
            found = max(found, int(json.loads(text)["step"]))
        except (ValueError, KeyError, TypeError):  # cut at its front, or damaged
            continue
    return found


def _length_until(path: Path, step: int, valid_step: int | None) -> int:
    """Bytes of the leading whole lines of `path` whose step is at most `step`.

    A held-out loss is kept up to `valid_step`.
    """
    length = 0
    with path.open("rb") as handle:
        for text in handle:
            try:
                line = json.loads(text)
                measured = valid_step is not None and "valid_loss" in line
                most = valid_step if measured else step
                keep = text.endswith(b"\n") and line["step"] <= most
            except (ValueError, KeyError, TypeError):
                keep = False
            if not keep:
                break
            length += len(text)
    return length
