"""The last word of passages from a corpus' test split, by the LAMBADA procedure.

LAMBADA's passages were filtered by people: guessable with the passage, not with its last sentence.
Here the word must have occurred earlier in the passage, outside the last sentence (paper 3.3).
"""

from collections.abc import Iterator
from typing import Any

from gptwo.errors import DataError
from gptwo.zeroshot.last_word import (
    PROTOCOL,
    baselines,
    question,
    solve,
    stop_tokens,
    summary,
)
from gptwo.zeroshot.task import Bench, Example, Task
from gptwo.zeroshot.words import STOP_WORDS, WORD, sentences

CONTEXT_WORDS = 50
PASSAGES_PER_DOCUMENT = 3


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 2,
        "passage": f"whole sentences of at least {CONTEXT_WORDS} words, then one whose last word, "
        "no stop word, stands in them; "
        f"{PASSAGES_PER_DOCUMENT} passages a document at most",
        "questions": bench.config.questions,
        "limit": bench.limit_protocol("questions"),
        "seed": bench.config.seed,
        "window": bench.n_ctx,
        "eot_prefix": False,
        **PROTOCOL,
    }


def data(bench: Bench) -> dict[str, Any]:
    return {"corpus": bench.sources.corpus_fingerprint, "split": "test"}


def examples(bench: Bench) -> list[Example]:
    wanted = bench.config.questions
    found: list[Example] = []
    for name, text in bench.sources.sample("test", 20 * wanted, bench.config.seed):
        pairs = list(passages(text))[:PASSAGES_PER_DOCUMENT]
        found += [question(bench, context, word, document=name) for context, word in pairs]
        if len(found) >= wanted:
            break
    if not found:
        raise DataError(
            f"the test split of {bench.sources.corpus} gives no passage whose last word occurred "
            f"in the {CONTEXT_WORDS} words before its sentence",
            remedy="leave the task out or use a larger corpus",
        )
    return found[:wanted][: bench.config.limit or None]


def passages(text: str) -> Iterator[tuple[str, str]]:
    """(context, last word) of non-overlapping passages."""
    spans = sentences(text)
    first = 0
    for last, (start, end) in enumerate(spans):
        before = WORD.findall(text, spans[first][0], start) if last > first else []
        if len(before) < CONTEXT_WORDS:
            continue
        while len(WORD.findall(text, spans[first + 1][0], start)) >= CONTEXT_WORDS:
            first += 1  # no longer than need be
        begin = spans[first][0]
        final = [*WORD.finditer(text, start, end)][-1:]
        if final and final[0].start() > start and text[final[0].start() - 1] == " ":
            word = final[0].group()
            if _askable(word) and word in WORD.findall(text, begin, start):
                yield text[begin : final[0].start() - 1], word
                first = last + 1
                if first == len(spans):
                    return


def _askable(word: str) -> bool:
    return word.isalpha() and len(word) > 2 and word.lower() not in STOP_WORDS


TASK = Task(
    protocol=protocol,
    data=data,
    examples=examples,
    solve=solve,
    summary=summary,
    baselines=baselines,
    barred=stop_tokens,
)
