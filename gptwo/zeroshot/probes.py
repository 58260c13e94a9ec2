"""Tasks that texts demonstrate by themselves, in a corpus' test split (paper section 2).

The paper's idea is that web text holds demonstrations of translating, summarising and answering, so
that a model of the text learns them. A probe finds such places in held-out documents and asks which
of ten candidates belongs there: the true one, and nine of the other places, of like length.

log p(candidate | what is before) is compared with log p(candidate | frame), where the frame is only
what shows that an answer comes; so a candidate likely anywhere has no advantage.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gptwo.errors import DataError
from gptwo.records import Interval
from gptwo.zeroshot.baselines import content_words
from gptwo.zeroshot.intervals import bootstrap, wilson
from gptwo.zeroshot.score import Request, Score
from gptwo.zeroshot.sources import Document, rank
from gptwo.zeroshot.task import Bench, Example, Record, Summary, Task, cut_contexts, scored
from gptwo.zeroshot.words import words

OPTIONS = 10
LIKE = 40  # candidates are drawn from so many of the most similar length
LEAST = 20  # with fewer demonstrations an interval says nothing
PER_DOCUMENT = 20
METRICS = ("accuracy", "accuracy_per_token")


@dataclass(frozen=True, kw_only=True, slots=True)
class Demonstration:
    """A place in a text: `before` induces the task, `frame` shows that its answer comes now."""

    before: str
    frame: str
    answer: str


Finder = Callable[[Document], Iterator[Demonstration]]


def probe(find: Finder, *, asked: str, lost: str) -> Task:
    """The task of the demonstrations found by `find`; `asked` says which.

    `lost` is the side of a too long text that is cut: "start" or "end".
    """

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "demonstrations": asked,
            "question": f"{OPTIONS} candidates: the true one and others of the split, drawn from "
            f"the {LIKE} of most similar length; {PER_DOCUMENT} of a document at most",
            "accuracy": "highest log p(candidate | text before, frame) - log p(candidate | frame)",
            "accuracy_per_token": "highest log p(candidate | text before, frame) per token",
            "gain_nats_per_token": "by how much the text before makes the true one likelier",
            "too long": f"the {lost} of the text before is cut",
            "questions": bench.config.questions,
            "limit": bench.limit_protocol("questions"),
            "seed": bench.config.seed,
            "window": bench.n_ctx,
        }

    def examples(bench: Bench) -> list[Example]:
        found = _found(find, bench, asked)
        by_length = sorted({place.answer for _, place in found}, key=lambda a: (len(a), a))
        chosen = found[: bench.config.questions][: bench.config.limit or None]
        return [_example(bench, name, place, by_length, lost) for name, place in chosen]

    return Task(
        protocol=protocol,
        data=lambda bench: {"corpus": bench.sources.corpus_fingerprint, "split": "test"},
        examples=examples,
        solve=scored(_record),
        summary=_summary,
        baselines=_baselines,
    )


def _found(find: Finder, bench: Bench, asked: str) -> list[tuple[str, Demonstration]]:
    """All demonstrations of the test split, in an order that does not follow its documents."""
    found, seen = [], set()
    for document in bench.sources.whole_documents("test"):
        for number, place in enumerate(islice(find(document), PER_DOCUMENT)):
            if (place.before[-80:], place.answer) not in seen:
                seen.add((place.before[-80:], place.answer))
                found.append((f"{document.id}:{number}", place))
    if len({place.answer for _, place in found}) < LEAST:
        raise DataError(
            f"the test split of {bench.sources.corpus} has {len(found)} of the {LEAST} "
            f"demonstrations needed ({asked})",
            remedy="leave the task out or use a larger corpus",
        )
    return sorted(found, key=lambda pair: rank(bench.config.seed, pair[0]))


def _example(
    bench: Bench, name: str, place: Demonstration, by_length: Sequence[str], lost: str
) -> Example:
    draw = random.Random(f"{bench.config.seed}:{name}")
    nearest = sorted(
        (other for other in by_length if other != place.answer),
        key=lambda other: abs(len(other) - len(place.answer)),
    )[:LIKE]
    options = [place.answer, *draw.sample(nearest, OPTIONS - 1)]
    draw.shuffle(options)
    encode = bench.tokenizer.encode
    frame, endings = [bench.tokenizer.eot, *encode(place.frame)], [encode(o) for o in options]
    before = encode(place.before)
    room = max(bench.n_ctx - len(frame) - max(map(len, endings)), 0)
    kept = before[:room] if lost == "end" else before[max(len(before) - room, 0) :]
    whole = [*kept, *frame[1:]] or frame
    requests = [
        Request(context=context, continuation=ending)
        for context in (whole, frame)
        for ending in endings
    ]
    facts = {
        "document": name,
        "before": place.before,
        "options": options,
        "answer": options.index(place.answer),
        "cut": len(before) - len(kept),
    }
    return Example(requests=requests, facts=facts)


def _record(example: Example, scores: list[Score]) -> Record:
    facts = example.facts
    given, alone = scores[:OPTIONS], scores[OPTIONS:]
    gains = [a.logprob - b.logprob for a, b in zip(given, alone, strict=True)]
    per_token = [score.logprob / len(score.token_logprobs) for score in given]
    answer = facts["answer"]
    return {
        **{key: facts[key] for key in ("document", "options", "answer", "cut")},
        "question": facts["before"][-200:],
        "logprobs": [score.logprob for score in given],
        "alone": [score.logprob for score in alone],
        "tokens": len(given[answer].token_logprobs),
        "gain": gains[answer],
        "accuracy": gains.index(max(gains)) == answer,
        "accuracy_per_token": per_token.index(max(per_token)) == answer,
    }


def _summary(records: list[Record], bench: Bench) -> Summary:
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name in METRICS:
        right = sum(record[name] for record in records)
        metrics[name], intervals[name] = right / len(records), wilson(right, len(records))
    gains, tokens = ([record[key] for record in records] for key in ("gain", "tokens"))
    metrics["gain_nats_per_token"] = sum(gains) / sum(tokens)
    intervals["gain_nats_per_token"] = bootstrap(
        gains, tokens, float, resamples=bench.config.resamples, seed=bench.config.seed
    )
    return {**metrics, **cut_contexts(records)}, intervals


def _baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
    """Chance; the candidate with most words of the text before; a trigram of the corpus."""
    right = {"most words in common": 0.0}
    trigram = bench.sources.trigram
    for example in examples:
        before, options = example.facts["before"], example.facts["options"]
        known = set(content_words(before))
        common = [_share(content_words(option), known) for option in options]
        guesses = {"most words in common": common}
        if trigram:
            tail = words(before[-100:])
            guesses["trigram of the corpus"] = [
                trigram.log_probability(words(o), tail) / max(len(words(o)), 1) for o in options
            ]
        for name, values in guesses.items():
            best = [i for i, value in enumerate(values) if value == max(values)]
            share = (example.facts["answer"] in best) / len(best)  # of equals any may be taken
            right[name] = right.get(name, 0.0) + share
    shares = {name: value / len(examples) for name, value in right.items()}
    return {
        name: dict.fromkeys(METRICS, value)
        for name, value in {"uniform": 1 / OPTIONS, **shares}.items()
    }


def _share(found: Sequence[str], known: set[str]) -> float:
    return sum(word in known for word in found) / max(len(found), 1)
