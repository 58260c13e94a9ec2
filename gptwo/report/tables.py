"""What a report needs of large Parquet tables, read once, a batch at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

EXAMPLES = 5  # of each reason
EXCERPT_CHARACTERS = 280
BATCH_ROWS = 2_000


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
