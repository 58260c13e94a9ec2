"""HellaSwag, validation: which of four endings follows 10,042 beginnings (Zellers et al. 2019).

Not in the paper; today's users ask for it. Two conventions are in use and differ by points, so both
are scored: that of lm-evaluation-harness, which puts the activity before the text and divides by
the ending's characters, and plain completion, which takes the text as it is and divides by tokens.
"""

import re
from typing import Any

from gptwo.zeroshot.intervals import wilson
from gptwo.zeroshot.pairs import pair
from gptwo.zeroshot.score import Score
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
    path="eval/hellaswag/hellaswag_val.jsonl.xz",
    size=2_201_252,
    sha256="7d3401f4f635ce8ce261104df95e1671a5e0c4e01d6a979b04211963e1c0fd04",
)
ENDINGS = 4
METRICS = (
    "completion_accuracy_per_token",
    "completion_accuracy",
    "harness_accuracy_per_character",
    "harness_accuracy",
)
BRACKETS = re.compile(r"\[.*?\]")


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "completion": "context = ctx as it is, continuation = space and ending; sum of log p, and "
        "its mean per token",
        "harness": "context = activity: ctx_a and ctx_b capitalised, [title] a full stop, other "
        "brackets removed; endings likewise; sum of log p, and its mean per character",
        "limit": bench.limit_protocol("beginnings"),
        "eot_prefix": False,
    }


def examples(bench: Bench) -> list[Example]:
    return [question(bench, row) for row in bench.sources.rows(FILE, bench.config.limit)]


def question(bench: Bench, row: dict[str, Any]) -> Example:
    """Four endings as completions, then the same four as the harness spells them."""
    plain = [pair(bench.tokenizer, row["ctx"], " " + ending) for ending in row["endings"]]
    context, endings = harness_texts(row)
    harness = [pair(bench.tokenizer, context, " " + ending) for ending in endings]
    facts = {
        "id": row["ind"],
        "gold": int(row["label"]),
        "characters": [len(ending) for ending in endings],
    }
    return Example(requests=[*plain, *harness], facts=facts)


def harness_texts(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Context and endings as lm-evaluation-harness 0.4 spells them."""
    context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return _without_brackets(context), [_without_brackets(ending) for ending in row["endings"]]


def _without_brackets(text: str) -> str:
    text = BRACKETS.sub("", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def record(example: Example, scores: list[Score]) -> Record:
    plain, harness = scores[:ENDINGS], scores[ENDINGS:]
    gold, characters = example.facts["gold"], example.facts["characters"]
    completion, sums = ([score.logprob for score in part] for part in (plain, harness))
    per_token = [score.logprob / len(score.token_logprobs) for score in plain]
    per_character = [total / n for total, n in zip(sums, characters, strict=True)]
    chosen = {
        "completion_accuracy_per_token": _best(per_token),
        "completion_accuracy": _best(completion),
        "harness_accuracy_per_character": _best(per_character),
        "harness_accuracy": _best(sums),
    }
    return {
        "id": example.facts["id"],
        "gold": gold,
        "completion": completion,
        "harness": sums,
        "cut": max(score.cut for score in scores),
        **{name: choice == gold for name, choice in chosen.items()},
    }


def _best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def summary(records: list[Record], bench: Bench) -> Summary:
    metrics, intervals = {}, {}
    for name in METRICS:
        right = sum(record[name] for record in records)
        metrics[name], intervals[name] = right / len(records), wilson(right, len(records))
    return {**metrics, **cut_contexts(records)}, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """Chance, and always the longest ending."""
    longest = [_best([float(n) for n in example.facts["characters"]]) for example in examples]
    right = sum(a == example.facts["gold"] for a, example in zip(longest, examples, strict=True))
    share = right / len(examples)
    return {
        "chance": dict.fromkeys(METRICS, 1 / ENDINGS),
        "longest ending": dict.fromkeys(METRICS, share),
    }


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=scored(record),
    summary=summary,
    baselines=baselines,
)
