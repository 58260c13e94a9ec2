"""Tasks that are answered in words: by hand, against the official scorers, on the real files."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.qasper import metrics as squad  # the SQuAD script's functions
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu

from gptwo.errors import DataError
from gptwo.text.samples import Completion
from gptwo.zeroshot.answers import exact_match, f1, f1_of_many, normalized
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.run import TASKS, evaluate, paper_rows
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench, Continue, Example
from gptwo.zeroshot.tasks import cnn_dailymail, coqa, nq
from gptwo.zeroshot.translation import PAIRS
from gptwo.zeroshot.words import sentences

WRITTEN = ("coqa", "cnn-dailymail", "wmt14-en-fr", "wmt14-fr-en", "nq")
ANSWERS = st.lists(
    st.sampled_from(["The", "a", "cat", "Cat", "U.S.", "an", "dog!", "1,000", "café", "—"])
).map(" ".join)


def bench_of(tiny, data: Path | None = None, **settings) -> Bench:
    return Bench(
        sources=Sources(data, None),
        tokenizer=tiny.tokenizer,
        n_ctx=tiny.model.config.n_ctx,
        config=EvalConfig(**settings),
    )


def completion(text: str, *probabilities: float) -> Completion:
    told = [{"logprob": math.log(p)} for p in probabilities]
    return Completion(prompt="", text=text, seed=0, tokens=len(told), finish="stop", logprobs=told)


def play(task, example: Example, bench: Bench, *replies: list[Completion]) -> tuple[list, dict]:
    """What the task asked, turn by turn, when answered so; and its record."""
    talk = task.solve(example, bench)
    asked = [next(talk), *(talk.send(reply) for reply in replies[:-1])]
    with pytest.raises(StopIteration) as end:
        talk.send(replies[-1])
    return asked, end.value.value


def texts(bench: Bench, asked) -> list[str]:
    assert all(isinstance(question, Continue) for question in asked)
    return [bench.tokenizer.decode(question.prompt) for question in asked]


# Short answers


def test_answers_by_hand() -> None:
    assert normalized("The U.S.  Army!") == "us army"
    assert exact_match(" a Cat.", ["dog", "cat"]) and not exact_match("cats", ["cat"])
    assert f1("a white cat", "the cat") == 2 * 1 / 3
    assert f1("the", "a") == 1.0 and f1("", "cat") == 0.0
    # without the first reference 1/2 is best, without either other one it is 1
    three = ["white cat", "dog", "black white"]
    assert f1_of_many("white cat", three) == pytest.approx((1 / 2 + 1 + 1) / 3)


@given(ANSWERS, ANSWERS)
def test_answers_are_compared_as_the_official_scorer_does(ours: str, theirs: str) -> None:
    assert normalized(ours) == squad.normalize_answer(ours)
    same = squad.normalize_answer(ours) == squad.normalize_answer(theirs)
    assert exact_match(ours, [theirs]) == same
    if normalized(ours) or normalized(theirs):  # CoQA's script alone knows two empty answers
        assert f1(ours, theirs) == pytest.approx(squad.f1_abstractive([ours], [theirs]))


def test_every_real_turn_is_scored_as_the_official_scorer_does(tiny, data_dir: Path) -> None:
    """Each person's answer, and some that nobody gave, with each reference left out in turn."""
    compared = 0
    for example in TASKS["coqa"].examples(bench_of(tiny, data_dir)):
        for references in example.facts["references"]:
            pairs = list(enumerate(references))
            for said in (*references, "yes", f"{references[0]} of the town"):
                if not all(map(normalized, (said, *references))):
                    continue  # CoQA's script alone knows empty answers
                each = {other: squad.f1_abstractive([said], [other]) for other in references}
                best = [max(each[other] for j, other in pairs if j != i) for i, _ in pairs]
                expected = sum(best) / len(best)
                assert f1_of_many(said, references) == pytest.approx(expected, abs=1e-12)
                compared += 1
    assert compared > 1_000


def test_real_summaries_are_scored_as_the_official_scorer_does(tiny, data_dir: Path) -> None:
    official = RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=True)
    for example in TASKS["cnn-dailymail"].examples(bench_of(tiny, data_dir, limit=20)):
        highlights = example.facts["highlights"]
        lede = cnn_dailymail.first_sentences(example.facts["article"])
        lines = [highlights[first:end] for first, end in sentences(highlights)]
        expected = official.score("\n".join(lines), "\n".join(lede))
        found = cnn_dailymail.rouge(lede, highlights)
        for name, theirs in cnn_dailymail.ROUGE.items():
            assert found[name] == pytest.approx(100 * expected[theirs].fmeasure)


def test_questions_by_hand(tiny) -> None:
    bench = bench_of(tiny)
    example = Example(facts={"question": "who sat on the mat", "accepted": ["the cat", "Tom"]})
    asked, record = play(nq.TASK, example, bench, [completion(" The Cat", 0.5, 0.5)])
    (prompt,) = texts(bench, asked[0])
    assert prompt.endswith("reef?\nA: Australia\nQ: who sat on the mat?\nA:")
    assert prompt.count("Q: ") == len(nq.PAIRS) + 1
    assert record["exact_match"] and record["confidence"] == pytest.approx(0.25)
    assert asked[0][0].config.temperature == 0 and asked[0][0].config.stop == ("\n",)


def test_confidence_ranks_questions(tiny) -> None:
    """Of 200 answers the most confident are right: all of the top 1%, all of the first tenth."""
    records = [{"exact_match": i < 30, "confidence": 1 - i / 200, "cut": 0} for i in range(200)]
    metrics, intervals = nq.summary(records[::-1], bench_of(tiny))
    assert metrics["exact_match"] == 0.15 and metrics["top_1_percent_accuracy"] == 1.0
    assert [metrics[f"tenth_{n}_accuracy"] for n in (1, 2, 3)] == [1.0, 0.5, 0.0]
    assert metrics["top_1_percent_confidence"] == pytest.approx(1 - 0.5 / 200)
    assert intervals["tenth_3_accuracy"].low == 0.0 < intervals["tenth_3_accuracy"].high


# Conversations


STORY = {
    "id": "s",
    "source": "news",
    "story": "The cat sat.",
    "questions": [{"input_text": "Who sat?"}, {"input_text": "How?"}],
    "answers": [{"input_text": "the cat"}, {"input_text": "well"}],
    "additional_answers": {"0": [{"input_text": "cat"}, {"input_text": "so so"}]},
}


def test_conversations_by_hand(tiny) -> None:
    bench, example = bench_of(tiny), coqa.conversation(STORY)
    replies = [
        [completion(" cat"), completion(" badly")],
        [completion(" dog")],
        [completion(" so")],
    ]
    asked, record = play(coqa.TASK, example, bench, *replies)
    first = "The cat sat.\nQ: Who sat?\nA:"
    assert texts(bench, asked[0]) == [first, f"{first} the cat\nQ: How?\nA:"]
    assert texts(bench, asked[1]) == [first]
    assert texts(bench, asked[2]) == [f"{first} dog\nQ: How?\nA:"]  # its own answer
    assert record["f1"] == [1.0, 0.0]
    assert record["own_history_f1"] == pytest.approx([0.0, 1 / 3])  # 0 and 2/3, one left out each
    metrics, _ = coqa.summary([record], bench)
    assert metrics["f1"] == metrics["news_f1"] == 0.5 and metrics["turns"] == 2
    assert coqa.baselines([example], bench)["people"]["f1"] == 0.5


def test_a_text_that_is_too_long_loses_its_end(tiny) -> None:
    bench = replace(bench_of(tiny), n_ctx=100)
    example = coqa.conversation({**STORY, "story": "x" * 300})
    asked, _ = play(
        coqa.TASK, example, bench, [completion("")] * 2, [completion("")], [completion("")]
    )
    for prompt in texts(bench, asked[0]):
        assert prompt.startswith("xx") and prompt.endswith("?\nA:")
    assert all(len(question.prompt) <= 100 - coqa.GREEDY.max_tokens for question in asked[0])


# Summaries and translations


def test_summaries_by_hand(tiny) -> None:
    bench = bench_of(tiny, seed=3)
    facts = {
        "id": "1",
        "article": "The cat sat. It slept.",
        "highlights": "The cat sat . It slept .",
    }
    said = "The cats sat. It slept. Then it ate. Then it left."
    asked, record = play(
        cnn_dailymail.TASK, Example(facts=facts), bench, [completion(said), completion("")]
    )
    assert texts(bench, asked[0]) == [facts["article"] + "\nTL;DR:", facts["article"]]
    config = asked[0][0].config
    assert (config.top_k, config.max_tokens, config.temperature, config.seed) == (2, 100, 1.0, 3)
    assert record["summary"].split("\n") == ["The cats sat.", "It slept.", "Then it ate."]
    # stemmed: the cat sat it slept | then it ate; 5 of 8 words, all 5 of the reference's
    assert record["rouge_1"] == pytest.approx(100 * 2 * (5 / 8) / (5 / 8 + 1))
    assert record["rouge_2"] == pytest.approx(100 * 2 * (4 / 7) / (4 / 7 + 1))
    assert record["no_hint_rouge_mean"] == 0


def test_translations_by_hand(tiny) -> None:
    bench = bench_of(tiny)
    task = TASKS["wmt14-fr-en"]
    example = Example(facts={"source": "Le chat dort.", "reference": "The cat sleeps."})
    asked, record = play(task, example, bench, [completion(" The cat sleeps.")])
    (prompt,) = texts(bench, asked[0])
    assert prompt.endswith(f"\n{PAIRS[-1][1]} = {PAIRS[-1][0]}\nLe chat dort. =")
    assert record["translation"] == "The cat sleeps."
    said = ["The cat sleeps now on the mat.", "A dog ran home."]
    references = ["The cat sleeps on the mat now.", "A dog ran home."]
    records = [
        {"translation": a, "reference": b, "cut": 0} for a, b in zip(said, references, strict=True)
    ]
    metrics, intervals = task.summary(records, bench)
    assert metrics["bleu"] == pytest.approx(corpus_bleu(said, [references]).score)
    assert intervals["bleu"].low <= metrics["bleu"] <= intervals["bleu"].high
    assert "tok:13a" in task.protocol(bench)["bleu"]


def test_a_package_that_is_missing_is_told_before_the_first_request(
    tiny, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(DataError, match="sacrebleu, which is not installed") as caught:
        evaluate(
            tiny,
            ["wmt14-en-fr", "nq"],
            out=tmp_path,
            data=data_dir,
            config=EvalConfig(limit=2, resamples=5),
        )
    assert "gptwo[eval]" in caught.value.remedy
    assert [path.name for path in sorted(tmp_path.glob("*.json"))] == ["nq.json"]


@pytest.mark.parametrize("name", WRITTEN)
def test_real_files(name: str, tiny, data_dir: Path, tmp_path: Path) -> None:
    config = EvalConfig(limit=2, resamples=5)
    result = evaluate(tiny, [name], out=tmp_path, data=data_dir, config=config)[name]
    compared = {metric for row in paper_rows(name).values() for metric in row}
    assert result.n == 2 and compared <= set(result.metrics) and result.paper


def test_anchors_of_the_real_files(tiny, data_dir: Path) -> None:
    """What needs no model is known of the published sets: Lede-3, people, copying."""
    bench = bench_of(tiny, data_dir)
    rows = {}
    for name, limit in (("coqa", 0), ("cnn-dailymail", 40), ("wmt14-en-fr", 200), ("nq", 0)):
        examples = TASKS[name].examples(bench)
        rows[name] = TASKS[name].baselines(examples[: limit or None], bench)
    assert 0.85 < rows["coqa"]["people"]["f1"] < 0.95  # 0.888 on the whole development set
    assert 30 < rows["cnn-dailymail"]["Lede-3"]["rouge_1"] < 45  # 40.38 in the paper
    assert rows["cnn-dailymail"]["Lede-3"]["rouge_1"] > rows["cnn-dailymail"]["Random-3"]["rouge_1"]
    assert 1 < rows["wmt14-en-fr"]["copy"]["bleu"] < 10
    (share,) = rows["nq"]["most frequent answer per question word"].values()
    assert 0.0005 < share < 0.03  # 1.0% in the paper, which knows the training set


def test_answers_do_not_depend_on_company(tiny, data_dir: Path) -> None:
    """In one block with others or alone: the same texts."""
    bench = bench_of(tiny, data_dir, limit=4)
    task = TASKS["nq"]
    examples = task.examples(bench)
    scorer = Scorer(tiny.model)
    together = solve(examples, task, bench, tiny.model, scorer)
    alone = [solve([example], task, bench, tiny.model, scorer)[0] for example in examples]
    assert [record["answer"] for record in together] == [record["answer"] for record in alone]
