"""Documents -> token shards: flat arrays, each document preceded by `<|endoftext|>`."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptwo.artifacts import Manifest, open_folder, stage
from gptwo.pool import count_workers, in_order
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
    """The stream of Parquet files after the documents that are done, encoded on all cores.

    This thread reads and writes; the others encode a few megabytes each, with the GIL released.
    """
    bar.advance(done["documents"])
    groups = chain.from_iterable(map(segments, read_documents(files, skip=done["documents"])))
    with closing(in_order(partial(encode, encoder), groups, count_workers(0))) as chunks:
        for chunk in chunks:
            reporter.check()
            yield chunk
            bar.advance(len(chunk.starts))


def encode(encoder: Tokenizer, group: tuple[pa.Array, np.ndarray]) -> Chunk:
    """Large strings, of which some begin a document, the others go on with the one before."""
    strings, begins = group
    ids, lengths = encoder.encode_documents(strings)
    places = np.cumsum(lengths) - lengths
    if not begins.all():
        ids = np.delete(ids, places[~begins])  # no eot inside a document
        places -= np.cumsum(~begins)
    offsets = np.frombuffer(strings.buffers()[1], np.int64)
    marks = np.append(np.flatnonzero(begins), len(begins))
    return Chunk(ids=ids, starts=places[begins], text_bytes=offsets[marks] - offsets[0])
