"""A corpus -> its distinct pieces and how often each occurs.

Each file of texts makes a file of counts: a job of the pool, a pure function of its input, whoever
runs it. Then the counts are added up. Texts stay in Arrow's buffers and are cut and counted in C
where the kernel could be built, else by `PlainCounter`; both count the same. Memory follows the
number of distinct pieces and is bounded in both steps: the rest lies on disk.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptwo.artifacts import atomic_write
from gptwo.pool import Pool, Task
from gptwo.progress import Reporter
from gptwo.tokens.bpe import cut, stretches
from gptwo.tokens.texts import read_documents

HELD_BYTES = 128 << 20  # of pieces in the memory of one process; a growing table takes twice that
PIECE_BYTES = 150  # what one costs in a dictionary
ITEM = 8  # bytes of an int64
SCHEMA = pa.schema([("piece", pa.large_binary()), ("count", pa.int64())])

# Pieces data[offsets[i]:offsets[i + 1]] and their counts, as bytes of int64 offsets and counts.
Pieces = tuple[bytes, bytes, bytes]


def count_files(
    files: Sequence[Path], folder: Path, workers: int, reporter: Reporter
) -> list[Path]:
    """A file of counts in `folder` for each file of texts; what is there is not made again."""
    outputs = [folder / f"{path.stem}.arrow" for path in files]
    tasks = [Task(input=path, output=out) for path, out in zip(files, outputs, strict=True)]
    with Pool(None, workers, reporter, preload=__name__) as pool:
        pool.run("tokenizer: count", count_file, tasks)
    return outputs


def count_file(task: Task, config: None, at: Callable[[int], None]) -> None:
    """How often each piece occurs in the texts of one Parquet file.

    When there are too many to hold, those counted so far are written and counting begins anew: a
    piece may stand in the output more than once.
    """
    counter, done = new_counter(), 0
    with atomic_write(task.output) as handle, pa.ipc.new_file(handle, SCHEMA) as output:
        for texts in read_documents([task.input]):
            counter.add(*buffers(texts))
            done += len(texts)
            at(done - 1)
            if counter.held() > HELD_BYTES:
                output.write_batch(_batch(counter.take()))
        output.write_batch(_batch(counter.take()))


def sum_counts(files: Sequence[Path], reporter: Reporter) -> Iterator[Pieces]:
    """The counts of all files added up, in as many parts as it takes to hold one at a time."""
    parts = 1
    while (counter := _sum_part(files, 0, parts, reporter)) is None:
        parts *= 4
    yield counter.take()
    for part in range(1, parts):
        yield _sum_part(files, part, parts, reporter).take()


def _sum_part(files: Sequence[Path], part: int, parts: int, reporter: Reporter) -> Any:
    """A counter of the pieces that fall into `part`, which their bytes decide."""
    counter = new_counter()
    for path in files:
        for data, offsets, counts in _read_counts(path):
            reporter.check()
            counter.add_counts(data, offsets, counts, part, parts)
            if not part and counter.held() > HELD_BYTES:  # the others are about as large
                return None
    return counter


def _batch(pieces: Pieces) -> pa.RecordBatch:
    data, offsets, counts = map(pa.py_buffer, pieces)
    n = counts.size // ITEM
    texts = pa.Array.from_buffers(pa.large_binary(), n, [None, offsets, data])
    numbers = pa.Array.from_buffers(pa.int64(), n, [None, counts])
    return pa.record_batch([texts, numbers], schema=SCHEMA)


def _read_counts(path: Path) -> Iterator[Any]:
    with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            if batch.num_rows:
                yield *buffers(batch["piece"]), batch["count"].to_numpy()


def buffers(texts: pa.Array) -> tuple[Any, np.ndarray]:
    """The bytes of large strings, and the int64 offsets at which each begins and the last ends."""
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return data or b"", edges


def new_counter() -> Any:
    """The kernel's counter, or its plain twin."""
    try:
        from gptwo.native._count import Counter as Kernel  # type: ignore[import-not-found]
    except ImportError:
        return PlainCounter()
    return Kernel()


class PlainCounter:
    """The readable twin of the C kernel."""

    def __init__(self) -> None:
        self.counts: Counter[bytes] = Counter()

    def add(self, data: Any, offsets: Any) -> None:
        """Count the pieces of texts."""
        for text in split(data, offsets):
            for stretch in stretches(text):
                if isinstance(stretch, bytes):  # not UTF-8
                    self.counts[stretch] += 1
                else:
                    self.counts.update(piece.encode() for piece in cut(stretch))

    def add_counts(self, data: Any, offsets: Any, counts: Any, part: int, parts: int) -> None:
        """Add what was counted before, of the pieces that fall into `part` of `parts`."""
        times = np.frombuffer(counts, np.int64).tolist()
        for piece, count in zip(split(data, offsets), times, strict=True):
            if zlib.crc32(piece) % parts == part:
                self.counts[piece] += count

    def take(self) -> Pieces:
        """What was counted; the counter is empty afterwards."""
        lengths = np.fromiter(map(len, self.counts), np.int64, len(self.counts))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        counts = np.fromiter(self.counts.values(), np.int64, len(self.counts))
        data = b"".join(self.counts)
        self.counts.clear()
        return data, offsets.astype(np.int64).tobytes(), counts.tobytes()

    def held(self) -> int:
        """Bytes of memory, about."""
        return len(self.counts) * PIECE_BYTES


def split(data: Any, offsets: Any) -> Iterator[bytes]:
    """The strings data[offsets[i]:offsets[i + 1]]."""
    view, edges = memoryview(data), np.frombuffer(offsets, np.int64).tolist()
    for begin, end in pairwise(edges):
        yield bytes(view[begin:end])
