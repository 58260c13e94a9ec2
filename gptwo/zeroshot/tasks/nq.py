"""Natural Questions, open, development set: 3,610 questions without a text (paper section 3.8).

The paper seeds the context with question-and-answer pairs and answers greedily, but publishes
neither the pairs nor their number. Ours are five that we wrote, none of which is in the set.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from gptwo.text.config import SampleConfig
from gptwo.text.samples import Completion
from gptwo.zeroshot.answers import exact_match, normalized
from gptwo.zeroshot.intervals import wilson
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

FILE = DataFile(
    path="eval/nq_open/NQ-open.dev.jsonl",
    size=391_316,
    sha256="f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616",
)
PAIRS = (
    ("what is the boiling point of water at sea level in celsius", "100 degrees"),
    ("who painted the ceiling of the sistine chapel", "Michelangelo"),
    ("which metal is liquid at room temperature", "mercury"),
    ("in which year did the first world war begin", "1914"),
    ("where is the great barrier reef", "Australia"),
)
GREEDY = SampleConfig(temperature=0.0, max_tokens=24, stop=("\n",), logprobs=1)
BINS = 10  # of the calibration curve, equally many questions in each


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "prompt": f"{len(PAIRS)} pairs 'Q: question?\\nA: answer\\n' of our own, then 'Q: "
        "question?\\nA:'",
        "pairs": [list(pair) for pair in PAIRS],
        "answer": f"greedy, to the end of the line, {GREEDY.max_tokens} tokens at most",
        "exact_match": "case, punctuation and articles do not count; any accepted answer",
        "confidence": "probability of the answer's tokens and the end of its line",
        "limit": bench.limit_protocol("questions"),
    }


def examples(bench: Bench) -> list[Example]:
    rows = bench.sources.rows(FILE, bench.config.limit)
    return [Example(facts={"question": r["question"], "accepted": r["answer"]}) for r in rows]


def prompt(question: str) -> str:
    """The context of a question: the pairs, and what it begins."""
    seed = "".join(f"Q: {asked}?\nA: {answer}\n" for asked, answer in PAIRS)
    return f"{seed}Q: {question}?\nA:"


def solve(example: Example, bench: Bench) -> Solving:
    ids = bench.tokenizer.encode(prompt(example.facts["question"]))
    most = max(bench.n_ctx - GREEDY.max_tokens, 1)
    (said,) = yield [Continue(prompt=ids[-most:], config=GREEDY)]
    assert isinstance(said, Completion)
    answer = said.text.strip()
    return {
        **example.facts,
        "answer": answer,
        "confidence": math.exp(sum(token["logprob"] for token in said.logprobs)),
        "exact_match": exact_match(answer, example.facts["accepted"]),
        "cut": max(len(ids) - most, 0),
    }


def summary(records: list[Record], bench: Bench) -> Summary:
    right = sum(record["exact_match"] for record in records)
    metrics = {"exact_match": right / len(records)}
    intervals = {"exact_match": wilson(right, len(records))}
    ranked = sorted(records, key=lambda record: -record["confidence"])
    parts = {"top_1_percent": ranked[: max(len(ranked) // 100, 1)]}
    if len(ranked) >= BINS:
        for number in range(BINS):
            first, last = (len(ranked) * edge // BINS for edge in (number, number + 1))
            parts[f"tenth_{number + 1}"] = ranked[first:last]
    for name, part in parts.items():
        right = sum(record["exact_match"] for record in part)
        metrics[f"{name}_accuracy"] = right / len(part)
        metrics[f"{name}_confidence"] = sum(record["confidence"] for record in part) / len(part)
        intervals[f"{name}_accuracy"] = wilson(right, len(part))
    return {**metrics, **cut_contexts(records)}, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """The most frequent answer to other questions with the same first word (1.0% in the paper)."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        answers[_kind(example)].update(_accepted(example.facts["accepted"]))
    right = 0
    for example in examples:
        others = answers[_kind(example)] - Counter(_accepted(example.facts["accepted"]))
        best = max(others.items(), key=lambda item: (item[1], item[0]), default=("", 0))[0]
        right += best in _accepted(example.facts["accepted"])
    share = right / len(examples)
    return {"most frequent answer per question word": {"exact_match": share}}


def _kind(example: Example) -> str:
    return example.facts["question"].split(" ", 1)[0]


def _accepted(answers: Sequence[str]) -> set[str]:
    return {normalized(answer) for answer in answers}


TASK = Task(
    protocol=protocol,
    data=published(FILE),
    examples=examples,
    solve=solve,
    summary=summary,
    baselines=baselines,
)
