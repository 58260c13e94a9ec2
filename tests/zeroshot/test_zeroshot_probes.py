"""Demonstrations in texts: what is found, what is asked, by hand; and what a corpus lacks."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from gptwo.artifacts import stage
from gptwo.errors import DataError
from gptwo.zeroshot import probes
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.demonstrations import headlines, replies, translations
from gptwo.zeroshot.probes import OPTIONS, Demonstration
from gptwo.zeroshot.run import TASKS, evaluate
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import Document, Sources
from gptwo.zeroshot.task import Bench

LONG = "The council met on Monday and spoke of the new bridge over the river for hours. " * 12


def bench_of(tiny, corpus: Path, **settings) -> Bench:
    return Bench(
        sources=Sources(None, corpus),
        tokenizer=tiny.tokenizer,
        n_ctx=tiny.model.config.n_ctx,
        config=EvalConfig(**settings),
    )


def places(find, text: str, title: str = "") -> list[tuple[str, str]]:
    found = list(find(Document(id="d", text=text, title=title)))
    assert all(isinstance(place, Demonstration) for place in found)
    return [(place.frame, place.answer) for place in found]


# Finding


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('This is the radical 讠, "luan," which means "chaos".', [(' which means "', "chaos")]),
        ("He cried _Ngai_ (of the Divinity) and ran.", [(" (", "of the Divinity")]),
        ("They call it _kaf_, that is, a mantle.", [(", that is,", " a mantle")]),
        ("_Herz, mein Herz_, meaning 'my heart', he sang", [(", meaning '", "my heart")]),
        ("_sotto voce_ (i.e. in a low voice)", [(" (i.e.", " in a low voice")]),
        ("the _ship_ was old, and that is all", []),
        ("a book, _War and Peace_ (of Tolstoy)", []),  # words of English grammar
        ("_Antigone_ (which I saw with my mother in the theatre of the old town)", []),
        ('the party "Volksfront" (VF)', []),
        ('"Requiem eternam" (so named by him)', []),
        ("", []),
    ],
)
def test_translations(text: str, found: list) -> None:
    assert places(translations, text) == found


def test_headlines() -> None:
    story = LONG.strip()
    titled = list(headlines(Document(id="d", text=story, title="New bridge over the river")))
    assert [place.answer for place in titled] == [" New bridge over the river"]
    assert titled[0].frame == "\nTL;DR:" and titled[0].before == story
    first = f"# New bridge over the river\n\n{story}"
    assert places(headlines, first) == [("\nTL;DR:", " New bridge over the river")]
    assert places(headlines, f"This line is a sentence.\n\n{story}") == []
    assert places(headlines, "New bridge over the river\n\nToo short.") == []
    assert places(headlines, story, title="Bridge") == [] == places(headlines, "")
    (cut,) = headlines(Document(id="d", text=LONG * 9, title="New bridge over the river"))
    assert len(cut.before) <= 1500 and cut.before.endswith("for hours.")


def test_replies() -> None:
    talk = 'He came in.\n\n"Where have you been all day?"\n\n"On the river, fishing," said he.'
    assert places(replies, talk) == [('\n\n"', "On the river, fishing,")]
    assert places(replies, talk.replace('day?"', 'day?" he cried.')) == []
    assert places(replies, talk.replace("fishing,", "why do you ask?")) == []
    assert places(replies, "Q: Where is the old bridge?\nA: It is near the mill.\n") == [
        ("\nA:", " It is near the mill.")
    ]
    assert places(replies, "") == []


# Asking


def corpus_of(folder: Path, texts: list[str], titles: list[str] | None = None) -> Path:
    """A corpus whose test split holds `texts`."""
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for split in ("train", "valid", "test"):
            chosen = texts if split == "test" else [LONG]
            ids = [f"{i:032x}" for i in range(len(chosen))]
            meta = [json.dumps({"title": t}) for t in (titles or [""] * len(texts))]
            columns = {"id": ids, "text": chosen}
            if split == "test":
                columns["meta"] = meta
            (folder / split).mkdir()
            pq.write_table(pa.table(columns), folder / split / "part-00000.parquet")
        made.commit(counts={})
    return folder


def talks(number: int) -> list[str]:
    return [
        f'It was day {i}.\n\n"Where did you go on day {i}?"\n\n"To the market {i}," he said.\n'
        for i in range(number)
    ]


def test_a_question_by_hand(tiny, tmp_path: Path) -> None:
    bench = bench_of(tiny, corpus_of(tmp_path / "c", talks(24)), questions=5, resamples=20)
    task = TASKS["answer"]
    examples = task.examples(bench)
    assert len(examples) == 5
    records = solve(examples, task, bench, tiny.model, Scorer(tiny.model))
    example, record = examples[0], records[0]
    day = record["question"].removesuffix('?"').rpartition(" ")[2]
    assert record["options"][record["answer"]] == f"To the market {day},"
    assert len(set(record["options"])) == OPTIONS
    encode, eot = tiny.tokenizer.encode, tiny.tokenizer.eot
    before, frame = encode(example.facts["before"]), encode('\n\n"')

    def logprob(context: list[int], text: str) -> float:
        ids = encode(text)
        with torch.no_grad():
            logits = tiny.model(torch.tensor([[*context, *ids]]))[0].log_softmax(-1)
        return sum(logits[len(context) - 1 + i, token].item() for i, token in enumerate(ids))

    given = [logprob([*before, *frame], option) for option in record["options"]]
    alone = [logprob([eot, *frame], option) for option in record["options"]]
    assert record["logprobs"] == pytest.approx(given, abs=2e-3)
    assert record["alone"] == pytest.approx(alone, abs=2e-3)
    gains = [a - b for a, b in zip(given, alone, strict=True)]
    assert record["gain"] == pytest.approx(gains[record["answer"]], abs=4e-3)
    assert record["accuracy"] == (max(range(10), key=gains.__getitem__) == record["answer"])
    metrics, intervals = task.summary(records, bench)
    assert metrics["accuracy"] == sum(r["accuracy"] for r in records) / 5
    assert metrics["gain_nats_per_token"] == pytest.approx(
        sum(r["gain"] for r in records) / sum(r["tokens"] for r in records)
    )
    assert set(intervals) == {"accuracy", "accuracy_per_token", "gain_nats_per_token"}
    found = task.baselines(examples, bench)
    assert found["uniform"]["accuracy"] == 0.1
    assert set(found) == {"uniform", "most words in common", "trigram of the corpus"}


def test_stories_lose_their_end_and_talk_its_start(tiny, tmp_path: Path) -> None:
    titles = [f"The story of bridge number {i}" for i in range(20)]
    stories = [f"Bridge {i} is here. {LONG}" for i in range(20)]
    bench = bench_of(tiny, corpus_of(tmp_path / "c", stories, titles), questions=2)
    for example in TASKS["summarise"].examples(bench):
        shown = tiny.tokenizer.decode(example.requests[0].context)
        assert shown.startswith("Bridge ") and shown.endswith("\nTL;DR:")
        assert example.facts["cut"] > 0
        longest = max(len(r.context) + len(r.continuation) for r in example.requests)
        assert longest <= tiny.model.config.n_ctx


def test_the_same_questions_every_time_and_no_document_rules(tiny, tmp_path: Path) -> None:
    many = "".join(talks(60))
    bench = bench_of(tiny, corpus_of(tmp_path / "c", [many, *talks(24)]), questions=200)
    first, again = (TASKS["answer"].examples(bench) for _ in range(2))
    assert first == again
    names = [example.facts["document"].split(":")[0] for example in first]
    assert max(map(names.count, names)) <= probes.PER_DOCUMENT


def test_too_few_demonstrations_are_counted(tiny, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "c", talks(7))
    for name, count in (("answer", 7), ("translate", 0), ("summarise", 0)):
        with pytest.raises(DataError, match=f"has {count} of the 20 demonstrations needed"):
            evaluate(tiny, [name], out=tmp_path / name, corpus=corpus)
