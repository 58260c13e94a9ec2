"""Link files, read whole."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from gptwo.web.submissions import Block, Submission, is_dump, opened, parse, read_blocks


def read_submissions(path: Path) -> Iterator[Submission]:
    """Every line of a file, bad ones included."""
    with opened(path) as stream:
        blocks = read_blocks(stream)
        first = next(blocks, Block(start=0))
        yield from parse(path, is_dump(path, first), chain((first,), blocks))
