"""Cloze questions from a corpus' test split, by the Children's Book Test procedure.

Twenty sentences of a document, a twenty-first with a word removed, ten candidates of the same kind
seen in the passage (paper section 3.2). Two kinds, told apart by form alone: names, capitalised
inside a sentence and never in lower case; nouns, in lower case between a determiner and a function
word or punctuation mark, an adjective told by its ending allowed.
"""

import random
import re
from collections.abc import Iterator
from typing import Any

from gptwo.errors import DataError
from gptwo.zeroshot import candidates
from gptwo.zeroshot.candidates import CHOICE, question, record, summary
from gptwo.zeroshot.task import Bench, Example, Task, scored
from gptwo.zeroshot.words import STOP_WORDS, WORD, sentences, words

SENTENCES = 20
OPTIONS = 10
QUERY_WORDS = (5, 60)
PASSAGES_PER_DOCUMENT = 3
NAME = re.compile(r"(?<=[a-z,;] )([A-Z][a-z]{2,})\b")
NOUN = re.compile(
    r"\b(?=(?:the|an?|this|these|those|his|her|its|our|their|my|your|no|any|every|each|some) "
    r"(?:[a-z]+(?:al|ive|ous|ic|ary|ful|less|able|ible|ed) )?([a-z]{3,}(?<!ed))"
    r"(?:[,.;:!?]| (?:of|to|in|on|at|by|for|from|with|is|are|was|were|has|have|had|will|"
    r"shall|which|who|that|than|as|should|would|may|must|can)\b))"
)
KINDS = {"names": NAME, "nouns": NOUN}


def protocol(bench: Bench) -> dict[str, Any]:
    return {
        "version": 1,
        "question": f"{SENTENCES} sentences, then one with a word removed; {OPTIONS} candidates of "
        "its kind from the passage, the word among them; non-overlapping passages, "
        f"{PASSAGES_PER_DOCUMENT} a document at most",
        "kinds": "half names, half nouns, as far as the split has both",
        "choice": CHOICE,
        "questions": bench.config.questions,
        "limit": bench.limit_protocol("questions"),
        "seed": bench.config.seed,
        "window": bench.n_ctx,
        "eot_prefix": False,
    }


def data(bench: Bench) -> dict[str, Any]:
    return {"corpus": bench.sources.corpus_fingerprint, "split": "test"}


def examples(bench: Bench) -> list[Example]:
    wanted = bench.config.questions
    quota = {"names": wanted // 2, "nouns": wanted - wanted // 2}
    found: list[Example] = []
    for name, text in bench.sources.sample("test", 20 * wanted, bench.config.seed):
        for facts in questions(name, text, bench.config.seed):
            example = _request(bench, facts)
            if quota[facts["kind"]] and example:
                quota[facts["kind"]] -= 1
                found.append(example)
        if not any(quota.values()):
            break
    if not found:
        raise DataError(
            f"the test split of {bench.sources.corpus} gives no cloze question: they need "
            f"documents of {SENTENCES + 1} sentences with {OPTIONS} names or nouns",
            remedy="leave the task out or use a larger corpus",
        )
    return found[: bench.config.limit or None]


def questions(
    name: str, text: str, seed: int, passages: int = PASSAGES_PER_DOCUMENT
) -> Iterator[dict[str, Any]]:
    """At most one question of each kind for each of the first passages of a document."""
    spans = sentences(text)
    starts = range(0, len(spans) - SENTENCES, SENTENCES + 1)
    for first in starts[:passages]:
        begin, (query, end) = spans[first][0], spans[first + SENTENCES]
        length = len(WORD.findall(text, query, end))
        if not QUERY_WORDS[0] <= length <= QUERY_WORDS[1]:
            continue
        for kind, pattern in KINDS.items():
            choose = random.Random(f"{seed}:{name}:{begin}:{kind}")
            facts = _question(text, (begin, query, end), pattern, choose)
            if facts:
                yield {"document": name, "kind": kind, **facts}


def _question(
    text: str, bounds: tuple[int, int, int], pattern: re.Pattern[str], choose: random.Random
) -> dict[str, Any] | None:
    begin, query, end = bounds
    passage, sentence = text[begin:query], text[query:end]
    lower = set(WORD.findall(text[begin:end])) if pattern is NAME else set()
    seen = [
        word
        for word in dict.fromkeys(pattern.findall(passage))
        if word.lower() not in STOP_WORDS and word.lower() not in lower
    ]
    # The word must follow a space: the space belongs to it when it is cut into tokens.
    gaps = [
        m for m in pattern.finditer(sentence) if m[1] in seen and sentence[m.start(1) - 1] == " "
    ]
    others = sorted(set(seen) - set(WORD.findall(sentence)))
    if not gaps or len(others) < OPTIONS - 1:
        return None
    gap = choose.choice(gaps)
    options = [gap[1], *choose.sample(others, OPTIONS - 1)]
    choose.shuffle(options)
    return {
        "context": text[begin : query + gap.start(1) - 1],
        "space": " ",
        "rest": sentence[gap.end(1) :],
        "query": f"{sentence[: gap.start(1)]}____{sentence[gap.end(1) :]}",
        "options": options,
        "answer": options.index(gap[1]),
    }


def _request(bench: Bench, facts: dict[str, Any]) -> Example | None:
    example = question(bench, facts)
    if max(len(request.continuation) for request in example.requests) > bench.n_ctx // 2:
        return None  # the sentence would leave no room for the passage
    return example


def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """Those of every such question, and a trigram around the gap."""
    found = candidates.baselines(examples, bench)
    trigram = bench.sources.trigram
    if trigram:
        right = 0
        for example in examples:
            facts = example.facts
            before, after = words(facts["context"][-100:]), words(facts["rest"])[:2]
            fits = [trigram.log_probability([w.lower(), *after], before) for w in facts["options"]]
            right += fits.index(max(fits)) == facts["answer"]
        found["trigram of the corpus"] = {"accuracy": right / len(examples)}
    return found


TASK = Task(
    protocol=protocol,
    data=data,
    examples=examples,
    solve=scored(record),
    summary=summary,
    baselines=baselines,
)
