"""The texts of a corpus as Arrow arrays of bounded size; nothing becomes a Python string."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.errors import DataError

BATCH_BYTES = 2 << 20  # of text taken at once; a document that is longer is cut
SPACE, NEWLINE = 0x20, 0x0A


def read_documents(files: Iterable[Path], *, skip: int = 0) -> Iterator[pa.Array]:
    """The `text` column of Parquet files from document `skip` on, as arrays of large strings.

    Groups of rows that lie before `skip` are not read. Raises DataError naming the file that is
    damaged or has a row without text.
    """
    for path in files:
        try:
            file = pq.ParquetFile(path)
            if "text" not in file.schema_arrow.names:
                raise ValueError("it has no column 'text'")
            column = file.schema_arrow.names.index("text")
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                if skip >= group.num_rows:
                    skip -= group.num_rows
                    continue
                mean = group.column(column).total_uncompressed_size // group.num_rows
                rows = max(1, BATCH_BYTES // (mean + 1))
                for batch in file.iter_batches(rows, row_groups=[number], columns=["text"]):
                    texts = batch.column(0)[skip:].cast(pa.large_string())
                    skip = max(0, skip - batch.num_rows)
                    if texts.null_count:
                        raise ValueError("it has a row without text")
                    if len(texts):
                        yield texts
                pa.default_memory_pool().release_unused()  # else freed pages pile up
        except (OSError, ValueError, pa.ArrowException) as error:
            raise DataError(
                f"{path} is damaged: {error}", remedy="build the corpus again"
            ) from error


def segments(texts: pa.Array) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Large strings -> arrays of about BATCH_BYTES, with long texts cut into several strings.

    Beside each array a bool per string: whether it begins a text. Texts are cut only where the
    encoder cuts anyway, so the ids of the parts are the ids of the whole. A text in which there is
    no such place (no space or line end after a visible character) stays whole.
    """
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    begins = np.ones(len(texts), bool)
    long = np.flatnonzero(np.diff(edges) > BATCH_BYTES)
    if len(long):
        raw = np.frombuffer(data, np.uint8)
        cuts = [_cuts(raw, int(edges[i]), int(edges[i + 1])) for i in long]
        where = np.repeat(long + 1, [len(places) for places in cuts])
        edges = np.insert(edges, where, np.concatenate(cuts))
        begins = np.insert(begins, where, False)
    group = (edges[:-1] - edges[0]) // BATCH_BYTES
    limits = [0, *np.flatnonzero(np.diff(group)) + 1, len(begins)]
    for first, last in pairwise(limits):
        part = pa.py_buffer(np.ascontiguousarray(edges[first : last + 1]))
        yield pa.LargeStringArray.from_buffers(last - first, part, data), begins[first:last]


def _cuts(raw: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Where to cut the text raw[begin:end] so that its parts have about BATCH_BYTES.

    White space that follows a visible character always begins a piece of the pre-tokeniser, and
    no piece looks back; so the parts are cut into the very pieces of the whole.
    """
    places = []
    reach = begin + BATCH_BYTES
    while reach < end:
        first = max(begin, reach - BATCH_BYTES)
        window = raw[first:reach]
        spaces = (window[1:] == SPACE) | (window[1:] == NEWLINE)
        for place in first + 1 + np.flatnonzero(spaces & (window[:-1] > SPACE))[::-1]:
            before = raw[max(begin, place - 4) : place].tobytes().decode("utf-8", "ignore")[-1:]
            if before and not before.isspace():
                places.append(reach := int(place))
                break
        reach += BATCH_BYTES
    return np.array(places, np.int64)
