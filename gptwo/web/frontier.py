"""Links that wait to be fetched, grouped by host, in a file: memory holds a few bytes for each."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write
from gptwo.errors import DataError

BATCH_LINKS = 65_536
_HOST = r"^(?P<host>\[[^\]]*\]|[^/?:]*)"  # what a canonical key begins with


class HostQueue:
    """The links of one host that are not done."""

    def __init__(self, frontier: "Frontier", runs: list[tuple[int, int]]) -> None:
        self._frontier, self._runs = frontier, runs

    def __len__(self) -> int:
        done = self._frontier.done
        return sum(end - start - int(done[start:end].sum()) for start, end in self._runs)

    def __iter__(self) -> Iterator[int]:
        done = self._frontier.done
        return (n for start, end in self._runs for n in range(start, end) if not done[n])

    @property
    def done_bytes(self) -> int:
        """Bytes of bodies that were fetched before."""
        sizes = self._frontier.sizes
        return 0 if sizes is None else sum(int(sizes[a:b].sum()) for a, b in self._runs)


class Frontier:
    """The addresses of a links folder by number, their row in `links.parquet`.

    A host's links are neighbours there, for the table is sorted by key. They lie uncompressed in a
    file that is mapped, so the system may drop and read again what memory has no room for.
    """

    def __init__(self, links: Path, work: Path) -> None:
        table = links / "links.parquet"
        try:
            if not (work / "links.arrow").exists():
                _unpack(table, work / "links.arrow")
            self._map = pa.memory_map(str(work / "links.arrow"))
            reader = pa.ipc.open_file(self._map)
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            self._urls = pa.chunked_array([b.column(0) for b in batches], pa.large_string())
            self._starts, self._hosts = _runs(table)
        except (pa.ArrowException, KeyError, ValueError) as error:  # no such columns
            raise DataError(
                f"{table} is not a table of links: {str(error).splitlines()[0]}",
                remedy="make the folder with gptwo links",
            ) from error
        self.done = np.zeros(len(self._urls), dtype=bool)
        self.sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._urls)

    def url(self, number: int) -> str:
        return self._urls[number].as_py()

    def keep_sizes(self) -> None:
        """Remember from now on how large what is done was."""
        self.sizes = np.zeros(len(self), dtype=np.int64)

    def note(self, number: int, size: int) -> None:
        """A link is done, and gave `size` bytes."""
        self.done[number] = True
        if self.sizes is not None:
            self.sizes[number] = size

    def hosts(self, most: int = 0) -> Iterator["HostQueue"]:
        """What is left of each host, the longest queues first; `most` links of each, 0 for all."""
        order = np.argsort(self._hosts, kind="stable")  # runs of links by host
        begins = np.flatnonzero(np.diff(self._hosts[order], prepend=-1))
        lengths = np.diff(np.append(self._starts, len(self)))[order]
        totals = np.add.reduceat(lengths, begins) if len(begins) else begins
        for i in np.argsort(-totals, kind="stable"):
            last = begins[i + 1] if i + 1 < len(begins) else len(order)
            runs = [(int(self._starts[j]), self._end(j)) for j in order[begins[i] : last]]
            queue = HostQueue(self, _cut(runs, most))
            if len(queue):
                yield queue

    def _end(self, run: int) -> int:
        return int(self._starts[run + 1]) if run + 1 < len(self._starts) else len(self)

    def close(self) -> None:
        self._urls = pa.chunked_array([], pa.large_string())
        self._map.close()


def _unpack(table: Path, path: Path) -> None:
    """Write the addresses as an Arrow file, in the same order."""
    schema = pa.schema([("url", pa.large_string())])
    with (
        pq.ParquetFile(table) as file,
        atomic_write(path) as handle,
        pa.ipc.new_file(handle, schema) as out,
    ):
        for batch in file.iter_batches(BATCH_LINKS, columns=["url"]):
            out.write_batch(batch.cast(schema))


def _runs(table: Path) -> tuple[np.ndarray, np.ndarray]:
    """(runs,) numbers of the links at which another host begins, and a number for that host.

    A host has more runs than one where names sort between its own: `a.com`, `a.com-b.net/`,
    `a.com/x`.
    """
    starts, names, before, at = [], [], None, 0
    options = pc.ExtractRegexOptions(_HOST)
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(BATCH_LINKS, columns=["key"]):
            found = pc.call_function("extract_regex", [batch.column(0)], options)
            hosts = found.field("host")
            first = np.array([hosts[0].as_py() != before])
            changes = pc.call_function("not_equal", [hosts[1:], hosts[:-1]])
            here = np.flatnonzero(np.append(first, changes.to_numpy(zero_copy_only=False)))
            starts.append(here + at)
            names.append(hosts.take(pa.array(here)))
            before, at = hosts[len(hosts) - 1].as_py(), at + len(hosts)
    if not starts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    codes = pa.chunked_array(names).combine_chunks().dictionary_encode().indices
    return np.concatenate(starts), codes.to_numpy().astype(np.int64)


def _cut(runs: list[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """The first `most` numbers of some runs; all of them for 0."""
    kept, left = [], most or sum(end - start for start, end in runs)
    for start, end in runs:
        kept.append((start, min(end, start + left)))
        left -= kept[-1][1] - start
    return kept
