"""The model that is served, and whether its files are still what was loaded."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from gptwo.model.gpt2 import GPT2
from gptwo.serve.config import ServeConfig
from gptwo.serve.worker import Worker
from gptwo.tokens.tokenizer import Tokenizer

Marks = tuple[tuple[str, int, int, int], ...]  # name, inode, size and time of each file


@dataclass(kw_only=True)
class Served:
    """A model in memory under the name that clients use, and the worker that runs it."""

    name: str
    model: GPT2
    tokenizer: Tokenizer
    folder: Path
    weights_sha256: str
    config: ServeConfig
    api_key: str = ""
    stopping: bool = False
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        # The files may be mapped into memory: whoever writes over them must not change what is
        # served, nor end it.
        for parameter in self.model.parameters():
            parameter.data = parameter.data.clone()
        self.worker = Worker(self.model, self.tokenizer.eot, self.config)
        self._marks = marks(self.folder)

    def files(self) -> str:
        """Of the folder's files since they were loaded: "unchanged", "changed" or "missing"."""
        now = marks(self.folder)
        if now == self._marks:
            return "unchanged"
        there = {mark[0] for mark in now}
        return "changed" if all(mark[0] in there for mark in self._marks) else "missing"


def marks(folder: Path) -> Marks:
    """What tells a folder's files from others without reading them."""
    try:
        entries = [(entry.name, entry.stat()) for entry in os.scandir(folder) if entry.is_file()]
    except OSError:
        return ()
    return tuple(sorted((n, s.st_ino, s.st_size, s.st_mtime_ns) for n, s in entries))
