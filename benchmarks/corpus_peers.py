"""Pages to a corpus by datatrove, as its examples do it; a child of benchmarks/corpus.py.

usage: PYTHON benchmarks/corpus_peers.py PAGES OUT WORKERS EXTRACTOR TOKENIZER

PAGES: a folder of JSON lines with the HTML in the field `text`, which spares it the reading of WARC
files. EXTRACTOR: `trafilatura`, its own step in its sandbox (with 60 s a page: one, its default, is
little on a busy machine), or `resiliparse`, called directly. TOKENIZER: `spacy`, what it takes for
English, or `split`, words between spaces. Four pipelines: extraction with signatures, buckets,
clusters, filter. Prints what it kept, as JSON.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor  # type: ignore[import-not-found]
from datatrove.pipeline.base import PipelineStep  # type: ignore[import-not-found]
from datatrove.pipeline.dedup import (  # type: ignore[import-not-found]
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig  # type: ignore[import-not-found]
from datatrove.pipeline.extractors import Trafilatura  # type: ignore[import-not-found]
from datatrove.pipeline.readers import JsonlReader  # type: ignore[import-not-found]
from datatrove.pipeline.writers.jsonl import JsonlWriter  # type: ignore[import-not-found]


class Resiliparse(PipelineStep):
    """A quick extractor with nothing around it."""

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        from resiliparse.extract.html2text import extract_plain_text

        for document in data:
            document.text = extract_plain_text(document.text, main_content=True)
            if document.text:
                yield document


def main() -> None:
    pages, out, workers, extractor, tokenizer = sys.argv[1:]
    folder, files = Path(out), len(list(Path(pages).glob("*.jsonl")))
    config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
    sign = MinhashDedupSignature(str(folder / "signatures"), config=config)
    if tokenizer == "split":
        sign.word_tokenizer.word_tokenize = str.split  # type: ignore[assignment]
    texts = str(folder / "texts")

    def run(name: str, tasks: int, *steps: Any) -> None:
        LocalPipelineExecutor(
            list(steps), tasks=tasks, workers=int(workers), logging_dir=str(folder / "logs" / name)
        ).run()

    step = Trafilatura(timeout=60) if extractor == "trafilatura" else Resiliparse()
    run("extract", files, JsonlReader(pages), step, JsonlWriter(texts), sign)
    buckets, removed = str(folder / "buckets"), str(folder / "removed")
    run("buckets", 14, MinhashDedupBuckets(str(folder / "signatures"), buckets, config=config))
    run("cluster", 1, MinhashDedupCluster(buckets, removed, config=config))
    keep = MinhashDedupFilter(removed)
    run("filter", files, JsonlReader(texts), keep, JsonlWriter(str(folder / "kept")))
    reports = sorted((folder / "logs" / "filter").glob("stats.json"))
    stats = json.loads(reports[0].read_text())[-1]["stats"] if reports else {}
    print(json.dumps({"version": version("datatrove"), "kept": stats.get("total")}))


if __name__ == "__main__":
    main()
