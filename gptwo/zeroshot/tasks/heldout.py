"""Perplexity of documents the model was trained on and of others: figure 4 of the paper.

Equal curves mean that the model does not memorise its corpus yet.
"""

import math
from typing import Any

from gptwo.errors import DataError
from gptwo.records import Interval
from gptwo.zeroshot.baselines import compressed_bits_per_byte
from gptwo.zeroshot.intervals import bootstrap, perplexity
from gptwo.zeroshot.running_text import window_record
from gptwo.zeroshot.task import Bench, Example, Record, Summary, Task, scored

SPLITS = ("train", "valid", "test")
CHARACTERS = 3000  # of each document, so that models are compared on the same text


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "documents": f"{bench.config.documents} of each split, chosen by a hash of their id; the "
        f"first {CHARACTERS:,} characters of each, every document alone",
        "perplexity": "per token of the text; its end is not scored",
        "limit": bench.limit_protocol("documents of each split"),
        "seed": bench.config.seed,
        **bench.windows_protocol(),
    }


def data(bench: Bench) -> dict[str, Any]:
    return {"corpus": bench.sources.corpus_fingerprint, "splits": list(SPLITS)}


def examples(bench: Bench) -> list[Example]:
    config = bench.config
    n = min(config.documents, config.limit or config.documents)
    found = []
    for split in SPLITS:
        for name, text in bench.sources.sample(split, n, config.seed):
            text = text[:CHARACTERS]
            windows = bench.windows(text)
            facts = {"split": split, "document": name, "bytes": len(text.encode()), "text": text}
            found += [Example(requests=windows, facts=facts)] if windows else []
    if not found:
        raise DataError(
            f"{bench.sources.corpus} has no documents", remedy="build the corpus from more pages"
        )
    return found


def record(example: Example, scores: list) -> Record:
    found = window_record(example, scores)
    del found["text"]
    return found


def summary(records: list[Record], bench: Bench) -> Summary:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    draw = {"resamples": bench.config.resamples, "seed": bench.config.seed}
    for split in SPLITS:
        documents = [record for record in records if record["split"] == split]
        if not documents:
            continue
        nats = [record["nats"] for record in documents]
        for metric, unit, finish in (
            ("perplexity", "tokens", perplexity),
            ("bits_per_byte", "bytes", lambda rate: rate / math.log(2)),
        ):
            units = [record[unit] for record in documents]
            metrics[f"{split}_{metric}"] = finish(sum(nats) / sum(units))
            intervals[f"{split}_{metric}"] = bootstrap(nats, units, finish, **draw)
    if "train_perplexity" in metrics and "test_perplexity" in metrics:
        # 0 without memorisation; the intervals above say how far from 0 chance alone takes it
        metrics["test_minus_train_nats_per_token"] = math.log(
            metrics["test_perplexity"] / metrics["train_perplexity"]
        )
    return metrics, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    found = {}
    for split in SPLITS:
        texts = [e.facts["text"] for e in examples if e.facts["split"] == split]
        if texts:
            found[f"{split}_bits_per_byte"] = compressed_bits_per_byte("\n".join(texts).encode())
    V = float(bench.tokenizer.vocab_size)
    uniform = {f"{split}_perplexity": V for split in SPLITS if f"{split}_bits_per_byte" in found}
    return {"xz": found, "uniform over tokens": uniform}


TASK = Task(
    protocol=protocol,
    data=data,
    examples=examples,
    solve=scored(record),
    summary=summary,
    baselines=baselines,
)
