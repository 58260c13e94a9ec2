"""Predicting the last word of a passage: what LAMBADA and the built-in `lastword` have in common.

The space before the word belongs to the word. A prediction counts when greedy decoding gives every
token of it. With the stop-word filter of paper section 3.3, stop words that are one token are
passed over as the first token; tokens after the first are greedy as before. Whole
words are searched too: the likeliest word, and the likeliest that is no stop word.
"""

import re
from collections.abc import Sequence
from typing import Any

from gptwo.records import Interval
from gptwo.zeroshot.baselines import content_words, most_frequent
from gptwo.zeroshot.intervals import bootstrap, perplexity, wilson
from gptwo.zeroshot.score import Request, Score
from gptwo.zeroshot.task import Bench, Example, Record, Solving, Summary
from gptwo.zeroshot.word_search import Found, NextWord
from gptwo.zeroshot.words import STOP_WORDS, words

PROTOCOL = {
    "accuracy": "all tokens of the word greedy",
    "last_token_accuracy": "the last token greedy, those before it given",
    "filtered_accuracy": f"the same as accuracy with {len(STOP_WORDS)} English stop words passed "
    "over as first token",
    "word_accuracy": "the likeliest whole word: p(its tokens) p(no token that goes on with it); "
    "quotes and punctuation at its ends do not count",
    "filtered_word_accuracy": "the same of words that are no stop words",
    "perplexity": "exp of the mean over passages of the word's negative log-probability",
}
EDGES = re.compile(r"^[^\w]+|[^\w]+$")
COUNTS = (
    "accuracy",
    "last_token_accuracy",
    "filtered_accuracy",
    "word_accuracy",
    "filtered_word_accuracy",
)


def stop_tokens(bench: Bench) -> list[int]:
    """Ids of the stop words that are one token after a space, in lower case or capitalised."""
    spelled = sorted(f" {form}" for word in STOP_WORDS for form in (word, word.capitalize()))
    encoded = [bench.tokenizer.encode(word) for word in spelled]
    return [ids[0] for ids in encoded if len(ids) == 1]


def question(bench: Bench, context: str, word: str, **facts: Any) -> Example:
    """The passage without its last word, and the word."""
    request = Request(
        context=bench.tokenizer.encode(context), continuation=bench.tokenizer.encode(" " + word)
    )
    return Example(requests=[request], facts={**facts, "context": context, "target": word})


def solve(example: Example, bench: Bench) -> Solving:
    (score,) = yield example.requests
    (found,) = yield [NextWord(context=example.requests[0].context)]
    return record(example, score, found)


def record(example: Example, score: Score, found: Found) -> Record:
    target = example.facts["target"]
    return {
        **{key: value for key, value in example.facts.items() if key != "context"},
        "nats": -score.logprob,
        "tokens": len(score.token_logprobs),
        "accuracy": score.greedy,
        "last_token_accuracy": score.token_greedy[-1],
        "filtered_accuracy": score.allowed and all(score.token_greedy[1:]),
        "word": found.word,
        "word_accuracy": bare(found.word) == bare(target),
        "content_word": found.content_word,
        "filtered_word_accuracy": bare(found.content_word) == bare(target),
        "cut": score.cut,
    }


def bare(word: str) -> str:
    """Without quotes and punctuation at its ends: `bare('"Ann.') == "Ann"`"""
    return EDGES.sub("", word)


def summary(records: list[Record], bench: Bench) -> Summary:
    n = len(records)
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name in COUNTS:
        right = sum(record[name] for record in records)
        metrics[name], intervals[name] = right / n, wilson(right, n)
    nats = [record["nats"] for record in records]
    metrics["perplexity"] = perplexity(sum(nats) / n)
    intervals["perplexity"] = bootstrap(
        nats, [1.0] * n, perplexity, resamples=bench.config.resamples, seed=bench.config.seed
    )
    metrics["cut_contexts"] = sum(record["cut"] > 0 for record in records) / n
    return metrics, intervals


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """Guesses from the passage alone, and from a trigram of the corpus where there is one."""
    guesses: dict[str, list[str]] = {"most frequent content word": [], "last content word": []}
    trigram = bench.sources.trigram
    for example in examples:
        seen = content_words(example.facts["context"])
        guesses["most frequent content word"].append(most_frequent(seen))
        guesses["last content word"].append(seen[-1] if seen else "")
        if trigram:
            # two words decide; a short tail is enough to find them
            tail = words(example.facts["context"][-100:])
            guesses.setdefault("trigram of the corpus", []).append(trigram.best(tail))
    targets = [example.facts["target"].lower() for example in examples]
    return {name: {"accuracy": _share(found, targets)} for name, found in guesses.items()}


def _share(guesses: Sequence[str], targets: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(guesses, targets, strict=True)) / len(targets)
