"""Sources that are tables already: JSON lines and Parquet with a column `text`."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.corpus.shards import Draft, clean
from gptwo.errors import DataError
from gptwo.streams import DAMAGE, decompressed

META_CHARACTERS = 1_000  # longer extra fields are data, not description
_OWN = {"text", "url", "score", "date", "id", "lang", "source", "meta"}
_INT32 = 1 << 31
_ENCODER = json.JSONEncoder(ensure_ascii=False)  # json.dumps would make one for every document


def read_jsonl(path: Path, max_bytes: int) -> Iterator[Draft]:
    """One draft a line; bad lines are set aside with their number, a cut file keeps its lines."""
    number = 0
    with decompressed(path) as handle:
        try:
            while line := handle.readline(max_bytes + 1):
                number += 1
                if len(line) > max_bytes:
                    _skip_line(handle, line)
                    yield Draft(reason="too-large", detail=f"line {number:,}")
                elif line.strip():
                    yield _line(line, number)
        except DAMAGE as damage:
            yield Draft(reason="damaged", detail=f"after line {number:,}: {damage}")


def _skip_line(handle: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = handle.readline(1 << 20)


def _line(line: bytes, number: int) -> Draft:
    try:
        value = json.loads(line.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return Draft(reason="damaged", detail=f"line {number:,} is not JSON: {str(error)[:80]}")
    if not isinstance(value, dict):
        return Draft(reason="damaged", detail=f"line {number:,} is not a JSON object")
    return draft_of(value, f"line {number:,}")


def read_parquet(path: Path, max_bytes: int) -> Iterator[Draft]:
    """One draft a row of a table with a column `text`."""
    try:
        table = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as damage:
        raise DataError(
            f"{path} is not a whole Parquet file: {damage}", remedy="get the file again"
        ) from damage
    if "text" not in table.schema_arrow.names:
        raise DataError(
            f"{path} has no column text, only {', '.join(table.schema_arrow.names[:8])}",
            remedy="rename the column that holds the documents",
        )
    number = 0
    try:
        for batch in table.iter_batches(batch_size=64):
            for value in batch.to_pylist():
                number += 1
                if isinstance(value["text"], str) and len(value["text"]) > max_bytes:
                    yield Draft(reason="too-large", detail=f"row {number:,}")
                else:
                    yield draft_of(value, f"row {number:,}")
    except (pa.ArrowException, OSError) as damage:
        yield Draft(reason="damaged", detail=f"after row {number:,}: {damage}")


def draft_of(value: dict[str, Any], place: str) -> Draft:
    """A draft from the fields of a row; the fields we do not know are kept as `meta`."""
    text = value.get("text")
    if not isinstance(text, str):
        return Draft(reason="no-text", detail=f"{place} has no field text")
    text = clean(text)
    return Draft(
        url=clean(str(value.get("url") or "")),
        text=text,
        score=_score(value.get("score")),
        date=str(value.get("date") or ""),
        meta=_meta(value),
        reason="" if text else "empty",
        detail="" if text else place,
    )


def _score(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and abs(number) < _INT32 else None


def _meta(value: dict[str, Any]) -> str:
    """The remaining plain fields as JSON, and those of a `meta` field that is JSON itself."""
    extra: dict[str, Any] = {}
    if isinstance(value.get("meta"), str):
        try:
            inner = json.loads(value["meta"])
            extra |= inner if isinstance(inner, dict) else {}
        except ValueError:
            pass
    extra |= {key: value[key] for key in sorted(value) if key not in _OWN}
    kept = {
        clean(key): clean(item) if isinstance(item, str) else item
        for key, item in extra.items()
        if isinstance(item, str | int | float | bool) and len(str(item)) <= META_CHARACTERS
    }
    return _ENCODER.encode(kept) if kept else "{}"
