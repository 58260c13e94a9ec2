"""A part of the line over a few documents, in this process: what the joins' tests stand on."""

import random
from collections.abc import Sequence
from pathlib import Path

from gptwo.corpus.build import _Line
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.duplicates.dedup import keys_file
from gptwo.corpus.shards import Draft, document_id, write_shard
from gptwo.pool import Job, Task


class Here:
    """Runs the tasks of a build in this process."""

    def __init__(self, config: CorpusConfig) -> None:
        self.config = config

    def run(self, title: str, job: Job, tasks: Sequence[Task]) -> None:
        for task in tasks:
            job(task, self.config, lambda number: None)


def line_of(folder: Path, texts: list[str], config: CorpusConfig, **fields: list) -> _Line:
    """Documents as the stages before left them, in two shards.

    `fields` holds other columns of them; the URL of number n is http://a.example/n.
    """
    line = _Line(folder / "work", Here(config))  # type: ignore[arg-type]
    drafts = [
        Draft(row=n, id=document_id(text), url=f"http://a.example/{n}", text=text)
        for n, text in enumerate(texts)
    ]
    for name, values in fields.items():
        for draft, value in zip(drafts, values, strict=True):
            setattr(draft, name, value)
    half = len(drafts) // 2
    for name, part in (("a", drafts[:half]), ("b", drafts[half:])):
        line.shards.append(folder / f"{name}.parquet")
        write_shard(line.shards[-1], part)
    line.keys = line._each("keys", keys_file, line.shards)
    line.totals = {"documents": len(texts), "characters": sum(map(len, texts))}
    return line


def number_of(row: dict) -> int:
    """Of the document that a row is about."""
    return int(row["url"].rpartition("/")[2])


def sentence(seed: int, words: int) -> str:
    """Words that stand nowhere else."""
    chance = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(chance.choices(letters, k=7)) for _ in range(words))
