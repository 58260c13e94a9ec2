"""Which candidate stands in the gap? What the Children's Book Test and the built-in `cloze` share.

The choice is the candidate with the highest log p(candidate and rest of the sentence | what is
before), not divided by length (paper section 3.2).
"""

import math
from collections.abc import Sequence
from typing import Any

from gptwo.records import Interval
from gptwo.zeroshot.baselines import last_seen, most_frequent
from gptwo.zeroshot.intervals import wilson
from gptwo.zeroshot.score import Request, Score
from gptwo.zeroshot.task import Bench, Example, Record, Summary, cut_contexts
from gptwo.zeroshot.words import WORD

CHOICE = (
    "highest log p(candidate and rest of the sentence | what is before), the sum not divided by "
    "length"
)


def question(bench: Bench, facts: dict[str, Any]) -> Example:
    """`facts`: context (to the gap), space (before it or none), rest, options, answer (an index).

    The space before a word belongs to the word.
    """
    context = bench.tokenizer.encode(facts["context"])
    endings = [f"{facts['space']}{word}{facts['rest']}" for word in facts["options"]]
    requests = [
        Request(context=context or [bench.tokenizer.eot], continuation=bench.tokenizer.encode(text))
        for text in endings
    ]
    return Example(requests=requests, facts=facts)


def record(example: Example, scores: list[Score]) -> Record:
    logprobs = [score.logprob for score in scores]
    chosen = max(range(len(logprobs)), key=logprobs.__getitem__)
    facts = {k: v for k, v in example.facts.items() if k not in ("context", "space", "rest")}
    right = chosen == facts["answer"]
    return {**facts, "logprobs": logprobs, "chosen": chosen, "right": right, "cut": scores[0].cut}


def summary(records: list[Record], bench: Bench) -> Summary:
    """The share of right choices; of each kind too, where records have a `kind`."""
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    kinds = dict.fromkeys(record["kind"] for record in records if "kind" in record)
    for kind in ("", *kinds):
        counted = [record["right"] for record in records if kind in ("", record.get("kind"))]
        name = f"{kind}_accuracy" if kind else "accuracy"
        metrics[name] = sum(counted) / len(counted)
        intervals[name] = wilson(sum(counted), len(counted))
    return {**metrics, **cut_contexts(records)}, intervals


def baselines(examples: Sequence[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """Chance, and frequency and recency in what is before the gap."""
    chance = math.fsum(1 / len(example.facts["options"]) for example in examples)
    frequent, last = 0, 0
    for example in examples:
        context, options = example.facts["context"], example.facts["options"]
        answer = options[example.facts["answer"]]
        seen = [word for word in WORD.findall(context) if word in options]
        frequent += most_frequent(seen) == answer
        last += max(options, key=lambda word: last_seen(context, word)) == answer
    found = {
        "uniform": chance,
        "most frequent in the passage": frequent,
        "seen last": last,
    }
    return {name: {"accuracy": value / len(examples)} for name, value in found.items()}
