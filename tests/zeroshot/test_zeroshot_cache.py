"""What is kept of an evaluation is never taken for that of another model, protocol or data."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_zeroshot_run import QUICK, StopAfter, content

from gptwo.errors import DataError, Interrupted, UsageError
from gptwo.zeroshot import run
from gptwo.zeroshot.log import read_frames
from gptwo.zeroshot.run import evaluate
from gptwo.zeroshot.sources import DataFile


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BLOCK", 4)


def stopped(tiny: Any, corpus: Path, out: Path) -> Path:
    """An evaluation that ended after some of its blocks, without a result."""
    with pytest.raises(Interrupted):
        evaluate(tiny, ["cloze"], out=out, corpus=corpus, config=QUICK, reporter=StopAfter(3))
    path = out / "cloze.samples.jsonl.zst"
    assert len(read_frames(path)[0]) > 1 and not (out / "cloze.json").exists()
    return path


def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests each batch of questions asks, from now on."""
    asked: list[int] = []
    whole = run.Scorer.score
    monkeypatch.setattr(run.Scorer, "score", lambda self, r: asked.append(len(r)) or whole(self, r))
    return asked


@pytest.mark.parametrize("what", ["weights_sha256", "tokenizer_fingerprint", "dtype"])
def test_samples_of_another_model_are_not_gone_on_from(
    tiny: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    stopped(tiny, corpus, tmp_path / "s")
    tiny.description = {**tiny.description, what: "other"}
    asked = scored(monkeypatch)
    evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK)
    assert sum(asked) == 160  # all sixteen questions with ten options each
    evaluate(tiny, ["cloze"], out=tmp_path / "new", corpus=corpus, config=QUICK)
    assert content(tmp_path / "s") == content(tmp_path / "new")


@pytest.mark.parametrize("change", [{"seed": 1}, {"limit": 8}, {"questions": 12}])
def test_samples_by_other_settings_are_not_gone_on_from(
    tiny: Any, corpus: Path, tmp_path: Path, change: dict[str, int]
) -> None:
    stopped(tiny, corpus, tmp_path / "s")
    other = replace(QUICK, **change)
    evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=other)
    evaluate(tiny, ["cloze"], out=tmp_path / "new", corpus=corpus, config=other)
    assert content(tmp_path / "s") == content(tmp_path / "new")


def test_a_new_version_of_a_protocol_makes_old_samples_and_results_void(
    tiny: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tiny, corpus, tmp_path / "stopped")
    evaluate(tiny, ["cloze"], out=tmp_path / "done", corpus=corpus, config=QUICK)
    task = run.TASKS["cloze"]
    newer = replace(task, protocol=lambda bench: task.protocol(bench) | {"version": 99})
    monkeypatch.setitem(run.TASKS, "cloze", newer)
    asked = scored(monkeypatch)
    result = evaluate(tiny, ["cloze"], out=tmp_path / "stopped", corpus=corpus, config=QUICK)
    assert sum(asked) == 160 and result["cloze"].protocol["version"] == 99
    with pytest.raises(UsageError, match=r"by other settings \(protocol.version"):
        evaluate(tiny, ["cloze"], out=tmp_path / "done", corpus=corpus, config=QUICK)


def test_another_corpus_makes_them_void(
    tiny: Any, corpus: Path, tmp_path: Path, make_corpus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tiny, corpus, tmp_path / "s")
    asked = scored(monkeypatch)
    other = make_corpus(tmp_path / "other", documents=13)
    evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=other, config=QUICK)
    assert sum(asked) == 160


def test_a_bit_that_flips_in_an_evaluation_file_is_found(tmp_path: Path, data_dir: Path) -> None:
    """In 100 places of a real file; its name and size are said, and not one question is asked."""
    from gptwo.zeroshot.tasks.wsc273 import FILE

    assert isinstance(FILE, DataFile)
    good = (data_dir / FILE.path).read_bytes()
    path = tmp_path / FILE.path
    path.parent.mkdir(parents=True)
    chance = random.Random(3)
    for _ in range(100):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"winograd_wsc\.jsonl has 60,523 bytes") as error:
            FILE.read(tmp_path)
        assert error.value.exit_code == 3
    path.write_bytes(good)
    assert FILE.read(tmp_path) == good


def test_a_flipped_bit_in_the_samples_costs_their_block(
    tiny: Any, corpus: Path, tmp_path: Path
) -> None:
    path = stopped(tiny, corpus, tmp_path / "s")
    whole = path.read_bytes()
    evaluate(tiny, ["cloze"], out=tmp_path / "new", corpus=corpus, config=QUICK)
    for at in (len(whole) - 3, len(whole) // 2):
        data = bytearray(whole)
        data[at] ^= 16
        (tmp_path / "s/cloze.json").unlink(missing_ok=True)
        path.write_bytes(data)
        evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK)
        assert content(tmp_path / "s") == content(tmp_path / "new")
