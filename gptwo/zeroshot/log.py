"""The log of samples: JSON lines in zstd frames, appended as they are finished.

The first frame says what the samples belong to; each later one holds one block of records and
carries a checksum. A process killed while writing leaves a torn last frame: it is cut off when the
log is opened again, everything before it is kept. `zstd -dc` prints the log.
"""

import json
import os
from pathlib import Path
from typing import Any

import zstandard

from gptwo.lock import disk_errors


class SampleLog:
    """Blocks of records that belong to `header`; a log of another header is started anew."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self.blocks: list[list[dict[str, Any]]] = []
        frames, whole = read_frames(path)
        if frames and frames[0] == [header]:
            self.blocks = frames[1:]
            if whole < path.stat().st_size:
                os.truncate(path, whole)
        else:
            path.unlink(missing_ok=True)
            self._write([header])

    def append(self, records: list[dict[str, Any]]) -> None:
        """Add one block; on return it survives a crash of the machine."""
        self._write(records)
        self.blocks.append(records)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        frame = zstandard.ZstdCompressor(write_checksum=True).compress(text.encode())
        with disk_errors(self.path), self.path.open("ab") as handle:
            handle.write(frame)
            handle.flush()
            os.fsync(handle.fileno())


def read_frames(path: Path) -> tuple[list[list[dict[str, Any]]], int]:
    """The whole frames of a log, each a list of records, and how many bytes they take."""
    data = path.read_bytes() if path.exists() else b""
    frames, whole = [], 0
    while whole < len(data):
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            text = frame.decompress(data[whole:])
            if not frame.eof:
                break
            frames.append([json.loads(line) for line in text.splitlines()])
        except (zstandard.ZstdError, ValueError):
            break
        whole = len(data) - len(frame.unused_data)
    return frames, whole


def read_samples(path: Path) -> list[dict[str, Any]]:
    """All records of a log, without its header."""
    frames, _ = read_frames(path)
    return [record for frame in frames[1:] for record in frame]
