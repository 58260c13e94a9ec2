"""Examples in conversation with the model: what they ask at the same time is answered together."""

from collections.abc import Sequence
from typing import Any

from gptwo.model.gpt2 import GPT2
from gptwo.progress import SILENT, Reporter
from gptwo.text.samples import complete
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot.score import Request, Scorer
from gptwo.zeroshot.task import Asked, Bench, Continue, Example, Record, Task
from gptwo.zeroshot.word_search import NextWord, WordSearch


def solve(
    examples: Sequence[Example],
    task: Task,
    bench: Bench,
    model: GPT2,
    scorer: Scorer,
    reporter: Reporter = SILENT,
) -> list[Record]:
    """The record of each example, in their order."""
    talks = [task.solve(example, bench) for example in examples]
    records: list[Record] = [{} for _ in examples]
    replies: dict[int, Any] = dict.fromkeys(range(len(talks)))
    while replies:
        asked: dict[int, Asked] = {}
        for index, reply in replies.items():
            try:
                asked[index] = talks[index].send(reply)
            except StopIteration as end:
                records[index] = end.value
        everything = [question for questions in asked.values() for question in questions]
        answers = iter(_answers(everything, bench.tokenizer, model, scorer, reporter))
        replies = {index: [next(answers) for _ in asked[index]] for index in asked}
    return records


def _answers(
    asked: Sequence[Request | Continue | NextWord],
    tokenizer: Tokenizer,
    model: GPT2,
    scorer: Scorer,
    reporter: Reporter,
) -> list[Any]:
    answers: list[Any] = [None] * len(asked)
    scoring = [i for i, question in enumerate(asked) if isinstance(question, Request)]
    writing = [i for i, question in enumerate(asked) if isinstance(question, Continue)]
    searching = [i for i, question in enumerate(asked) if isinstance(question, NextWord)]
    if scoring:
        scores = scorer.score([asked[i] for i in scoring])  # type: ignore[misc]
        for i, score in zip(scoring, scores, strict=True):
            answers[i] = score
    if writing:
        prompts = [(asked[i].prompt, asked[i].config) for i in writing]  # type: ignore[union-attr]
        for place, completion in complete(model, tokenizer, prompts, reporter):
            answers[writing[place]] = completion
    if searching:
        words = WordSearch(model, tokenizer).answer([asked[i] for i in searching])  # type: ignore[misc]
        for i, word in zip(searching, words, strict=True):
            answers[i] = word
    return answers
