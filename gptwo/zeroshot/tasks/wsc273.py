"""Winograd schemas: which of two candidates does the pronoun mean (paper section 3.4).

The pronoun is replaced by each candidate. Full scoring compares the probability of the whole
sentence, partial scoring that of the words after the candidate.
"""

from typing import Any

from gptwo.zeroshot.intervals import wilson
from gptwo.zeroshot.score import Request, Score
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import (
    Bench,
    Example,
    Record,
    Summary,
    Task,
    cut_contexts,
    published,
    scored,
)

FILE = DataFile(
    path="eval/wsc273/winograd_wsc.jsonl",
    size=60_523,
    sha256="746336c27cd2e39a554cb1b8b4869d0f1ae2577ac5bfe799842d26bca5a5bf5e",
)


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "full_accuracy": "log p(sentence) is higher with the right candidate",
        "partial_accuracy": "log p(rest | sentence up to and with the candidate) is higher",
        "limit": bench.limit_protocol("schemas"),
        "eot_prefix": bench.config.eot_prefix,
    }


def examples(bench: Bench) -> list[Example]:
    rows = bench.sources.rows(FILE, bench.config.limit)
    return [schema(bench, row["context_options"], row["continuation"], row["gold"]) for row in rows]


def schema(bench: Bench, options: list[str], rest: str, gold: int) -> Example:
    """Both sentences as continuations of what they begin with alike.

    The shared beginning adds the same to both, so leaving it out changes no comparison. Of a
    sentence longer than the model's context the beginning is context that may be cut.
    """
    tail = bench.tokenizer.encode(glue(rest) + rest)
    heads = [bench.tokenizer.encode(option) for option in options]
    shared = 0
    while all(len(head) > shared + 1 for head in heads) and heads[0][shared] == heads[1][shared]:
        shared += 1
    prefix = [] if bench.prefix is None else [bench.prefix]
    longest = max(len(head) for head in heads) + len(tail)
    shared = max(shared, longest - bench.n_ctx, 0 if prefix else 1)  # something to start from
    requests = [
        Request(context=[*prefix, *head[:shared]], continuation=[*head[shared:], *tail])
        for head in heads
    ]
    return Example(requests=requests, facts={"options": options, "gold": gold, "tail": len(tail)})


def glue(rest: str) -> str:
    """What stands between a candidate and the rest of its sentence."""
    return "" if rest[:1] in ".,;:!?'" else " "


def record(example: Example, scores: list[Score]) -> Record:
    tail = example.facts["tail"]
    full = [score.logprob for score in scores]
    partial = [sum(score.token_logprobs[-tail:]) for score in scores]
    gold = example.facts["gold"]
    return {
        "options": example.facts["options"],
        "gold": gold,
        "full": full,
        "partial": partial,
        "cut": scores[0].cut,
        "full_accuracy": full[gold] > full[1 - gold],
        "partial_accuracy": partial[gold] > partial[1 - gold],
    }


def summary(records: list[Record], bench: Bench) -> Summary:
    metrics, intervals = {}, {}
    for name in ("partial_accuracy", "full_accuracy"):
        right = sum(record[name] for record in records)
        metrics[name] = right / len(records)
        intervals[name] = wilson(right, len(records))
    return {**metrics, **cut_contexts(records)}, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    second = sum(example.facts["gold"] for example in examples) / len(examples)
    share = max(second, 1 - second)
    return {"majority": {"partial_accuracy": share, "full_accuracy": share}}


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=scored(record),
    summary=summary,
    baselines=baselines,
)
