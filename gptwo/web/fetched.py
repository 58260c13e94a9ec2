"""The notes of a crawl -> one table of what became of each link, and its counts."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import Stage, atomic_write
from gptwo.errors import ResourceError
from gptwo.web.rot import rot_by_year

FETCHED = pa.schema(
    [
        ("url", pa.string()),
        ("key", pa.string()),
        ("final_url", pa.string()),
        ("outcome", pa.string()),
        ("status", pa.int32()),
        ("bytes", pa.int64()),
        ("score", pa.int32()),
        ("date", pa.string()),
        ("detail", pa.string()),
        ("sha256", pa.string()),
        ("charset", pa.string()),
        ("place", pa.string()),
        ("redirects", pa.int32()),
        ("requests", pa.int32()),
        ("seconds", pa.float32()),
        ("fetched", pa.string()),
    ]
)
MEMORY_LIMIT, THREADS = "256MB", 1
BATCH_ROWS = 8192
_NOTES = {
    "link": "BIGINT",
    "final_url": "VARCHAR",
    "outcome": "VARCHAR",
    "status": "INTEGER",
    "bytes": "BIGINT",
    "detail": "VARCHAR",
    "sha256": "VARCHAR",
    "charset": "VARCHAR",
    "place": "VARCHAR",
    "redirects": "INTEGER",
    "requests": "INTEGER",
    "seconds": "FLOAT",
    "fetched": "VARCHAR",
}
_JOINED = """
    SELECT l.url, l.key, coalesce(n.final_url, l.url) AS final_url,
        coalesce(n.outcome, 'not-asked') AS outcome, coalesce(n.status, 0) AS status,
        coalesce(n.bytes, 0) AS bytes, l.score, l.date,
        coalesce(n.detail, 'a budget was used up') AS detail, coalesce(n.sha256, '') AS sha256,
        coalesce(n.charset, '') AS charset, coalesce(n.place, '') AS place,
        coalesce(n.redirects, 0) AS redirects, coalesce(n.requests, 0) AS requests,
        coalesce(n.seconds, 0) AS "seconds", coalesce(n.fetched, '') AS fetched
    FROM read_parquet($1, file_row_number = true) AS l
    LEFT JOIN {notes} AS n ON l.file_row_number = n.link
    ORDER BY l.file_row_number"""
_TOLD = ["url", "outcome", "final_url", "sha256", "date", "place", "bytes"]
_READ = (
    "read_json($2, format = 'newline_delimited', columns = {columns},"
    " maximum_object_size = 1000000)"  # less is held for each file
)


def write_fetched(made: Stage, links: Path) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Write `fetched.parquet`; returns counts, link rot by year and the content's fingerprint.

    A link without a note is one that a budget left out. Sorted on disk where memory ends.
    The fingerprint does not depend on the order of arrival.
    """
    none = made.work / "none.jsonl"  # where a budget was used up before the first link
    none.touch()
    notes = [str(none), *sorted(str(path) for path in made.work.glob("fetched-*.jsonl"))]
    outcomes: Counter[str] = Counter()
    places: Counter[tuple[str, str, str]] = Counter()
    size, content = 0, hashlib.sha256()
    try:
        with (
            duckdb.connect() as database,
            atomic_write(made.folder / "fetched.parquet") as handle,
            pq.ParquetWriter(handle, FETCHED, compression="zstd") as out,
        ):
            database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
            database.execute(f"SET threads = {THREADS}")
            database.execute("SET temp_directory = $1", [str(made.work / "duckdb")])
            query = _JOINED.format(notes=_READ.format(columns=_NOTES))
            given = [str(links / "links.parquet"), notes]
            for batch in database.sql(query, params=given).to_arrow_reader(BATCH_ROWS):
                table = pa.Table.from_batches([batch]).cast(FETCHED)
                out.write_table(table)
                for row in table.select(_TOLD).to_pylist():
                    date = row.pop("date") or ""
                    places[date[:4], row["outcome"], row.pop("place")] += 1
                    outcomes[row["outcome"]] += 1
                    size += row.pop("bytes")
                    content.update(json.dumps(row).encode() + b"\n")
    except (duckdb.Error, pa.ArrowException) as error:
        raise ResourceError(
            f"cannot sort what was fetched in {made.work}: {str(error).splitlines()[0]}",
            remedy="make room and run the same command again; nothing will be asked twice",
        ) from error
    counts = {
        "links": outcomes.total(),
        "fetched": outcomes["ok"],
        "outcomes": dict(sorted(outcomes.items())),
        "bytes": size,
    }
    return counts, rot_by_year((*key, n) for key, n in places.items()), content.hexdigest()
