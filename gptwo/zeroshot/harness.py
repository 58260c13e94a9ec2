"""Tasks as lm-evaluation-harness 0.4.13 runs them: `evaluation.mode=harness`.

Its prompts, its cuts between context and continuation and its metrics under its own names, so that
a number here can be put beside one of the harness. Where it is odd it is followed: Winograd's rest
begins with two spaces, the bytes and words of WikiText are those before de-tokenisation, and each
continuation has its own cut of a context that is too long.
"""

import re
import string
from collections.abc import Callable, Sequence
from typing import Any

from gptwo.errors import DataError
from gptwo.records import Interval
from gptwo.text.config import SampleConfig
from gptwo.zeroshot.intervals import bits, bootstrap, perplexity, wilson
from gptwo.zeroshot.pairs import pair
from gptwo.zeroshot.score import Request, Score, rolling_windows
from gptwo.zeroshot.task import (
    Bench,
    Continue,
    Example,
    Record,
    Solving,
    Summary,
    Task,
    cut_contexts,
    scored,
)
from gptwo.zeroshot.tasks import hellaswag, lambada, nq, wikitext2, wsc273

VERSION = "lm-evaluation-harness 0.4.13"
GREEDY = SampleConfig(temperature=0.0, max_tokens=256, stop=("\n", ".", ","))
NQ_PROMPT = "Answer these questions:\n\nQ: {question}?\nA:"
NQ_IGNORED = re.compile(r"\b(?:The |the |An |A |The |a |an )")
PUNCTUATION = str.maketrans("", "", string.punctuation)
# The harness' edits of WikiText in their order: texts, then patterns, then texts.
WIKITEXT_BEFORE = (
    *((f" @{mark}@ ", mark) for mark in "-,."),
    *((f" {mark} ", f"{mark} ") for mark in ":;.!?,"),
)
WIKITEXT_INSIDE = (
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r"\"\s*([^\"]*?)\s*\"", r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
)
WIKITEXT_AFTER = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def harness_task(
    kind: Task,
    what: str,
    asked: str,
    metrics: dict[str, str],
    *,
    examples: Callable[[Bench], list[Example]],
    solve: Callable[[Example, Bench], Solving],
    data: Callable[[Bench], dict[str, Any]] | None = None,
    summary: Callable[[list[Record], Bench], Summary] | None = None,
) -> Task:
    """A task on the data of `kind`; without a `summary` its metrics are shares of right answers."""

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "mode": f"harness: as {VERSION}",
            "asked": asked,
            **metrics,
            "limit": bench.limit_protocol(what),
        }

    def shares(records: list[Record], bench: Bench) -> Summary:
        right = {name: sum(record[name] for record in records) for name in metrics}
        n = len(records)
        values = {name: count / n for name, count in right.items()}
        intervals = {name: wilson(count, n) for name, count in right.items()}
        return {**values, **cut_contexts(records)}, intervals

    return Task(
        protocol=protocol,
        data=data or kind.data,
        examples=examples,
        solve=solve,
        summary=summary or shares,
        baselines=lambda examples, bench: {},
    )


def fitting(bench: Bench, context: str, continuation: str) -> tuple[Request, int]:
    """The request, its context cut from the left to fit; how many tokens were cut."""
    whole = pair(bench.tokenizer, context, continuation)
    room = max(bench.n_ctx + 1 - len(whole.continuation), 1)
    kept = whole.context[-room:]
    return Request(context=kept, continuation=whole.continuation), len(whole.context) - len(kept)


def _choices(bench: Bench, pairs: Sequence[tuple[str, str]], **facts: Any) -> Example:
    """One of several (context, continuation) is right."""
    requests, cuts = zip(*(fitting(bench, *texts) for texts in pairs), strict=True)
    return Example(requests=requests, facts={**facts, "cut": max(cuts)})


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


# ---- LAMBADA ----


def _lambada_examples(bench: Bench) -> list[Example]:
    rows = bench.sources.rows(lambada.FILE, bench.config.limit)
    return [_passage(bench, row["text"]) for row in rows]


def _passage(bench: Bench, text: str) -> Example:
    context, _, word = text.rpartition(" ")
    request, cut = fitting(bench, context, " " + word)
    return Example(requests=[request], facts={"target": word, "cut": cut})


def _lambada_record(example: Example, scores: list[Score]) -> Record:
    (score,) = scores
    return {**example.facts, "nats": -score.logprob, "acc": score.greedy}


def _lambada_summary(records: list[Record], bench: Bench) -> Summary:
    n, right = len(records), sum(record["acc"] for record in records)
    nats = [record["nats"] for record in records]
    metrics = {"perplexity": perplexity(sum(nats) / n), "acc": right / n}
    intervals = {
        "perplexity": _resampled(nats, [1.0] * n, perplexity, bench),
        "acc": wilson(right, n),
    }
    return {**metrics, **cut_contexts(records)}, intervals


def _resampled(
    nats: list[float], units: Sequence[float], finish: Callable[[float], float], bench: Bench
) -> Interval:
    config = bench.config
    return bootstrap(nats, units, finish, resamples=config.resamples, seed=config.seed)


# ---- WikiText-2 ----


def pages(text: str) -> list[str]:
    """The documents of the harness' copy: cut before every line that looks like a title.

    62 of the test text; two of them begin at a formula.
    """
    found: list[str] = []
    lines: list[str] = []
    for line in text.split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" ="):
            found.append("\n".join(lines))
            lines = []
        lines.append(line)
    found.append("\n".join(lines))
    return [page for page in found if page.strip()]


def detokenized(page: str) -> str:
    """As the harness edits WikiText. Its rule for `/' [0-9]/` changes nothing and is left out."""
    page = page.replace("s '", "s'")
    for old, new in WIKITEXT_BEFORE:
        page = page.replace(old, new)
    for pattern, new in WIKITEXT_INSIDE:
        page = re.sub(pattern, new, page)
    for old, new in WIKITEXT_AFTER:
        page = page.replace(old, new)
    return page


def _wikitext_examples(bench: Bench) -> list[Example]:
    text = bench.sources.read(wikitext2.FILE).decode("utf-8")
    return [_page(bench, page) for page in pages(text)[: bench.config.limit or None]]


def _page(bench: Bench, page: str) -> Example:
    ids = bench.tokenizer.encode(detokenized(page))
    return Example(
        requests=rolling_windows(ids, bench.n_ctx, bench.n_ctx, bench.tokenizer.eot),
        facts={"words": len(re.split(r"\s+", page)), "bytes": len(page.encode("utf-8"))},
    )


def _page_record(example: Example, scores: list[Score]) -> Record:
    return {**example.facts, "nats": -sum(score.logprob for score in scores)}


def _wikitext_summary(records: list[Record], bench: Bench) -> Summary:
    metrics, intervals = {}, {}
    nats = [record["nats"] for record in records]
    for name, unit, finish in (
        ("word_perplexity", "words", perplexity),
        ("byte_perplexity", "bytes", perplexity),
        ("bits_per_byte", "bytes", bits),
    ):
        units = [record[unit] for record in records]
        metrics[name] = finish(sum(nats) / sum(units))
        intervals[name] = _resampled(nats, units, finish, bench)
    return metrics, intervals


# ---- Winograd ----


def _wsc_examples(bench: Bench) -> list[Example]:
    return [_schema(bench, row) for row in bench.sources.rows(wsc273.FILE, bench.config.limit)]


def _schema(bench: Bench, row: dict[str, Any]) -> Example:
    rest = " " + wsc273.glue(row["continuation"]) + row["continuation"]
    pairs = [(option, rest) for option in row["context_options"]]
    return _choices(bench, pairs, options=row["context_options"], gold=row["gold"])


def _wsc_record(example: Example, scores: list[Score]) -> Record:
    partial = [score.logprob for score in scores]
    return {**example.facts, "partial": partial, "acc": _best(partial) == example.facts["gold"]}


# ---- HellaSwag ----


def _hellaswag_examples(bench: Bench) -> list[Example]:
    return [_beginning(bench, r) for r in bench.sources.rows(hellaswag.FILE, bench.config.limit)]


def _beginning(bench: Bench, row: dict[str, Any]) -> Example:
    context, endings = hellaswag.harness_texts(row)
    pairs = [(context, " " + ending) for ending in endings]
    lengths = [len(ending) for ending in endings]
    return _choices(bench, pairs, id=row["ind"], gold=int(row["label"]), characters=lengths)


def _hellaswag_record(example: Example, scores: list[Score]) -> Record:
    sums, gold = [score.logprob for score in scores], example.facts["gold"]
    means = [total / n for total, n in zip(sums, example.facts["characters"], strict=True)]
    return {
        **example.facts,
        "sums": sums,
        "acc": _best(sums) == gold,
        "acc_norm": _best(means) == gold,
    }


# ---- Natural Questions ----


def _nq_data(bench: Bench) -> dict[str, Any]:
    if bench.n_ctx <= GREEDY.max_tokens:
        raise DataError(
            f"answers may grow to {GREEDY.max_tokens} tokens, the model sees {bench.n_ctx}",
            remedy="leave nq out, or ask it in paper mode",
        )
    return nq.TASK.data(bench)


def _nq_examples(bench: Bench) -> list[Example]:
    rows = bench.sources.rows(nq.FILE, bench.config.limit)
    return [Example(facts={"question": r["question"], "accepted": r["answer"]}) for r in rows]


def _nq_solve(example: Example, bench: Bench) -> Solving:
    ids = bench.tokenizer.encode(NQ_PROMPT.format(question=example.facts["question"]))
    kept = ids[-(bench.n_ctx - GREEDY.max_tokens) :]
    (said,) = yield [Continue(prompt=kept, config=GREEDY)]
    answer = said.text.strip()
    accepted = {bare_answer(other) for other in example.facts["accepted"]}
    return {
        **example.facts,
        "answer": answer,
        "exact_match": bare_answer(answer) in accepted,
        "cut": len(ids) - len(kept),
    }


def bare_answer(answer: str) -> str:
    """What the harness compares: no articles before a space, lower case, no punctuation."""
    return NQ_IGNORED.sub("", answer).lower().translate(PUNCTUATION)


TASKS: dict[str, Task] = {
    "lambada": harness_task(
        lambada.TASK,
        "passages",
        "lambada_openai: the text as it is; what follows the last space",
        {
            "perplexity": "exp of the mean over passages of the word's negative log-probability",
            "acc": "all tokens of the word greedy",
        },
        examples=_lambada_examples,
        solve=scored(_lambada_record),
        summary=_lambada_summary,
    ),
    "wikitext2": harness_task(
        wikitext2.TASK,
        "pages",
        "wikitext: each page de-tokenised and after <|endoftext|>, in windows of the context that "
        "share no scored token",
        {
            "word_perplexity": "per stretch between white space of the page as it was",
            "byte_perplexity": "per byte of the page as it was",
            "bits_per_byte": "of the page as it was",
        },
        examples=_wikitext_examples,
        solve=scored(_page_record),
        summary=_wikitext_summary,
    ),
    "wsc273": harness_task(
        wsc273.TASK,
        "schemas",
        "wsc273: the rest of the sentence, two spaces before it, after each candidate",
        {"acc": "log p(rest) is higher after the right candidate"},
        examples=_wsc_examples,
        solve=scored(_wsc_record),
    ),
    "hellaswag": harness_task(
        hellaswag.TASK,
        "beginnings",
        "hellaswag: activity: ctx_a and ctx_b capitalised, without brackets; four endings",
        {
            "acc": "the sum of log p of the right ending is highest",
            "acc_norm": "the same divided by the ending's characters",
        },
        examples=_hellaswag_examples,
        solve=scored(_hellaswag_record),
    ),
    "nq": harness_task(
        nq.TASK,
        "questions",
        f"nq_open: {NQ_PROMPT!r}, no pairs; greedy to a line end, full stop or comma, 256 tokens "
        "at most",
        {"exact_match": "case, punctuation and articles do not count; any accepted answer"},
        data=_nq_data,
        examples=_nq_examples,
        solve=_nq_solve,
    ),
}
