"""Small corpora for the tests of this room, and the bytes a folder holds."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptwo.artifacts import stage


def write_corpus(
    folder: Path,
    train: Sequence[Sequence[str]],
    valid: Sequence[str] = ("a held out text",),
    test: Sequence[str] = ("a last text",),
) -> Path:
    """A corpus folder whose training files hold the texts of `train`, one list a file."""
    splits = {"train": train, "valid": [valid], "test": [test]}
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for split, files in splits.items():
            (folder / split).mkdir()
            for number, texts in enumerate(files):
                table = pa.table({"text": pa.array(list(texts), pa.string())})
                pq.write_table(table, folder / split / f"part-{number:05d}.parquet")
        made.commit(counts={"documents": {s: sum(map(len, f)) for s, f in splits.items()}})
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
