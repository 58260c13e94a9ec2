"""What a report needs of large Parquet tables, read once, a batch at a time."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.urls import host_of

EXAMPLES = 5  # of each reason
EXCERPT_CHARACTERS = 280
BATCH_ROWS = 2_000
BINS_PER_DECADE = 16  # of the length histogram
LONGEST_DECADE = 8  # 100 million characters


@dataclass
class Survey:
    """Hosts and lengths of documents."""

    documents: int = 0
    characters: int = 0
    hosts: Counter[str] = field(default_factory=Counter)
    lengths: np.ndarray = field(
        default_factory=lambda: np.zeros(BINS_PER_DECADE * LONGEST_DECADE, dtype=np.int64)
    )

    @staticmethod
    def edges() -> np.ndarray:
        """Bin edges of `lengths` in characters: equal steps on a logarithmic axis."""
        return 10 ** (np.arange(BINS_PER_DECADE * LONGEST_DECADE + 1) / BINS_PER_DECADE)


def survey(files: Sequence[Path]) -> Survey:
    """Count the documents in some files by host and by length in characters."""
    found = Survey()
    for batch in _batches(files, ["url", "text"]):
        counted = pc.call_function("utf8_length", [batch["text"]])
        lengths = counted.fill_null(0).to_numpy(zero_copy_only=False)
        found.documents += len(lengths)
        found.characters += int(lengths.sum())
        found.lengths += np.histogram(np.maximum(lengths, 1), bins=Survey.edges())[0]
        urls = batch["url"].to_pylist()
        found.hosts.update(host_of(url or "").removeprefix("www.") for url in urls)
    return found


def examples(
    files: Sequence[Path], by: Sequence[str], columns: Sequence[str]
) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """The first few rows of each value of the columns `by`; long texts are cut to an excerpt."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for batch in _batches(files, [*by, *columns]):
        keys = list(zip(*(batch[name].to_pylist() for name in by), strict=True))
        wanted = []
        for row, key in enumerate(keys):
            rows = found.setdefault(key, [])
            if len(rows) < EXAMPLES:
                rows.append({})
                wanted.append((row, key, len(rows) - 1))
        taken = batch.take(pa.array([row for row, _, _ in wanted], pa.int64())).to_pylist()
        for (_, key, place), values in zip(wanted, taken, strict=True):
            found[key][place] = {name: excerpt(values[name]) for name in columns}
    return found


def excerpt(value: Any) -> Any:
    """A text's first words on one line; other values as they are."""
    if not isinstance(value, str):
        return value
    line = " ".join(value[: 4 * EXCERPT_CHARACTERS].split())
    cut = len(line) > EXCERPT_CHARACTERS or len(value) > 4 * EXCERPT_CHARACTERS
    return line[:EXCERPT_CHARACTERS] + (" …" if cut else "")


def _batches(files: Sequence[Path], columns: list[str]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as table:
            yield from table.iter_batches(batch_size=BATCH_ROWS, columns=columns)
