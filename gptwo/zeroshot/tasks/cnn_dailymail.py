"""CNN and Daily Mail, test: summaries induced by "TL;DR:" (paper section 3.6).

100 tokens are drawn with top-k 2 after the article and the hint, and their first three sentences
are the summary. Without the hint the same is asked of the bare article; the difference is what the
hint is worth. The data at hand are 200 test articles of REALSumm and SummEval, lightly tokenised.
"""

import random
from importlib.metadata import version
from typing import Any

import numpy as np

from gptwo.records import Interval
from gptwo.text.config import SampleConfig
from gptwo.zeroshot.extras import extra
from gptwo.zeroshot.intervals import bootstrap
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import (
    Bench,
    Continue,
    Example,
    Record,
    Solving,
    Summary,
    Task,
    cut_contexts,
    published,
)
from gptwo.zeroshot.words import sentences

FILE = DataFile(
    path="eval/cnn_dailymail/cnndm_test_200.jsonl",
    size=673_137,
    sha256="027b0809579612b010e3033c32b8a201a6d2912e99063e10ebb1c9bc589c4fc4",
)
HINTS = {"": "\nTL;DR:", "no_hint_": ""}
SENTENCES = 3
TOKENS = 100
TOP_K = 2
ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum"}


def protocol(bench: Bench) -> dict[str, Any]:
    extra("rouge_score", "rouge-score")
    return {
        "version": 1,
        "prompt": "article, newline, 'TL;DR:'; no_hint: the article alone",
        "too long": "the end of the article is cut, the hint stays",
        "summary": f"{TOKENS} tokens, top-k {TOP_K}, temperature 1; their first {SENTENCES} "
        "sentences",
        "rouge": f"rouge-score {version('rouge-score')}, Porter stemmer, F1 in points; rouge_l of "
        "the whole summary, a sentence a line; rouge_mean of the three",
        "seed": bench.config.seed,
        "limit": bench.limit_protocol("articles"),
    }


def examples(bench: Bench) -> list[Example]:
    rows = bench.sources.rows(FILE, bench.config.limit)
    return [
        Example(facts={"id": r["id"], "article": r["article"], "highlights": r["highlights"]})
        for r in rows
    ]


def solve(example: Example, bench: Bench) -> Solving:
    config = SampleConfig(
        max_tokens=TOKENS, top_k=TOP_K, seed=bench.config.seed, when_full="refuse"
    )
    article = bench.tokenizer.encode(example.facts["article"])
    asked, cut = [], 0
    for hint in HINTS.values():
        tail = bench.tokenizer.encode(hint)
        room = max(bench.n_ctx - TOKENS - len(tail), 0)
        cut = max(cut, len(article) - room)
        asked.append(Continue(prompt=[*article[:room], *tail], config=config))
    record = {"id": example.facts["id"], "cut": cut}
    for prefix, completion in zip(HINTS, (yield asked), strict=True):
        summary = first_sentences(completion.text.strip())
        record[f"{prefix}summary"] = "\n".join(summary)
        for name, value in rouge(summary, example.facts["highlights"]).items():
            record[prefix + name] = value
    return record


def first_sentences(text: str) -> list[str]:
    return [text[first:end] for first, end in sentences(text)[:SENTENCES]]


def rouge(summary: list[str], highlights: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L F1 and their mean, in points."""
    scorer = extra("rouge_score.rouge_scorer", "rouge-score").RougeScorer(
        list(ROUGE.values()), use_stemmer=True
    )
    reference = "\n".join(highlights[a:b] for a, b in sentences(highlights))
    found = scorer.score(reference, "\n".join(summary))
    values = {name: 100 * found[theirs].fmeasure for name, theirs in ROUGE.items()}
    return {**values, "rouge_mean": float(np.mean(list(values.values())))}


def summary(records: list[Record], bench: Bench) -> Summary:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for prefix in HINTS:
        for name in (*ROUGE, "rouge_mean"):
            values = [record[prefix + name] for record in records]
            metrics[prefix + name] = sum(values) / len(values)
            intervals[prefix + name] = bootstrap(
                values,
                [1.0] * len(values),
                float,
                resamples=bench.config.resamples,
                seed=bench.config.seed,
            )
    return {**metrics, **cut_contexts(records)}, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """The first three sentences of the article, and three at random."""
    draw = random.Random(bench.config.seed)
    rows: dict[str, list[dict[str, float]]] = {"Lede-3": [], "Random-3": []}
    for example in examples:
        article, highlights = example.facts["article"], example.facts["highlights"]
        spans = sentences(article)
        chosen = sorted(draw.sample(range(len(spans)), min(SENTENCES, len(spans))))
        lede = [article[a:b] for a, b in spans[:SENTENCES]]
        rows["Lede-3"].append(rouge(lede, highlights))
        rows["Random-3"].append(rouge([article[slice(*spans[i])] for i in chosen], highlights))
    return {
        name: {metric: float(np.mean([row[metric] for row in found])) for metric in found[0]}
        for name, found in rows.items()
    }


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=solve,
    summary=summary,
    baselines=baselines,
)
