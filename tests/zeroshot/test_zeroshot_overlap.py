"""gptwo overlap: test sets against a corpus, scores apart by overlap, texts of a model."""

import hashlib
import io
import json
import shutil
import tarfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwo.artifacts import stage
from gptwo.config import with_settings
from gptwo.corpus.overlap import members
from gptwo.errors import DataError, Interrupted, UsageError
from gptwo.overlap import Against, OverlapConfig, measure_overlap, parts_of, read_overlap
from gptwo.progress import Reporter
from gptwo.records import TaskResult
from gptwo.zeroshot import continuations as continuations_module
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.log import SampleLog
from gptwo.zeroshot.overlap import bench, scores_apart, share_interval
from gptwo.zeroshot.run import TASKS, evaluate
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench

KNOWN = "the quick brown fox jumps over the lazy dog by the river"  # 5 8-grams
PASSAGES = [  # of 5, 5, 5 and 0 8-grams, of which 5, 1, 0 and 0 are known
    KNOWN,
    "The quick, brown fox jumps over the lazy cat and runs away",
    "nothing of this passage has ever been in any corpus of ours",
    "too short",
]
CONFIG = OverlapConfig(documents=3)


def prose(number: int) -> str:
    return " ".join(f"In year {i * 7 + number} the ship {i} came home." for i in range(40))


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished corpus: the training split holds `KNOWN`, the test split half of its own text."""
    monkeypatch.setattr(members, "RANDOM_STRINGS", 10_000)  # 10^6: see test_overlap.py
    folder = tmp_path / "books"
    splits = {
        "train": [KNOWN.upper(), *(prose(n) for n in range(6))],
        "valid": [prose(90)],
        "test": [prose(n) for n in range(3, 9)],
    }
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for split, texts in splits.items():
            (folder / split).mkdir()
            ids = [hashlib.sha256(f"{split}{text}".encode()).hexdigest()[:32] for text in texts]
            for number in range(0, len(texts), 4):
                rows = slice(number, number + 4)
                table = pa.table({"id": ids[rows], "text": texts[rows]})
                pq.write_table(table, folder / split / f"part-{number:05}.parquet")
        made.commit(counts={"documents": {name: len(each) for name, each in splits.items()}})
    return folder


def publish(
    patch: pytest.MonkeyPatch, folder: Path, task: str, path: str, content: bytes, member: str = ""
) -> None:
    """Write a task's file, and let the task know it by its hash."""
    sha256 = hashlib.sha256(content).hexdigest()
    file = DataFile(path=path, size=len(content), sha256=sha256, member=member)
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_bytes(content)

    def data(bench: Bench) -> dict[str, Any]:
        file.read(bench.sources.data)
        return file.describe()

    patch.setitem(TASKS, task, replace(TASKS[task], data=data))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a LAMBADA of four passages, known by its hash; NQ is not there."""
    folder = tmp_path / "data"
    content = "".join(json.dumps({"text": text}) + "\n" for text in PASSAGES).encode()
    publish(monkeypatch, folder, "lambada", "eval/lambada/lambada_test.jsonl", content)
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    """Everything in a folder but the manifest's own hash."""
    files = {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}
    files.pop("manifest.json")
    return files


def test_the_table_is_what_can_be_counted_by_hand(books: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    against = Against(tasks=["lambada"], data=data)
    measure_overlap(books, out, CONFIG, against)
    found = read_overlap(out)
    (row,) = found["table"]
    assert (row["task"], row["files"]) == ("lambada", ["lambada_test.jsonl"])
    assert (row["examples"], row["too_short"], row["examples_hit"]) == (4, 1, 2)
    assert (row["ngrams"], row["found"], row["share"]) == (15, 6, 0.4)
    assert row["interval"]["low"] <= row["share"] <= row["interval"]["high"]
    assert row["own_train"] is None and row["paper"] is None
    assert found["corpus"]["documents"] == 7 and found["curve"] is None
    assert found["filter"]["false_positive_rate"] <= 1e-8
    assert found["filter"]["random_strings"] == 10_000
    assert found["filter"]["random_strings_found"] == 0
    examples = pq.read_table(out / "examples.parquet").to_pylist()
    assert [row["example"] for row in examples] == [1, 2, 3, 4]
    assert [row["ngrams"] for row in examples] == [5, 5, 5, 0]
    assert [row["found"] for row in examples] == [5, 1, 0, 0]
    assert found["mean_overlap"]["lambada"] == pytest.approx((1 + 1 / 5) / 4)


def test_nothing_found_is_not_nothing_there() -> None:
    nothing = share_interval([0] * 50, [9] * 50, seed=0)
    assert nothing.low == 0 and 0.05 < nothing.high < 0.08  # 3 / 50, about
    one = share_interval([9, 0, 0, 0], [9, 9, 9, 0], seed=0)
    assert one.low == 0 and one.high == 1


def test_any_number_of_workers_gives_the_same_bytes(
    books: Path, data: Path, tmp_path: Path
) -> None:
    for workers in (1, 2, 5):
        against = Against(tasks=["lambada"], data=data)
        measure_overlap(books, tmp_path / str(workers), CONFIG, against, workers=workers)
    assert result_of(tmp_path / "1") == result_of(tmp_path / "2") == result_of(tmp_path / "5")


def test_what_is_missing_or_another_file_is_left_out_and_told(
    books: Path, data: Path, tmp_path: Path
) -> None:
    (data / "eval/ptb").mkdir()
    (data / "eval/ptb/ptb.test.txt").write_text("not the published one\n")
    out = tmp_path / "out"
    measure_overlap(books, out, CONFIG, Against(data=data))
    found = read_overlap(out)
    assert [row["task"] for row in found["table"]] == ["lambada"]
    assert "is missing" in found["left_out"]["nq"]
    assert "not the published file" in found["left_out"]["ptb"]
    assert "heldout" not in found["left_out"]  # made from a corpus


def test_a_set_asked_for_by_name_is_an_error_after_the_others(
    books: Path, data: Path, tmp_path: Path
) -> None:
    out, against = tmp_path / "out", Against(tasks=["nq", "lambada"], data=data)
    for _ in range(2):  # and again when the folder is finished
        with pytest.raises(DataError, match=r"nq: .* is missing \(finished: lambada\)"):
            measure_overlap(books, out, CONFIG, against)
    assert [row["task"] for row in read_overlap(out)["table"]] == ["lambada"]
    with pytest.raises(DataError, match="data folder"):
        measure_overlap(books, tmp_path / "none", CONFIG, Against(tasks=["lambada"]))
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="nearest is 'lambada'"):
        measure_overlap(books, tmp_path / "none", CONFIG, Against(tasks=["lambda"], data=data))


def test_a_corpus_that_is_missing_or_empty_is_refused(
    books: Path, data: Path, tmp_path: Path
) -> None:
    against = Against(tasks=["lambada"], data=data)
    with pytest.raises(DataError, match="does not exist"):
        measure_overlap(tmp_path / "nowhere", tmp_path / "out", CONFIG, against)
    empty = tmp_path / "empty"
    shutil.copytree(books, empty)
    for path in (empty / "train").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="is missing"):
        measure_overlap(empty, tmp_path / "out", CONFIG, against)
    with stage(tmp_path / "bare", kind="corpus", config={}, inputs={}) as made:
        (tmp_path / "bare/train").mkdir()
        table = pa.table({"id": ["a"], "text": ["few words"]})
        pq.write_table(table, tmp_path / "bare/train/part-00000.parquet")
        made.commit(counts={"documents": {"train": 1}})
    with pytest.raises(DataError, match="no text of 8 words"):
        measure_overlap(tmp_path / "bare", tmp_path / "out", CONFIG, against)
    assert not (tmp_path / "out/overlap.json").exists()


def test_a_set_inside_an_archive_is_unpacked(
    books: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (KNOWN + "\n").encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        about = tarfile.TarInfo("all/test/one.txt")
        about.size = len(content)
        archive.addfile(about, io.BytesIO(content))
    publish(monkeypatch, data, "1bw", "eval/1bw/all.tgz", packed.getvalue(), "all/test/one.txt")
    measure_overlap(books, tmp_path / "out", CONFIG, Against(tasks=["1bw"], data=data))
    (row,) = read_overlap(tmp_path / "out")["table"]
    assert (row["files"], row["ngrams"], row["share"]) == (["one.txt"], 5, 1.0)
    assert row["paper"] == {"own_train": 0.1319, "webtext": 0.0375}
    assert not list((tmp_path / "out").rglob("one.txt"))


def test_other_settings_or_data_are_refused(books: Path, data: Path, tmp_path: Path) -> None:
    against = Against(tasks=["lambada"], data=data)
    measure_overlap(books, tmp_path / "out", CONFIG, against)
    with pytest.raises(UsageError, match="documents: 3 -> 4"):
        measure_overlap(books, tmp_path / "out", OverlapConfig(documents=4), against)


# ---- scores ----

ABOUT = {"file": "coqa.json", "bytes": 1, "sha256": "1" * 64}


def coqa_scores(folder: Path, records: list[dict[str, Any]], **changes: Any) -> Path:
    """A result of CoQA with these records in its log."""
    folder.mkdir()
    log = SampleLog(folder / "coqa.samples.jsonl.zst", {"task": "coqa"})
    log.append(records[:2])
    log.append(records[2:])
    result = TaskResult(
        task="coqa",
        metrics={},
        intervals={},
        n=len(records),
        protocol={"version": 1},
        data={**ABOUT},
        model={},
    )
    (folder / "coqa.json").write_text(json.dumps({**asdict(result), **changes}))
    return folder


def conversation(*f1: float) -> dict[str, Any]:
    return {"domain": "news", "f1": list(f1), "own_history_f1": list(f1)}


RECORDS = [conversation(1.0, 0.5), conversation(0.0), conversation(0.25, 0.25), conversation(0.6)]


def test_scores_apart_are_the_tasks_own_sums_over_each_part(tmp_path: Path) -> None:
    scores = coqa_scores(tmp_path / "scores", RECORDS)
    rows = scores_apart(scores, "coqa", {1: 0.5, 2: 0.0, 3: 0.1}, ABOUT)  # 4 is too short
    assert [(row["part"], row["n"]) for row in rows] == [
        ("all", 4),
        ("without overlap", 2),
        ("with overlap", 2),
        ("over 15%", 1),
    ]
    expected = [2.6 / 6, 0.6 / 2, 2.0 / 4, 1.5 / 2]
    assert [row["metrics"]["f1"] for row in rows] == pytest.approx(expected)
    for row in rows:
        between = row["intervals"]["f1"]
        assert between["low"] <= row["metrics"]["f1"] + 1e-12 >= 0 and between["high"] <= 1


def test_all_of_it_is_what_the_evaluation_says(tiny: Any, data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    done = evaluate(tiny, ["wsc273"], out=out, data=data_dir, config=EvalConfig(limit=12))
    about = TASKS["wsc273"].data(bench(data_dir))
    rows = scores_apart(out, "wsc273", {2: 0.5}, about)
    assert rows[0]["metrics"] == done["wsc273"].metrics and rows[1]["n"] == 11
    assert rows[0]["intervals"] == {k: asdict(v) for k, v in done["wsc273"].intervals.items()}


def test_results_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        scores_apart(tmp_path, "coqa", {}, ABOUT)
    short = coqa_scores(tmp_path / "short", RECORDS, n=5)
    with pytest.raises(DataError, match="has 4 samples, the result is of 5"):
        scores_apart(short, "coqa", {}, ABOUT)
    other = coqa_scores(tmp_path / "other", RECORDS, data={**ABOUT, "sha256": "2" * 64})
    with pytest.raises(DataError, match="other data"):
        scores_apart(other, "coqa", {}, ABOUT)
    older = coqa_scores(tmp_path / "older", RECORDS, protocol={"version": 0})
    with pytest.raises(DataError, match="version 0 of the protocol, not 1"):
        scores_apart(older, "coqa", {}, ABOUT)
    harness = coqa_scores(
        tmp_path / "harness", RECORDS, protocol={"version": 1, "mode": "harness: as it is"}
    )
    with pytest.raises(DataError, match="harness"):
        scores_apart(harness, "coqa", {}, ABOUT)
    assert scores_apart(short, "ptb", {}, ABOUT) == []  # a running text


def test_scores_beside_the_table(
    books: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one task, whose records hold what its summary asks for."""
    story = {"story": KNOWN, "questions": [{"input_text": "who jumps"}], "id": "1"}
    other = {**story, "story": PASSAGES[2]}
    content = json.dumps({"data": [story, other]}).encode()
    publish(monkeypatch, data, "coqa", "eval/coqa/c.json", content)
    about = TASKS["coqa"].data(bench(data))
    scores = coqa_scores(tmp_path / "scores", RECORDS[:2], data=about)
    against = Against(tasks=["coqa", "lambada"], data=data, scores=scores)
    measure_overlap(books, tmp_path / "out", CONFIG, against)
    found = read_overlap(tmp_path / "out")["scores"]
    f1 = {row["part"]: row["metrics"]["f1"] for row in found["rows"]}
    assert f1 == {
        "all": 0.5,
        "without overlap": 0.0,
        "with overlap": 0.75,
        "over 15%": 0.75,
    }
    assert "coqa" in found["paper"]


def test_missing_scores_and_a_damaged_own_split(
    books: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, against = tmp_path / "out", Against(tasks=["ptb"], data=data)
    with pytest.raises(DataError, match="scores does not exist"):
        measure_overlap(books, out, CONFIG, replace(against, scores=tmp_path / "scores"))
    publish(monkeypatch, data, "ptb", "eval/ptb/ptb.test.txt", KNOWN.encode())
    (data / "eval/ptb/ptb.train.txt").write_bytes(b"\0\1\2")
    measure_overlap(books, out, CONFIG, against)
    assert read_overlap(out)["table"][0]["own_train"] is None
    (data / "eval/ptb/ptb.train.txt").write_text("the " + KNOWN[:-10] + "\n")
    measure_overlap(books, tmp_path / "other", CONFIG, against)
    (row,) = read_overlap(tmp_path / "other")["table"]
    assert (row["share"], row["own_train"]["share"]) == (1.0, 0.6)  # "the river" is cut


# ---- the curve ----


def test_continuations_are_beside_what_documents_say(
    tiny: Any, books: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    measure_overlap(books, out, CONFIG, Against(tasks=[], model=tiny))
    curve = read_overlap(out)["curve"]
    assert (curve["prompt_tokens"], curve["continuation_tokens"], curve["top_k"]) == (384, 128, 40)
    lines = [json.loads(line) for line in (out / "continuations.jsonl").read_text().splitlines()]
    tests = pq.read_table(books / "test/part-00000.parquet")["text"].to_pylist()
    tests += pq.read_table(books / "test/part-00004.parquet")["text"].to_pylist()
    trains = [prose(n) for n in range(6)]
    for line in lines:
        assert any(text.startswith(line["prompt"] + line["true"]) for text in tests)
        whole = any(text.startswith(line["prompt"]) for text in trains)
        assert (line["true_share"] == 1.0) == whole  # three test documents are in training too
    assert curve["true"] == sorted(line["true_share"] for line in lines)
    assert len(curve["generated"]) <= 3 and curve["generated"] == sorted(curve["generated"])
    assert curve["medians"]["true"] == np.median(curve["true"])


def test_stopped_and_started_again_it_ends_in_the_same_bytes(
    tiny: Any, books: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuations_module, "BLOCK", 1)
    against = Against(tasks=["lambada"], data=data, model=tiny)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    measure_overlap(books, whole, CONFIG, against)
    written = 0
    complete = continuations_module.complete

    def counted(*given: Any) -> Any:
        nonlocal written
        written += 1
        return complete(*given)

    monkeypatch.setattr(continuations_module, "complete", counted)

    class Stops(Reporter):
        looks = 0

        def check(self) -> None:
            self.looks -= 1
            self.stop_requested = self.looks < 0
            super().check()

    stops = 0
    for looks in range(1, 2000, 150):
        reporter = Stops(quiet=True)
        reporter.looks = looks
        try:
            measure_overlap(books, parts, CONFIG, against, reporter=reporter)
            break
        except Interrupted:
            stops += 1
            assert not (parts / "manifest.json").exists()
    assert stops >= 2 and written < 3 * (stops + 1)  # finished blocks were not written again
    assert result_of(parts) == result_of(whole)


def test_documents_too_short_for_the_model_are_named(
    tiny: Any, books: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short"
    with stage(short, kind="corpus", config={}, inputs={}) as made:
        for split, text in (("train", prose(1)), ("test", "a short one")):
            (short / split).mkdir()
            table = pa.table({"id": ["a"], "text": [text]})
            pq.write_table(table, short / split / "part-00000.parquet")
        made.commit(counts={"documents": {"train": 1, "test": 1}})
    with pytest.raises(DataError, match=r"no document of .* has 512 tokens"):
        measure_overlap(short, tmp_path / "out", CONFIG, Against(tasks=[], model=tiny))


def test_half_words_at_a_cut_do_not_count() -> None:
    assert continuations_module.whole_words("ear 7 the sh") == " 7 the "
    assert continuations_module.whole_words(" the ship. ") == " the ship. "
    assert continuations_module.whole_words("oneword") == ""


# ---- the command's defaults ----


def test_a_run_gives_what_is_not_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("corpus", "scores", "checkpoints"):
        (run / name).mkdir(parents=True)
    found = parts_of(run, out=None, scores=None, model=None)
    assert (found.corpus, found.out) == (run / "corpus", run / "overlap")
    assert (found.scores, found.model) == (run / "scores", run)
    other = parts_of(run, out=tmp_path / "o", scores=tmp_path / "s", model=tmp_path / "m")
    assert (other.out, other.scores, other.model) == (
        tmp_path / "o",
        tmp_path / "s",
        tmp_path / "m",
    )
    with pytest.raises(UsageError, match="--out"):
        parts_of(tmp_path / "corpus", out=None, scores=None, model=None)
    bare = parts_of(tmp_path / "corpus", out=tmp_path / "o", scores=None, model=None)
    assert (bare.scores, bare.model) == (None, None)


@pytest.mark.parametrize("setting", ["documents=0", "seed=-1"])
def test_settings_out_of_range(setting: str) -> None:
    with pytest.raises(UsageError, match=setting.split("=")[0]):
        with_settings(OverlapConfig(), [setting])
