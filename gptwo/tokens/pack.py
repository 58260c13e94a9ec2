"""Documents -> token shards: flat arrays, each document preceded by `<|endoftext|>`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from gptwo.artifacts import Manifest, Stage, atomic_write, open_folder, read_json, stage, write_json
from gptwo.errors import DataError
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.config import PackConfig
from gptwo.tokens.shards import SPLITS, dtype_for
from gptwo.tokens.tokenizer import Tokenizer

ROWS = 64  # documents read at once


def pack(
    corpus: Path, tokenizer: Path, out: Path, config: PackConfig, reporter: Reporter = SILENT
) -> Manifest:
    """Encode every split of `corpus` into `out`; memory holds one shard.

    A shard is the sequence eot, document, eot, document, ...: eot is the context in which a
    document starts, as when a sample is drawn without a prompt. `starts` are the positions of eot.
    """
    source = open_folder(corpus, "corpus")
    encoder = Tokenizer.load(tokenizer)
    inputs = {"corpus": source.fingerprint, "tokenizer": encoder.fingerprint}
    with stage(out, kind="tokens", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        total = sum(source.counts["documents"].values())
        with reporter.bar("pack", total, "documents") as bar:
            counts = {
                split: _pack_split(corpus / split, split, made, encoder, bar, reporter)
                for split in SPLITS
            }
        details = {
            "dtype": dtype_for(encoder.vocab_size),
            "vocab_size": encoder.vocab_size,
            "eot": encoder.eot,
            "tokenizer_fingerprint": encoder.fingerprint,
        }
        return made.commit(counts=counts, details=details)


def _pack_split(
    folder: Path, split: str, made: Stage, encoder: Tokenizer, bar: Bar, reporter: Reporter
) -> dict[str, int]:
    """One split's shards; those a killed run had finished are kept."""
    counts = {"tokens": 0, "documents": 0, "bytes": 0}
    dtype = np.dtype(dtype_for(encoder.vocab_size)).newbyteorder("<")
    texts = _texts(folder)
    number, more = 0, True
    while more:
        name = f"{split}-{number:05d}"
        note = made.work / f"{name}.json"  # written after the shard: what it holds
        if note.exists():
            shard = read_json(note)
            for _ in range(shard["documents"]):
                next(texts)
        else:
            shard, ids, starts = _fill(texts, made.config["shard_tokens"], encoder, bar, reporter)
            with atomic_write(made.folder / f"{name}.bin") as handle:
                for part in ids:
                    handle.write(part.astype(dtype).tobytes())
            with atomic_write(made.folder / f"{name}.starts.npy") as handle:
                np.save(handle, np.asarray(starts, dtype=np.uint64))
            write_json(note, shard)
        more = shard["more"]
        for key in counts:
            counts[key] += shard[key]
        number += 1
    return counts


def _fill(
    texts: Iterator[str], shard_tokens: int, encoder: Tokenizer, bar: Bar, reporter: Reporter
) -> tuple[dict[str, Any], list[np.ndarray], list[int]]:
    """Take documents until the shard is full or there are no more."""
    parts: list[np.ndarray] = []
    starts: list[int] = []
    tokens = size = 0
    for text in texts:
        reporter.check()
        ids = np.asarray([encoder.eot, *encoder.encode(text)], dtype=np.uint32)
        starts.append(tokens)
        parts.append(ids)
        tokens += len(ids)
        size += len(text.encode("utf-8", "replace"))
        bar.advance()
        if tokens >= shard_tokens:
            break
    full = tokens >= shard_tokens
    return (
        {"tokens": tokens, "documents": len(starts), "bytes": size, "more": full},
        parts,
        starts,
    )


def _texts(folder: Path) -> Iterator[str]:
    """The texts of a split in the order of its files."""
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            for batch in pq.ParquetFile(path).iter_batches(batch_size=ROWS, columns=["text"]):
                yield from batch.column(0).to_pylist()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}", remedy="build the corpus again") from (
                error
            )
