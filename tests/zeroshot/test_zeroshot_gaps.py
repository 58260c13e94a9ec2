"""The Children's Book Test: its files, its prose, its choices; and questions made like it."""

import importlib.util
import io
import json
import math
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwo.errors import DataError
from gptwo.zeroshot import cbt_format
from gptwo.zeroshot.candidates import question
from gptwo.zeroshot.cbt_format import Question, read, write
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.detokenize import BOOKS, detokenize, restore
from gptwo.zeroshot.run import TASKS, evaluate, paper_rows
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import cbt

ROOT = Path(__file__).parents[2]
SAMPLES = "eval/format_samples/cbt"


def bench_of(tiny, data: Path | None = None, **settings) -> Bench:
    return Bench(
        sources=Sources(data, None),
        tokenizer=tiny.tokenizer,
        n_ctx=tiny.model.config.n_ctx,
        config=EvalConfig(**settings),
    )


def made(number: int = 0, **changed) -> Question:
    facts = {
        "sentences": tuple(f"Sentence {number} {i} ." for i in range(20)),
        "query": "`` The XXXXX , '' he said , `` is n't here . ''",
        "answer": "cat",
        "candidates": tuple(sorted(("cat", "dog", *(f"word{i}" for i in range(8))))),
    }
    return Question(**{**facts, **changed})


# Files


@given(
    st.lists(
        st.builds(
            lambda words: made(answer=words[0], candidates=tuple(words)),
            st.lists(
                st.sampled_from(["a", "|", "p9.jpg", "-LRB-", "x|y", "wishing-cap", "'s"]),
                min_size=1,
                max_size=6,
                unique=True,
            ).filter(lambda words: "x|y" not in words),
        )
    )
)
def test_files_are_read_as_written(questions: list[Question]) -> None:
    assert read(write(questions), "a file") == questions


def test_the_published_lines(data_dir: Path) -> None:
    found = {}
    for path in sorted((data_dir / SAMPLES).glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        found[path.name] = read(text, path.name)
        assert write(found[path.name]).rstrip("\n") == text.rstrip("\n")
    assert len(found) == 6 and all(len(questions) == 1 for questions in found.values())
    (asked,) = found["cbtest_CN_valid_2000ex.txt"]
    assert asked.answer == "dog" and asked.candidates[0] == "Cousin" and len(asked.candidates) == 10
    facts = asked.facts()
    assert facts["options"][facts["answer"]] == "dog"
    assert str(facts["context"]).endswith("very soon he and the")
    assert (facts["space"], facts["rest"]) == (" ", " were on the other side.")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("5 Sentence", "6 Sentence", 1), "question 1, line 5 begins"),
        (lambda text: text.replace("XXXXX", "cat"), "4 with XXXXX"),
        (lambda text: text.replace("\t\t", "\t"), "21 lines and 3 fields"),
        (lambda text: text.replace("\tcat\t", "\tcow\t"), "'cow' is none of its candidates"),
        (lambda text: text[: len(text) // 2], "lines and 1 fields"),
    ],
)
def test_a_damaged_file_is_named_with_its_place(damage, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(damage(write([made()])), "some file")
    assert caught.value.message.startswith("some file, question 1") and caught.value.remedy


# Prose


@pytest.mark.parametrize(
    ("tokens", "prose"),
    [
        ("`` Any soup , my dear ? '' shouted he .", '"Any soup, my dear?" shouted he.'),
        ("` I do n't know , ' said the bird 's son", "'I don't know,' said the bird's son"),
        ("said , ' I do not know . '", "said, 'I do not know.'"),
        ("the elephants ' backs ; it 's ...", "the elephants' backs; it's..."),
        ("-LRB- 3 -RRB- or -LCB- p9.jpg -RCB- !", "(3) or {p9.jpg}!"),
        ("We can not , -- 't is gon na be 5 % !", "We cannot, -- 'tis gonna be 5%!"),
        ("`` `` A '' said ` b '", '""A" said \'b\''),
    ],
)
def test_the_tokenisation_is_undone(tokens: str, prose: str) -> None:
    plain, edits = detokenize(tokens, BOOKS)
    assert plain == prose and restore(plain, edits) == tokens


@given(st.text(st.sampled_from(" `'\".,-LRBs\nan't$5%"), max_size=40))
def test_every_edit_can_be_undone(text: str) -> None:
    assert restore(*detokenize(text, BOOKS)) == text


def test_every_published_line_comes_back(data_dir: Path) -> None:
    for path in sorted((data_dir / SAMPLES).glob("*.txt")):
        for line in path.read_text(encoding="utf-8").split("\n"):
            assert restore(*detokenize(line, BOOKS)) == line


# Choices


def test_a_choice_by_hand(tiny) -> None:
    bench = bench_of(tiny)
    facts = {"id": 0, **made(sentences=("The hat .",) * 20).facts()}
    task = TASKS["cbt-cn"]
    (record,) = solve([question(bench, facts)], task, bench, tiny.model, Scorer(tiny.model))
    context = "The hat. " * 20 + '"The'
    for word, logprob in zip(record["options"], record["logprobs"], strict=True):
        first, rest = map(tiny.tokenizer.encode, (context, f' {word}," he said, "isn\'t here."'))
        with torch.no_grad():
            logits = tiny.model(torch.tensor([[*first, *rest]]))[0].log_softmax(-1)
        expected = sum(logits[len(first) - 1 + i, token].item() for i, token in enumerate(rest))
        assert logprob == pytest.approx(expected, abs=2e-3)
    best = max(range(10), key=record["logprobs"].__getitem__)
    assert record["chosen"] == best and record["right"] == (record["options"][best] == "cat")
    metrics, intervals = task.summary([record, {**record, "right": True}], bench)
    assert metrics["accuracy"] == (1 + record["right"]) / 2 and "accuracy" in intervals
    assert "context" not in record and record["cut"] == 0


def test_baselines_by_hand(tiny) -> None:
    sentences = ("The dog saw the cat .", "A cat .", *("Then rain .",) * 17, "The dog ran .")
    examples = [question(bench_of(tiny), made(sentences=sentences).facts())]
    found = TASKS["cbt-cn"].baselines(examples, bench_of(tiny))
    assert found == {
        "uniform": {"accuracy": 0.1},
        "most frequent in the passage": {"accuracy": 0.0},  # both twice, the dog was seen last
        "seen last": {"accuracy": 0.0},
    }


def test_a_gap_after_an_opening_quote_or_at_the_very_start(tiny) -> None:
    facts = made(query="`` XXXXX ! '' he said .").facts()
    assert str(facts["context"]).endswith('Sentence 0 19. "') and facts["space"] == ""
    example = question(bench_of(tiny), facts)
    assert tiny.tokenizer.decode(example.requests[0].continuation) == 'cat!" he said.'


# The archive, the file taken out of it, and what is neither


def archive(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """A small archive in the place of the published one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as files:
        for name in ("CBTest/README", cbt.archived("CN").member):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            files.addfile(info, io.BytesIO(content))
    path = folder / cbt.archived("CN").path
    path.parent.mkdir(parents=True)
    path.write_bytes(packed.getvalue())
    file = DataFile(
        path=str(path.relative_to(folder)),
        size=len(packed.getvalue()),
        sha256=sha256(packed.getvalue()).hexdigest(),
        member=cbt.archived("CN").member,
    )
    monkeypatch.setattr(cbt, "archived", lambda kind: file)


def test_the_archive_is_read_as_it_is(tiny, tmp_path: Path, monkeypatch) -> None:
    archive(tmp_path, monkeypatch, write([made(i) for i in range(3)]).encode())
    result = evaluate(
        tiny, ["cbt-cn"], out=tmp_path / "scores", data=tmp_path, config=EvalConfig(resamples=5)
    )["cbt-cn"]
    assert result.n == 3 and result.data["questions"] == 3 and len(str(result.data["sha256"])) == 64
    assert result.paper["1542M"] == {"accuracy": 0.933} == paper_rows("cbt-cn")["1542M"]
    path = tmp_path / cbt.archived("CN").path
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="is not the published file"):
        TASKS["cbt-cn"].data(bench_of(tiny, tmp_path))


def test_the_archive_has_the_hash_that_is_known() -> None:
    file = cbt.archived("NE")
    assert file.size == 120_547_669 and file.sha256.startswith("932df0ca")
    assert file.member == "CBTest/data/cbtest_NE_valid_2000ex.txt"


def loose(folder: Path, kind: str, text: str) -> Path:
    path = folder / "eval/cbt" / cbt.archived(kind).member
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_without_a_known_hash_is_taken_by_its_structure(tiny, tmp_path: Path) -> None:
    whole = [made(i) for i in range(2000)]
    path = loose(tmp_path, "NE", write(whole))
    bench = bench_of(tiny, tmp_path, limit=2)
    facts = TASKS["cbt-ne"].data(bench)
    assert facts["questions"] == 2000 and "no hash" in facts["proof"]
    assert facts["sha256"] == sha256(path.read_bytes()).hexdigest()
    assert len(TASKS["cbt-ne"].examples(bench)) == 2
    for wrong, message in (
        (whole[:-1], "1,999 questions, 1,999 of them different"),
        ([*whole[:-1], whole[0]], "2,000 questions, 1,999 of them different"),
        ([], "0 questions"),
    ):
        loose(tmp_path, "NE", write(wrong))
        with pytest.raises(DataError, match=message):
            TASKS["cbt-ne"].data(bench)
    path.write_bytes(b"1 caf\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        TASKS["cbt-ne"].data(bench)


def test_without_any_the_archive_is_asked_for(tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"CBTest\.tgz is missing"):
        TASKS["cbt-cn"].data(bench_of(tiny, tmp_path))


# Questions of one's own books in that format


def test_questions_made_from_prose_read_back_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from conftest import prose

    spec = importlib.util.spec_from_file_location("make_cbt", ROOT / "scripts/make_cbt.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    books = tmp_path / "books.jsonl"
    books.write_text("".join(json.dumps({"text": prose(i)}) + "\n" for i in range(8)))
    monkeypatch.setattr(
        sys, "argv", ["make_cbt", str(books), "--out", str(tmp_path), "--questions", "6"]
    )
    script.main()
    printed = json.loads(capsys.readouterr().out)
    assert printed["questions"] == {"CN": 6, "NE": 6}
    assert printed["sentences"] == printed["read_back_as_they_were"] == 12 * 20
    text = (tmp_path / "eval/cbt" / cbt.archived("CN").member).read_text()
    for asked in cbt_format.read(text, "made"):
        assert len(asked.candidates) == 10 and asked.query.count("XXXXX") == 1


def test_chance_counts_each_question_s_candidates(tiny) -> None:
    two = made(candidates=("cat", "dog")).facts()
    examples = [question(bench_of(tiny), facts) for facts in (two, made().facts())]
    found = TASKS["cbt-ne"].baselines(examples, bench_of(tiny))["uniform"]["accuracy"]
    assert math.isclose(found, (1 / 2 + 1 / 10) / 2)
