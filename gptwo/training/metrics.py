"""Measurements of a run: files with one JSON object per line, nothing else parses the console."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from gptwo.artifacts import disk_errors


class Lines:
    """A file of JSON lines that carry a "step", open at its end.

    Opening it cuts off what came after `step`, the checkpoint that training goes on from, and with
    it any line a kill left half written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        with disk_errors(path):
            if path.exists():
                os.truncate(path, _length_until(path, step))
            self._handle = path.open("a", encoding="utf-8", buffering=1)

    def write(self, line: Mapping[str, object]) -> None:
        with disk_errors(self.path):
            self._handle.write(json.dumps(line) + "\n")

    def sync(self) -> None:
        """What was written is on the disk after this, even if the machine stops."""
        with disk_errors(self.path):
            self._handle.flush()
            os.fsync(self._handle.fileno())

    def close(self) -> None:
        self._handle.close()


def _length_until(path: Path, step: int) -> int:
    """Bytes of the leading whole lines of `path` whose step is at most `step`."""
    length = 0
    with path.open("rb") as handle:
        for line in handle:
            try:
                keep = line.endswith(b"\n") and json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                keep = False
            if not keep:
                break
            length += len(line)
    return length
