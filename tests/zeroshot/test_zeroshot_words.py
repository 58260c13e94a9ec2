"""The search for the likeliest word against the plainest one: every word, one at a time."""

import math
from pathlib import Path

import pytest
import torch

from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.last_word import bare, record
from gptwo.zeroshot.run import TASKS
from gptwo.zeroshot.score import Score, Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench, Example
from gptwo.zeroshot.word_search import Found, NextWord, WordSearch
from gptwo.zeroshot.words import GOES_ON, STARTS, WORD, is_stop_word

CONTEXTS = ("\nthe cat saw the", "she went to", "\n", "It was the cat's", "day after day the " * 30)


def plain(tiny, context: list[int]) -> tuple[dict[str, float], float]:
    """p of every word of at most three tokens, and of all longer ones together."""
    V = tiny.tokenizer.vocab_size
    texts = [tiny.tokenizer.decode([token]) for token in range(V)]
    texts[tiny.tokenizer.eot] = ""
    starts = [t for t in range(V) if STARTS.match(texts[t])]
    goes_on = [t for t in range(V) if GOES_ON.match(texts[t])]
    found: dict[str, float] = {}
    beginnings = [((), 1.0)]
    for depth in range(4):
        batch = torch.tensor([[*context, *ids] for ids, _ in beginnings])
        with torch.no_grad():
            p = tiny.model(batch)[:, -1, :V].softmax(-1).double()
        following = []
        for row, (ids, worth) in enumerate(beginnings):
            if depth:
                word = tiny.tokenizer.decode(list(ids)).strip()
                if WORD.search(word):
                    ended = worth * (1 - p[row, goes_on].sum().item())
                    found[word] = max(found.get(word, 0.0), ended)
            ways = starts if not depth else goes_on
            following += [((*ids, t), worth * p[row, t].item()) for t in ways]
        # What is worth less than the best word cannot win: leaving it out changes no answer.
        least = max((v for w, v in found.items() if not is_stop_word(w)), default=0.0)
        beginnings = [pair for pair in following if pair[1] >= max(least, 1e-3)]
        if not beginnings:
            return found, 0.0
    return found, max(worth for _, worth in beginnings)


def test_the_search_finds_what_trying_everything_finds(tiny) -> None:
    contexts = [tiny.tokenizer.encode(text) for text in CONTEXTS]
    together = WordSearch(tiny.model, tiny.tokenizer).answer(
        [NextWord(context=context) for context in contexts]
    )
    told = 0
    for context, answer in zip(contexts, together, strict=True):
        found, longer = plain(tiny, context)
        for word, stop_words in ((answer.word, True), (answer.content_word, False)):
            allowed = {w: p for w, p in found.items() if stop_words or not is_stop_word(w)}
            best = max(allowed, key=allowed.__getitem__, default="")
            if best and allowed[best] > longer and allowed[best] > 2e-3:
                assert word == best, (context, answer)
                told += 1
        assert not is_stop_word(answer.content_word) or not answer.content_word
    assert told >= 5


def test_company_and_batches_change_nothing(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [NextWord(context=tiny.tokenizer.encode(text)) for text in CONTEXTS]
    search = WordSearch(tiny.model, tiny.tokenizer)
    together = search.answer(questions)
    assert [search.answer([question])[0] for question in questions] == together
    monkeypatch.setattr("gptwo.zeroshot.word_search.TOKEN_BUDGET", 1)
    assert search.answer(questions[::-1]) == together[::-1]


def test_a_context_longer_than_the_window_loses_its_start(tiny) -> None:
    long = tiny.tokenizer.encode("the cat saw the hat " * 200)
    search = WordSearch(tiny.model, tiny.tokenizer)
    assert len(long) > 512
    assert search.answer([NextWord(context=long)]) == search.answer([NextWord(context=long[-448:])])


def test_kinds_of_tokens() -> None:
    assert all(STARTS.match(text) for text in (" the", ' "Ann', " '", " 5"))
    assert not any(STARTS.match(text) for text in ("the", " ", "  a", ".", "\n", " ."))
    assert all(GOES_ON.match(text) for text in ("ing", "'t", "-year", "5"))
    assert not any(GOES_ON.match(text) for text in (" the", ".", "'", "-", "\n", ""))
    assert is_stop_word("The") and is_stop_word('"the') and not is_stop_word("theatre")
    assert bare('"Ann.') == "Ann" and bare("don't") == "don't" and bare("“") == ""


def test_whole_words_in_the_record() -> None:
    score = Score(token_logprobs=[-1.0], token_greedy=[False], allowed=True, cut=0)
    example = Example(facts={"context": "a", "target": '"Ann'})
    told = record(example, score, Found(word="the", content_word="Ann", read=3))
    assert (told["word"], told["word_accuracy"]) == ("the", False)
    assert (told["content_word"], told["filtered_word_accuracy"]) == ("Ann", True)
    assert told["filtered_accuracy"] and not told["accuracy"] and told["nats"] == 1.0


def test_the_real_passages(tiny, data_dir: Path) -> None:
    bench = Bench(
        sources=Sources(data_dir, None),
        tokenizer=tiny.tokenizer,
        n_ctx=512,
        config=EvalConfig(limit=6),
    )
    task = TASKS["lambada"]
    examples = task.examples(bench)
    scorer = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size, barred=task.barred(bench))
    records = solve(examples, task, bench, tiny.model, scorer)
    metrics, intervals = task.summary(records, bench)
    assert {"word_accuracy", "filtered_word_accuracy"} <= set(metrics) & set(intervals)
    assert all(not is_stop_word(r["content_word"]) or not r["content_word"] for r in records)
    assert math.isfinite(metrics["perplexity"])
