"""Link files for the tests of this room."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
SECOND = 1_118_895_720  # 16 June 2005


def submission(url: str, score: Any = 5, **more: Any) -> dict[str, Any]:
    return {"url": url, "score": score, "created_utc": SECOND, "subreddit": "reddit.com", **more}


def dump(path: Path, values: list[Any]) -> Path:
    """JSON lines; strings are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [value if isinstance(value, str) else json.dumps(value) for value in values]
    path.write_text("\n".join(lines) + "\n")
    return path
