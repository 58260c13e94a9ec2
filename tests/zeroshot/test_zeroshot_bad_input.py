"""What no task may swallow: unpublished files, another vocabulary, no task; and long texts."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gptwo.errors import DataError, ModelError, UsageError
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.run import TASKS, evaluate
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import (
    cbt,
    cnn_dailymail,
    coqa,
    enwik8,
    hellaswag,
    lambada,
    nq,
    one_billion_words,
    ptb,
    text8,
    wikitext2,
    wsc273,
)
from gptwo.zeroshot.translation import ENGLISH, FRENCH

FILES = {
    "lambada": lambada.FILE,
    "cbt-cn": cbt.archived("CN"),
    "cbt-ne": cbt.archived("NE"),
    "wikitext2": wikitext2.FILE,
    "wikitext103": wikitext2.FILE,
    "ptb": ptb.FILE,
    "enwik8": enwik8.FILE,
    "text8": text8.FILE,
    "1bw": one_billion_words.FILE,
    "wsc273": wsc273.FILE,
    "coqa": coqa.FILE,
    "cnn-dailymail": cnn_dailymail.FILE,
    "wmt14-en-fr": ENGLISH,
    "wmt14-fr-en": FRENCH,
    "nq": nq.FILE,
    "hellaswag": hellaswag.FILE,
}
FROM_A_CORPUS = ("cloze", "lastword", "heldout", "translate", "summarise", "answer")
HERE = [
    name
    for name in FILES
    if name not in ("cbt-cn", "cbt-ne", "enwik8", "text8", "1bw", "wikitext103")
]


def bench_of(tiny, data: Path | None, corpus: Path | None = None, **settings) -> Bench:
    return Bench(
        sources=Sources(data, corpus),
        tokenizer=tiny.tokenizer,
        n_ctx=settings.pop("n_ctx", tiny.model.config.n_ctx),
        config=EvalConfig(**settings),
    )


def test_every_task_is_here() -> None:
    assert set(TASKS) == {*FILES, *FROM_A_CORPUS}


def put(folder: Path, file: DataFile, content: bytes) -> Path:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_the_published_one_is_refused(name: str, tiny, tmp_path: Path) -> None:
    file, task = FILES[name], TASKS[name]
    with pytest.raises(DataError, match="no data folder") as caught:
        task.data(bench_of(tiny, None))
    assert "--data" in caught.value.remedy
    with pytest.raises(DataError, match="is missing"):
        task.data(bench_of(tiny, tmp_path))
    for content in (b"", b"<html>not found", b'{"text": "made up"}\n' * 3):
        path = put(tmp_path, file, content)
        with pytest.raises(DataError, match="is not the published file") as caught:
            task.data(bench_of(tiny, tmp_path))
        assert str(path) in caught.value.message and f"{file.size:,}" in caught.value.message
        assert caught.value.remedy
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="is missing"):
        task.data(bench_of(tiny, tmp_path))


@pytest.mark.parametrize("name", HERE)
def test_real_files_cut_renamed_doubled_or_changed_in_one_byte(
    name: str, tiny, data_dir: Path, tmp_path: Path
) -> None:
    file = FILES[name]
    whole = (data_dir / file.path).read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    other = FILES["ptb" if name != "ptb" else "nq"]
    for content in (
        whole[:-1],
        whole + whole,
        whole[:middle] + flipped + whole[middle + 1 :],
        (data_dir / other.path).read_bytes(),
        whole.replace(b"\n", b"\r\n"),
    ):
        put(tmp_path, file, content)
        if name.startswith("wmt14"):
            other_side = FRENCH if file is ENGLISH else ENGLISH
            shutil.copy(data_dir / other_side.path, tmp_path / other_side.path)
        if content != whole:
            with pytest.raises(DataError, match="is not the published file"):
                TASKS[name].data(bench_of(tiny, tmp_path))


@pytest.mark.parametrize("name", HERE)
def test_contexts_longer_than_the_window(name: str, tiny, data_dir: Path, tiny_model) -> None:
    """A model that reads 160 tokens answers all; what was cut is told."""
    model = tiny_model(vocab_size=tiny.tokenizer.vocab_size, n_ctx=160)
    bench = bench_of(tiny, data_dir, n_ctx=160, limit=1, resamples=5)
    task = TASKS[name]
    scorer = Scorer(model, vocab_size=tiny.tokenizer.vocab_size, barred=task.barred(bench))
    records = solve(task.examples(bench)[:4], task, bench, model, scorer)
    assert records
    if name in ("lambada", "coqa", "cnn-dailymail", "nq", "wmt14-en-fr", "wmt14-fr-en"):
        assert any(record.get("cut", 1) > 0 for record in records)


@pytest.mark.parametrize("name", [*HERE, *FROM_A_CORPUS])
def test_a_model_with_another_vocabulary(name: str, tiny, tiny_model, tmp_path: Path) -> None:
    small = replace(tiny, model=tiny_model(vocab_size=tiny.tokenizer.vocab_size - 1))
    with pytest.raises(ModelError, match=r"the tokenizer has 261 tokens, the model 260") as caught:
        evaluate(small, [name], out=tmp_path / "scores")
    assert "trained with" in caught.value.remedy and not (tmp_path / "scores").exists()


def test_no_tasks_at_all(tiny, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task is named") as caught:
        evaluate(tiny, [], out=tmp_path / "scores")
    assert "lambada" in caught.value.remedy and not (tmp_path / "scores").exists()


def test_a_repeated_task_is_run_once_and_an_unknown_one_is_named(tiny, tmp_path, corpus) -> None:
    config = EvalConfig(documents=1, resamples=5)
    out = tmp_path / "scores"
    found = evaluate(tiny, ["heldout", "heldout"], out=out, corpus=corpus, config=config)
    assert list(found) == ["heldout"]
    with pytest.raises(UsageError, match="nearest is 'translate'"):
        evaluate(tiny, ["translat"], out=out)


@pytest.mark.parametrize("name", FROM_A_CORPUS)
def test_no_corpus(name: str, tiny) -> None:
    with pytest.raises(DataError, match="made from a corpus and none is named"):
        TASKS[name].data(bench_of(tiny, None))


def test_lines_end_at_line_feeds_alone_and_limits_hold(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\x85c"}, {"text": "d"}]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    file = DataFile(path="f", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    put(tmp_path, file, content)
    sources = Sources(tmp_path, None)
    assert sources.rows(file) == rows and sources.rows(file, 1) == rows[:1]
    (tmp_path / "f").unlink()
    assert sources.read(file) == content  # proven once, remembered


def test_contents_are_forgotten_when_they_are_many(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gptwo.zeroshot.sources.HELD_BYTES", 10)
    files = []
    for number in range(3):
        content = bytes([65 + number]) * 6
        file = DataFile(path=f"{number}", size=6, sha256=hashlib.sha256(content).hexdigest())
        put(tmp_path, file, content)
        files.append(file)
    sources = Sources(tmp_path, None)
    for file in files:
        sources.read(file)
    for file in files:
        (tmp_path / file.path).unlink()
    assert sources.read(files[2]) == b"C" * 6
    with pytest.raises(DataError, match="missing"):
        sources.read(files[0])
