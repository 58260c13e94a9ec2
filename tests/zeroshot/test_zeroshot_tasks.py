"""Each task by hand on one example, and cuts of the real files."""

import math
from pathlib import Path

import pytest
import torch

from gptwo.errors import DataError
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.run import TASKS, paper_rows, published
from gptwo.zeroshot.score import Request, Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench, Example
from gptwo.zeroshot.tasks import (
    cloze,
    heldout,
    hellaswag,
    lambada,
    lastword,
    ptb,
    wikitext2,
    wsc273,
)

FILES = [lambada.FILE, wikitext2.FILE, ptb.FILE, wsc273.FILE, hellaswag.FILE]


def bench_of(tiny, data: Path | None = None, corpus: Path | None = None, **settings) -> Bench:
    return Bench(
        sources=Sources(data, corpus),
        tokenizer=tiny.tokenizer,
        n_ctx=tiny.model.config.n_ctx,
        config=EvalConfig(**settings),
    )


def plain_logprob(tiny, context: list[int], continuation: list[int]) -> float:
    """Sum of log softmax, one forward pass, the padding rows left out."""
    with torch.no_grad():
        logits = tiny.model(torch.tensor([[*context, *continuation]]))[0]
    logprobs = torch.log_softmax(logits[:, : tiny.tokenizer.vocab_size], dim=-1)
    first = len(context) - 1
    return sum(logprobs[first + i, token].item() for i, token in enumerate(continuation))


def records_of(tiny, bench: Bench, name: str, examples: list[Example]) -> list[dict]:
    task = TASKS[name]
    scorer = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size, barred=task.barred(bench))
    return solve(examples, task, bench, tiny.model, scorer)


# LAMBADA


def test_lambada_text_is_made_plain() -> None:
    texts = [" He said \u201cgo home\u201d to \u2018Ann "]
    assert lambada.passages(texts) == [('\nHe said "go home" to', "\u2018Ann")]


def test_lambada_by_hand(tiny) -> None:
    bench = bench_of(tiny)
    encode = tiny.tokenizer.encode
    (example,) = [lambada.question(bench, "\nthe cat", "hat")]
    (record,) = records_of(tiny, bench, "lambada", [example])
    context, word = encode("\nthe cat"), encode(" hat")
    assert record["nats"] == pytest.approx(-plain_logprob(tiny, context, word), abs=1e-4)
    assert record["target"] == "hat" and record["tokens"] == len(word) and record["cut"] == 0
    with torch.no_grad():
        best = tiny.model(torch.tensor([[*context, *word]]))[0, :, : tiny.tokenizer.vocab_size]
    greedy = (best.argmax(-1)[len(context) - 1 : -1] == torch.tensor(word)).tolist()
    assert record["accuracy"] == all(greedy)
    assert record["last_token_accuracy"] == greedy[-1]


def test_lambada_counts_by_hand(tiny) -> None:
    records = [
        {"nats": 1.0, "accuracy": True, "last_token_accuracy": True, "filtered_accuracy": True},
        {"nats": 3.0, "accuracy": False, "last_token_accuracy": True, "filtered_accuracy": False},
    ]
    for record in records:
        record |= {"cut": 0, "word_accuracy": False, "filtered_word_accuracy": record["accuracy"]}
    metrics, intervals = TASKS["lambada"].summary(records, bench_of(tiny))
    assert metrics == {
        "accuracy": 0.5,
        "last_token_accuracy": 1.0,
        "filtered_accuracy": 0.5,
        "word_accuracy": 0.0,
        "filtered_word_accuracy": 0.5,
        "perplexity": pytest.approx(math.exp(2)),
        "cut_contexts": 0.0,
    }
    assert intervals["perplexity"].low < math.exp(2) < intervals["perplexity"].high
    assert intervals["accuracy"].low == pytest.approx(0.0945312, abs=1e-6)


def test_stop_words_that_are_one_token_are_barred(tiny) -> None:
    barred = lambada.stop_tokens(bench_of(tiny))
    assert [tiny.tokenizer.decode([token]) for token in barred] == [" a", " the"]


def test_the_real_lambada(tiny, data_dir: Path) -> None:
    texts = [row["text"] for row in Sources(data_dir, None).rows(lambada.FILE)]
    assert sum("\u201c" in text or "\u201d" in text for text in texts) > 1500
    found = lambada.passages(texts)
    assert len(found) == 5153
    assert sum(not word.isalpha() for _, word in found) >= 38
    assert not any("\u201c" in a + b for a, b in found)
    assert all(text.startswith("\n") for text, _ in found)


# WikiText-2 and PTB


def test_running_text_by_hand(tiny, data_dir: Path) -> None:
    bench = bench_of(tiny, data_dir, limit=3)
    text = " \n = Robert Boulter = \n \n"
    facts = TASKS["wikitext2"].data(bench)
    assert (facts["lines"], facts["units"], facts["text_bytes"]) == (3, 7, len(text))
    records = records_of(tiny, bench, "wikitext2", TASKS["wikitext2"].examples(bench))
    metrics, intervals = TASKS["wikitext2"].summary(records, bench)
    encode, eot = tiny.tokenizer.encode, tiny.tokenizer.eot
    raw = -plain_logprob(tiny, [eot], encode(text))
    clean = -plain_logprob(tiny, [eot], encode("\n= Robert Boulter =\n\n"))
    assert metrics == {
        "perplexity": pytest.approx(math.exp(clean / 7), rel=1e-4),
        "token_perplexity": pytest.approx(
            math.exp(clean / len(encode("\n= Robert Boulter =\n\n"))), rel=1e-4
        ),
        "bits_per_byte": pytest.approx(clean / math.log(2) / len(text), rel=1e-4),
        "tokens": len(encode("\n= Robert Boulter =\n\n")),
        "raw_perplexity": pytest.approx(math.exp(raw / 7), rel=1e-4),
        "raw_token_perplexity": pytest.approx(math.exp(raw / len(encode(text))), rel=1e-4),
        "raw_bits_per_byte": pytest.approx(raw / math.log(2) / len(text), rel=1e-4),
        "raw_tokens": len(encode(text)),
        "units": 7,
    }
    assert set(intervals) == {name for name in metrics if name[-5:] not in ("okens", "units")}


def test_units_of_the_real_texts(tiny, data_dir: Path) -> None:
    bench = bench_of(tiny, data_dir)
    wikitext, penn = TASKS["wikitext2"].data(bench), TASKS["ptb"].data(bench)
    assert (wikitext["units"], wikitext["lines"]) == (245_569, 4_358)
    assert (penn["units"], penn["lines"]) == (82_430, 3_761)


def test_the_stride_moves_windows_and_is_in_the_protocol(tiny, data_dir: Path) -> None:
    bench = bench_of(tiny, data_dir, limit=20, window=128, stride=32)
    examples = TASKS["ptb"].examples(bench)
    windows = [e.requests[0] for e in examples if e.facts["text"] == "raw"]
    assert {len(w.continuation) for w in windows[1:-1]} == {32}
    assert {len(w.context) + len(w.continuation) - 1 for w in windows} == {128}
    assert TASKS["ptb"].protocol(bench)["stride"] == 32


# Winograd


def test_winograd_by_hand(tiny) -> None:
    bench = bench_of(tiny)
    options = ["the cat ate the hat as the cat", "the cat ate the hat as the hat"]
    example = wsc273.schema(bench, options, "was hungry.", 0)
    (record,) = records_of(tiny, bench, "wsc273", [example])
    encode, eot = tiny.tokenizer.encode, tiny.tokenizer.eot
    tail = encode(" was hungry.")
    full = [plain_logprob(tiny, [eot], encode(option) + tail) for option in options]
    partial = [plain_logprob(tiny, [eot, *encode(option)], tail) for option in options]
    # the beginning that both share is left out of both
    assert record["full"][0] - record["full"][1] == pytest.approx(full[0] - full[1], abs=1e-3)
    assert record["partial"] == pytest.approx(partial, abs=1e-3)
    assert record["full_accuracy"] == (full[0] > full[1])
    assert record["partial_accuracy"] == (partial[0] > partial[1])
    assert example.requests[0].context == example.requests[1].context


@pytest.mark.parametrize("eot", [True, False])
def test_winograd_sentences_without_anything_in_common(tiny, eot: bool) -> None:
    example = wsc273.schema(bench_of(tiny, eot_prefix=eot), ["Ann", "Bob"], ".", 1)
    assert [list(r.context) for r in example.requests] == (
        [[tiny.tokenizer.eot]] * 2 if eot else [tiny.tokenizer.encode(c) for c in "AB"]
    )
    assert tiny.tokenizer.decode(example.requests[1].continuation) == ("Bob." if eot else "ob.")


def test_the_real_winograd(tiny, data_dir: Path) -> None:
    bench = bench_of(tiny, data_dir)
    examples = TASKS["wsc273"].examples(bench)
    assert len(examples) == 273
    assert TASKS["wsc273"].baselines(examples, bench)["majority"]["full_accuracy"] == 137 / 273


# Built-in tasks


def test_cloze_questions(corpus: Path) -> None:
    for name, text in Sources(None, corpus).documents("test"):
        found = list(cloze.questions(name, text, seed=0))
        assert [q["kind"] for q in found] == ["names", "nouns"] * (len(found) // 2)
        assert found == list(cloze.questions(name, text, seed=0))
        for q in found:
            word = q["options"][q["answer"]]
            assert f"{q['context']} {word}{q['rest']}" in text
            assert len(set(q["options"])) == 10 and all(o in q["context"] for o in q["options"])
            others = set(q["options"]) - {word}
            assert not any(f" {o} " in q["query"] for o in others)


def test_cloze_by_hand(tiny, corpus: Path) -> None:
    bench = bench_of(tiny, corpus=corpus)
    facts = {
        "context": "the",
        "space": " ",
        "rest": " ran.",
        "query": "the ____ ran.",
        "options": ["cat", "dog"],
        "answer": 1,
        "kind": "nouns",
        "document": "d",
    }
    (record,) = records_of(tiny, bench, "cloze", [cloze._request(bench, facts)])
    encode = tiny.tokenizer.encode
    expected = [plain_logprob(tiny, encode("the"), encode(f" {w} ran.")) for w in ("cat", "dog")]
    assert record["logprobs"] == pytest.approx(expected, abs=1e-3)
    assert record["chosen"] == expected.index(max(expected))
    assert record["right"] == (record["chosen"] == 1)
    metrics, _ = TASKS["cloze"].summary([{**record, "right": True}] * 3, bench)
    assert metrics == {"accuracy": 1.0, "nouns_accuracy": 1.0, "cut_contexts": 0.0}


def test_last_words_stood_in_the_passage() -> None:
    long = "The old bridge crossed the river near the mill. " * 6
    text = f"{long}Nobody knew why they came. All of them went over the bridge. It was a mystery."
    ((context, word),) = lastword.passages(text)
    assert word == "bridge" and context.endswith("went over the")
    assert 50 <= len(context.split()) < 75
    assert list(lastword.passages("Too short. Too short.")) == []
    assert list(lastword.passages("")) == []


def test_built_in_baselines(tiny, corpus: Path) -> None:
    bench = bench_of(tiny, corpus=corpus, questions=20)
    examples = TASKS["cloze"].examples(bench)
    assert len(examples) == 20
    assert sum(e.facts["kind"] == "names" for e in examples) == 10
    found = TASKS["cloze"].baselines(examples, bench)
    assert found["uniform"] == {"accuracy": 0.1}
    assert set(found) > {"most frequent in the passage", "seen last", "trigram of the corpus"}
    examples = TASKS["lastword"].examples(bench)
    found = TASKS["lastword"].baselines(examples, bench)
    assert all(0 <= shares["accuracy"] <= 1 for shares in found.values()) and len(found) == 3


def test_heldout_by_hand(tiny, corpus: Path) -> None:
    bench = bench_of(tiny, corpus=corpus, documents=2, window=64)
    examples = TASKS["heldout"].examples(bench)
    assert [e.facts["split"] for e in examples] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    records = records_of(tiny, bench, "heldout", examples)
    texts = dict(Sources(None, corpus).documents("test"))
    scorer = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size)
    nats = tokens = size = 0
    for record in records[4:]:
        text = texts[record["document"]][: heldout.CHARACTERS]
        ids = tiny.tokenizer.encode(text)
        nats -= scorer.rolling(ids, window=64, prefix=tiny.tokenizer.eot).sum()
        tokens, size = tokens + len(ids), size + len(text)
    metrics, intervals = TASKS["heldout"].summary(records, bench)
    assert metrics["test_perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert metrics["test_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)
    assert len(intervals) == 6 and len(metrics) == 7


def test_a_sample_of_documents_is_stable(corpus: Path) -> None:
    sources = Sources(None, corpus)
    five = sources.sample("train", 5, seed=0)
    assert five == sources.sample("train", 9, seed=0)[:5] != sources.sample("train", 5, seed=1)
    assert set(five) <= set(sources.documents("train"))
    assert len(sources.sample("train", 99, seed=0)) == 12


# Data that is not what it should be


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path)
def test_real_files_are_known_by_their_hash(data_dir: Path, file: DataFile) -> None:
    assert len(file.read(data_dir)) == file.size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing"),
        (b"", "0 bytes"),
        (b"x" * 60_523, "60,523 bytes and is not"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / wsc273.FILE.path
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        wsc273.FILE.read(tmp_path)
    assert str(path) in caught.value.message and caught.value.remedy


def test_a_corpus_without_questions_is_named(tiny, tmp_path: Path, make_corpus) -> None:
    bench = bench_of(tiny, corpus=make_corpus(tmp_path / "empty", documents=0))
    for name in ("cloze", "lastword", "heldout"):
        with pytest.raises(DataError, match="empty"):
            TASKS[name].examples(bench)


# The paper's numbers


def test_paper_rows() -> None:
    assert paper_rows("lambada")["117M"] == {"perplexity": 35.13, "filtered_accuracy": 0.4599}
    assert paper_rows("lambada")["1542M"]["accuracy"] == 0.5266
    assert paper_rows("wikitext2")["762M"] == {"perplexity": 19.93}
    assert paper_rows("ptb")["prior SOTA"] == {"perplexity": 46.54}
    assert paper_rows("wsc273") == {"1542M": {"partial_accuracy": 0.707}}
    assert paper_rows("cloze") == {}
    known = {(r["task"], size) for r in published()["reproductions"] for size in r["values"]}
    assert ("lambada", "1558M") in known and ("wikitext2", "124M") in known


def test_requests_are_what_they_say(tiny) -> None:
    example = lambada.question(bench_of(tiny), "a b", "c", document="d")
    assert example.requests == [
        Request(context=tiny.tokenizer.encode("a b"), continuation=tiny.tokenizer.encode(" c"))
    ]
