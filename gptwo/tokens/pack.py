"""Documents -> token shards: flat arrays, each document preceded by `<|endoftext|>`."""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path

import numpy as np

from gptwo.artifacts import Manifest, Stage, atomic_write, open_folder, read_json, stage, write_json
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.config import PackConfig
from gptwo.tokens.shards import SPLITS, dtype_for
from gptwo.tokens.texts import read_texts
from gptwo.tokens.tokenizer import Tokenizer


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
    total = {"tokens": 0, "documents": 0, "bytes": 0}
    texts = chain.from_iterable(read_texts(path) for path in sorted(folder.glob("part-*.parquet")))
    following = next(texts, None)
    for number in count():
        if following is None and number:  # a split without documents has one empty shard
            break
        name = f"{split}-{number:05d}"
        note = made.work / f"{name}.json"  # written after the shard: what it holds
        if note.exists():
            shard = read_json(note)
            for _ in range(shard["documents"] - 1):
                next(texts)
            bar.advance(shard["documents"])
        else:
            first = [] if following is None else [following]
            shard = _write_shard(chain(first, texts), made, name, encoder, bar, reporter)
            write_json(note, shard)
        for key in total:
            total[key] += shard[key]
        following = next(texts, None)
    return total


def _write_shard(
    texts: Iterator[str],
    made: Stage,
    name: str,
    encoder: Tokenizer,
    bar: Bar,
    reporter: Reporter,
) -> dict[str, int]:
    """Take documents until the shard is full or there are no more; write it; say what it holds."""
    dtype = np.dtype(dtype_for(encoder.vocab_size)).newbyteorder("<")
    parts: list[np.ndarray] = []
    starts: list[int] = []
    tokens = size = 0
    for text in texts:
        reporter.check()
        ids = np.asarray([encoder.eot, *encoder.encode(text)], dtype=dtype)
        starts.append(tokens)
        parts.append(ids)
        tokens += len(ids)
        size += len(text.encode("utf-8", "replace"))
        bar.advance()
        if tokens >= made.config["shard_tokens"]:
            break
    with atomic_write(made.folder / f"{name}.bin") as handle:
        for part in parts:
            handle.write(part.tobytes())
    with atomic_write(made.folder / f"{name}.starts.npy") as handle:
        np.save(handle, np.asarray(starts, dtype=np.uint64))
    return {"tokens": tokens, "documents": len(starts), "bytes": size}
