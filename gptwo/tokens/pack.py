"""Documents -> token shards: flat arrays, each document preceded by `<|endoftext|>`."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from gptwo.artifacts import Manifest, open_folder, stage
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.config import PackConfig
from gptwo.tokens.shards import SPLITS, Chunk, Counts, described, dtype_for, write_shards
from gptwo.tokens.texts import read_documents, segments
from gptwo.tokens.tokenizer import Tokenizer


def pack(
    corpus: Path, tokenizer: Path, out: Path, config: PackConfig, reporter: Reporter = SILENT
) -> Manifest:
    """Encode every split of `corpus` into `out`, a few megabytes of text at a time on all cores.

    A shard is the sequence eot, document, eot, document, ...: eot is the context in which a
    document starts, as when a sample is drawn without a prompt. `starts` are the positions of eot.
    The bytes written do not depend on the number of cores.
    """
    source = open_folder(corpus, "corpus")
    encoder = Tokenizer.load(tokenizer)
    inputs = {"corpus": source.fingerprint, "tokenizer": encoder.fingerprint}
    with stage(out, kind="tokens", config=asdict(config), inputs=inputs) as made:
        if made.done:
            return made.done
        counts = {}
        total = sum(source.counts["documents"].values())
        with reporter.bar("pack", total, "documents") as bar:
            for split in SPLITS:
                files = sorted((corpus / split).glob("part-*.parquet"))
                stream = partial(encoded, files, encoder, bar=bar, reporter=reporter)
                counts[split] = write_shards(made, split, dtype_for(encoder.vocab_size), stream)
        return made.commit(counts=counts, details=described(encoder))


def encoded(
    files: list[Path], encoder: Tokenizer, done: Counts, *, bar: Bar, reporter: Reporter
) -> Iterator[Chunk]:
    """The stream of Parquet files, after the documents that are done."""
    bar.advance(done["documents"])
    threads = len(os.sched_getaffinity(0))
    for texts in read_documents(files, skip=done["documents"]):
        for strings, begins in segments(texts):
            reporter.check()
            ids, lengths = encoder.encode_documents(strings, threads=threads)
            places = np.cumsum(lengths) - lengths
            if not begins.all():  # the parts of a long document follow each other without an eot
                ids = np.delete(ids, places[~begins])
                places -= np.cumsum(~begins)
            sizes = np.frombuffer(strings.buffers()[1], np.int64)
            marks = np.append(np.flatnonzero(begins), len(begins))
            yield Chunk(ids=ids, starts=places[begins], text_bytes=sizes[marks] - sizes[0])
            bar.advance(int(begins.sum()))
