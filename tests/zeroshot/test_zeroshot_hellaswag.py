"""HellaSwag by hand, in both conventions, and against lm-evaluation-harness."""

import json
import lzma
import math
from pathlib import Path

import pytest
import torch
from lm_eval.tasks.hellaswag.utils import preprocess

from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.pairs import pair
from gptwo.zeroshot.run import TASKS, evaluate
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import hellaswag

ROW = {
    "ind": 7,
    "activity_label": "Eating",
    "ctx_a": "The cat sat. [header] Hats [title] At a table.",
    "ctx_b": "the hat",
    "ctx": "The cat sat. [header] Hats [title] At a table. the hat",
    "endings": ["ate [substeps] the cat.", "sat", "was hot  as the tea", "ate the hat."],
    "label": "3",
}


def bench_of(tiny, data: Path | None = None) -> Bench:
    return Bench(
        sources=Sources(data, None), tokenizer=tiny.tokenizer, n_ctx=512, config=EvalConfig()
    )


def test_by_hand(tiny) -> None:
    example = hellaswag.question(bench_of(tiny), ROW)
    scores = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size).score(example.requests)
    record = hellaswag.record(example, scores)

    context = "Eating: The cat sat.  Hats. At a table. The hat".replace("  ", " ")
    endings = ["ate the cat.", "sat", "was hot as the tea", "ate the hat."]
    assert hellaswag.harness_texts(ROW) == (context, endings)
    for convention, head, tails in (
        ("harness", context, endings),
        ("completion", ROW["ctx"], ROW["endings"]),
    ):
        by_hand = [logprob(tiny, head, " " + tail) for tail in tails]
        assert record[convention] == pytest.approx(by_hand, abs=2e-3)
    per_character = [p / len(e) for p, e in zip(record["harness"], endings, strict=True)]
    lengths = [len(tiny.tokenizer.encode(" " + ending)) for ending in ROW["endings"]]
    per_token = [p / n for p, n in zip(record["completion"], lengths, strict=True)]
    for name, found in (
        ("harness_accuracy", record["harness"]),
        ("harness_accuracy_per_character", per_character),
        ("completion_accuracy", record["completion"]),
        ("completion_accuracy_per_token", per_token),
    ):
        assert record[name] == (max(range(4), key=found.__getitem__) == 3), name


def logprob(tiny, context: str, continuation: str) -> float:
    head, tail = tiny.tokenizer.encode(context), tiny.tokenizer.encode(continuation)
    with torch.no_grad():
        logits = tiny.model(torch.tensor([head + tail]))[0, :, : tiny.tokenizer.vocab_size]
    logprobs = torch.log_softmax(logits, dim=-1)
    return sum(logprobs[len(head) - 1 + i, token].item() for i, token in enumerate(tail))


def test_every_text_is_spelled_as_the_harness_spells_it(data_dir: Path) -> None:
    with lzma.open(data_dir / hellaswag.FILE.path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 10_042
    for row in rows:
        joined = row["activity_label"] + ": " + row["ctx_a"] + " " + row["ctx_b"].capitalize()
        expected = preprocess(joined), [preprocess(ending) for ending in row["endings"]]
        assert hellaswag.harness_texts(row) == expected


def test_spaces_and_empty_contexts_are_cut_as_the_harness_cuts_them(tiny) -> None:
    encode, decode = tiny.tokenizer.encode, tiny.tokenizer.decode
    split = pair(tiny.tokenizer, "the cat \n", "sat")
    assert (decode(split.context), decode(split.continuation)) == ("the cat", " \nsat")
    assert pair(tiny.tokenizer, " ", "a").context == [tiny.tokenizer.eot]
    # " the" is one token: the border falls where the context alone has ended
    spanning = pair(tiny.tokenizer, "a t", "he")
    whole = encode("a the")
    assert [*spanning.context, *spanning.continuation] == whole
    assert len(spanning.context) == min(len(encode("a t")), len(whole))


def test_real_questions(tiny, data_dir: Path, tmp_path: Path) -> None:
    config = EvalConfig(limit=6)
    result = evaluate(tiny, ["hellaswag"], out=tmp_path, data=data_dir, config=config)["hellaswag"]
    assert result.n == 6 and set(hellaswag.METRICS) <= set(result.metrics)
    assert all(interval.high > interval.low for interval in result.intervals.values())
    task, bench = TASKS["hellaswag"], bench_of(tiny, data_dir)
    shares = task.baselines(task.examples(bench), bench)
    assert shares["chance"]["harness_accuracy"] == 0.25
    assert math.isclose(shares["longest ending"]["harness_accuracy"], 0.25, abs_tol=0.05)
