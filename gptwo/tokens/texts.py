"""The texts of a corpus file, read a few at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from gptwo.errors import DataError

ROWS = 64  # documents held at once


def read_texts(path: Path) -> Iterator[str]:
    """The `text` column of a Parquet file. Raises DataError naming the file when it is damaged."""
    try:
        file = pq.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            raise ValueError("it has no column 'text'")
        for batch in file.iter_batches(batch_size=ROWS, columns=["text"]):
            yield from batch.column(0).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", remedy="build the corpus again") from error
