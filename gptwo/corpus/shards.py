"""How documents lie on disk between the stages: small Parquet files of drafts.

Every stage turns one such file into the next. A dropped draft stays in the file of the stage that
dropped it, with a reason; the next stage takes over only those without.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import atomic_write

SHARD_DOCUMENTS = 64  # documents per work file ...
SHARD_BYTES = 16_000_000  # ... and no more bytes than this, so that books do not pile up

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("text", pa.large_string()),
        ("score", pa.int32()),
        ("date", pa.string()),
        ("lang", pa.string()),
        ("source", pa.string()),
        ("meta", pa.string()),
        ("payload", pa.large_binary()),
        ("charset", pa.string()),
        ("final_url", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


@dataclass(kw_only=True, slots=True)
class Draft:
    """A document on its way. `payload` is HTML still to be extracted, None where text came in."""

    row: int = -1  # position among all that was read: a name for joins, never in the result
    id: str = ""
    url: str = ""
    text: str = ""
    score: int | None = None
    date: str = ""
    lang: str = ""
    source: str = ""
    meta: str = "{}"
    payload: bytes | None = None
    charset: str = ""
    final_url: str = ""  # where a redirect led, when it led elsewhere
    reason: str = ""  # why it was dropped; empty while it is kept
    detail: str = ""

    def drop(self, reason: str, detail: str = "") -> None:
        """Set the draft aside; `detail` holds the number or the place that decided."""
        self.reason, self.detail = reason, detail


def document_id(text: str) -> str:
    """128-bit hash of a text, 32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """One form for what no text should hold: CRLF, NUL, byte-order mark, lone surrogates."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "").removeprefix("\ufeff")
    return _SURROGATES.sub("\ufffd", text).strip()


def write_shard(path: Path, drafts: Iterable[Draft]) -> None:
    """Write drafts to a Parquet file that appears whole."""
    table = pa.Table.from_pylist([asdict(draft) for draft in drafts], schema=SCHEMA)
    with atomic_write(path) as handle:
        pq.write_table(table, handle, compression="zstd")


def read_shard(path: Path, *, kept: bool = True) -> list[Draft]:
    """The drafts of a file; with `kept` only those that no stage has dropped."""
    rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    return [Draft(**row) for row in rows if not (kept and row["reason"])]
