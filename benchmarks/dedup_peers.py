"""Text to MinHash signatures, by libraries that others use; a child of benchmarks/dedup.py.

usage: PYTHON benchmarks/dedup_peers.py WAY TEXTS.json SIGNATURES.npy

Word 5-grams, 112 hash functions, one process. TEXTS.json is a list of texts. Prints the processor
seconds it took from texts to signatures as JSON. `gptwo` and `plain` need nothing but gptwo; the
others their library, in whatever environment PYTHON belongs to.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

FUNCTIONS, WORDS = 112, 5
NOT_WORD = re.compile(r"\W+")

Run = Callable[[list[str]], Any]


def five_grams(text: str) -> list[str]:
    words = NOT_WORD.sub(" ", text.lower()).split()
    return [" ".join(words[i : i + WORDS]) for i in range(max(len(words) - WORDS + 1, 1))]


def gptwo() -> Run:
    import pyarrow as pa

    from gptwo.corpus.duplicates.minhash import sketch

    return lambda texts: sketch(pa.array(texts, pa.large_string()))[0]


def plain() -> Run:
    import pyarrow as pa

    from gptwo.corpus.duplicates.minhash import plain_sketch

    return lambda texts: plain_sketch(pa.array(texts, pa.large_string()))[0]


def rensa() -> Run:
    """One sketch a document."""
    from rensa import RMinHash  # type: ignore[import-not-found]

    def one(text: str) -> list[int]:
        sketch = RMinHash(num_perm=FUNCTIONS, seed=1)
        sketch.update(five_grams(text))
        return sketch.digest()

    return lambda texts: [one(text) for text in texts]


def rensa_matrix() -> Run:
    """All documents in one call."""
    from rensa import RMinHash  # type: ignore[import-not-found]

    def run(texts: list[str]) -> Any:
        sets = [five_grams(text) for text in texts]
        return RMinHash.digest_matrix_from_token_sets(sets, FUNCTIONS, 1).to_rows()

    return run


def datatrove() -> Run:
    """As shipped: its own normalisation and its tokenizer for English."""
    from datatrove.pipeline.dedup.minhash import (  # type: ignore[import-not-found]
        MinhashConfig,
        MinhashDedupSignature,
    )

    config = MinhashConfig(n_grams=WORDS, num_buckets=14, hashes_per_bucket=8)
    step = MinhashDedupSignature("/nowhere", config=config)

    def one(text: str) -> Any:
        shingles = step.get_shingles(text)
        return np.concatenate(step.get_signature(shingles)) if shingles.size else [0] * FUNCTIONS

    def run(texts: list[str]) -> Any:
        return [one(text) for text in texts]

    run.step = step  # type: ignore[attr-defined]
    return run


def datatrove_split() -> Run:
    """The same with words split at spaces in place of its tokenizer."""
    run = datatrove()
    run.step.word_tokenizer.word_tokenize = str.split  # type: ignore[attr-defined]
    return run


def datasketch() -> Run:
    from datasketch import MinHash  # type: ignore[import-not-found]

    def one(text: str) -> Any:
        sketch = MinHash(num_perm=FUNCTIONS)
        sketch.update_batch([gram.encode() for gram in five_grams(text)])
        return sketch.hashvalues

    return lambda texts: [one(text) for text in texts]


WAYS: dict[str, Callable[[], Run]] = {
    "gptwo": gptwo,
    "plain": plain,
    "rensa": rensa,
    "rensa_matrix": rensa_matrix,
    "datatrove": datatrove,
    "datatrove_split": datatrove_split,
    "datasketch": datasketch,
}


def main() -> None:
    way, texts, out = sys.argv[1:]
    run = WAYS[way]()
    documents = json.loads(Path(texts).read_text(encoding="utf-8"))
    run(documents[:2])  # what is loaded late
    began = time.process_time()
    signatures = run(documents)
    seconds = time.process_time() - began
    np.save(out, np.array(signatures, np.uint64))
    library = way.split("_")[0]
    known = "" if library in ("gptwo", "plain") else version(library)
    print(json.dumps({"cpu_seconds": seconds, "version": known}))


if __name__ == "__main__":
    main()
