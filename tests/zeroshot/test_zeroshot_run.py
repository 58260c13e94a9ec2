"""Evaluation as a whole: results, reuse, missing data, kill and resume."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gptwo.errors import DataError, Interrupted, ModelError, UsageError
from gptwo.progress import Reporter
from gptwo.zeroshot import run
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.log import read_samples
from gptwo.zeroshot.run import evaluate, read_result

BUILT_IN = ["cloze", "lastword", "heldout"]
QUICK = EvalConfig(questions=16, documents=4, resamples=50, window=64)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BLOCK", 4)


def content(folder: Path) -> dict[str, object]:
    """Everything in a folder of scores but the seconds."""
    found: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            found[path.name] = {**json.loads(path.read_text()), "seconds": 0}
        else:
            found[path.name] = path.read_bytes()
    return found


def test_results_are_complete_and_readable_alone(tiny, corpus: Path, tmp_path: Path) -> None:
    results = evaluate(tiny, BUILT_IN, out=tmp_path / "scores", corpus=corpus, config=QUICK)
    assert list(results) == BUILT_IN
    for name, result in results.items():
        path = tmp_path / "scores" / f"{name}.json"
        value = json.loads(path.read_text())
        assert asdict(read_result(path)) == asdict(result) == value
        assert value["n"] == len(read_samples(path.with_name(f"{name}.samples.jsonl.zst"))) > 3
        assert value["model"] == tiny.description
        assert value["data"]["corpus"] and value["protocol"]["version"] >= 1
        assert value["baselines"] and value["metrics"]
        for metric, interval in value["intervals"].items():
            assert interval["low"] <= value["metrics"][metric] <= interval["high"]
    assert sorted(p.name for p in (tmp_path / "scores").iterdir()) == sorted(
        f"{name}{end}" for name in BUILT_IN for end in (".json", ".samples.jsonl.zst")
    )


def test_the_real_tasks_on_small_cuts(tiny, data_dir: Path, tmp_path: Path) -> None:
    tasks = ["lambada", "wikitext2", "ptb", "wsc273"]
    config = EvalConfig(limit=5, resamples=50)
    results = evaluate(tiny, tasks, out=tmp_path, data=data_dir, config=config)
    assert results["lambada"].n == results["wsc273"].n == 5
    assert results["lambada"].protocol["limit"] == "the first 5 passages"
    assert results["lambada"].paper["117M"]["perplexity"] == 35.13
    assert results["wikitext2"].data["lines"] == results["ptb"].data["lines"] == 5
    for result in results.values():
        assert result.data["sha256"] and result.metrics and result.baselines


def test_another_batch_size_gives_the_same_metrics(tiny, corpus: Path, tmp_path: Path) -> None:
    found = [
        evaluate(
            tiny,
            BUILT_IN,
            out=tmp_path / str(budget),
            corpus=corpus,
            config=replace(QUICK, token_budget=budget, questions=6, documents=2),
        )
        for budget in (1, 100_000)
    ]
    for name in BUILT_IN:
        a, b = (results[name].metrics for results in found)
        assert a == pytest.approx(b, rel=1e-5, abs=1e-5)


def test_a_finished_result_is_reused(tiny, corpus: Path, tmp_path: Path, monkeypatch) -> None:
    first = evaluate(tiny, BUILT_IN, out=tmp_path / "s", corpus=corpus, config=QUICK)
    monkeypatch.setattr(run, "_run", None)  # nothing may be run any more
    tiny.description = {**tiny.description, "name": "the same weights elsewhere"}
    again = evaluate(tiny, BUILT_IN, out=tmp_path / "s", corpus=corpus, config=QUICK)
    assert first == again


@pytest.mark.parametrize("what", ["weights_sha256", "tokenizer_fingerprint", "dtype"])
def test_a_result_of_something_else_is_not(tiny, corpus: Path, tmp_path: Path, what: str) -> None:
    evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK)
    before = (tmp_path / "s" / "cloze.samples.jsonl.zst").read_bytes()
    tiny.description = {**tiny.description, what: "other"}
    result = evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK)["cloze"]
    assert result.model == tiny.description
    assert (tmp_path / "s" / "cloze.samples.jsonl.zst").read_bytes() != before
    assert read_result(tmp_path / "s" / "cloze.json") == result


def test_a_trial_takes_no_results_place(tiny, corpus: Path, tmp_path: Path) -> None:
    first = evaluate(tiny, ["cloze"], out=tmp_path, corpus=corpus, config=QUICK)
    with pytest.raises(UsageError, match=r"cloze of this model by other settings \(protocol.limit"):
        evaluate(tiny, ["cloze"], out=tmp_path, corpus=corpus, config=replace(QUICK, limit=3))
    assert evaluate(tiny, ["cloze"], out=tmp_path, corpus=corpus, config=QUICK) == first


def test_a_damaged_result_is_made_again(tiny, corpus: Path, tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"task": "cloze"}'):
        (tmp_path / "cloze.json").write_text(text)
        assert evaluate(tiny, ["cloze"], out=tmp_path, corpus=corpus, config=QUICK)["cloze"].n


def test_missing_data_stops_no_other_task(tiny, corpus: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "scores", tmp_path / "data"
    (bad / "eval/ptb").mkdir(parents=True)
    (bad / "eval/ptb/ptb.test.txt").write_text("truncated")
    tasks = ["ptb", "heldout", "wsc273", "lastword"]
    with pytest.raises(DataError, match=r"ptb: .*9 bytes.*wsc273: .*missing") as caught:
        evaluate(tiny, tasks, out=out, data=bad, corpus=corpus, config=QUICK)
    assert caught.value.exit_code == 3
    assert "finished: heldout, lastword" in caught.value.message
    assert sorted(path.stem for path in out.glob("*.json")) == ["heldout", "lastword"]


def test_a_missing_package_is_named_first_and_stops_no_other_task(
    tiny, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)  # as if it were not installed
    events: list[str] = []
    score = run.Scorer.score
    monkeypatch.setattr(run.Scorer, "score", lambda self, r: events.append("ask") or score(self, r))
    reporter = Reporter(quiet=True)
    reporter.say = events.append  # type: ignore[method-assign]
    tasks, config = ["wsc273", "wmt14-en-fr"], EvalConfig(limit=2, resamples=10)
    with pytest.raises(DataError, match=r"sacrebleu.*finished: wsc273") as caught:
        evaluate(tiny, tasks, out=tmp_path, data=data_dir, config=config, reporter=reporter)
    assert "wmt14-en-fr: left out" in events[0] and "ask" in events[1:]
    assert caught.value.remedy == "pip install 'gptwo[eval]'"


def test_tasks_without_their_source_say_what_to_name(tiny, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="corpus and none is named"):
        evaluate(tiny, ["cloze"], out=tmp_path)
    with pytest.raises(DataError, match="no data folder"):
        evaluate(tiny, ["ptb"], out=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tiny, ["heldout"], out=tmp_path, corpus=tmp_path / "nowhere")


def test_a_damaged_corpus_is_named(tiny, corpus: Path, tmp_path: Path) -> None:
    part = corpus / "test/part-00000.parquet"
    part.write_bytes(b"x" * part.stat().st_size)
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read"):
        evaluate(tiny, BUILT_IN, out=tmp_path / "s", corpus=corpus, config=QUICK)


def test_wrong_requests_fail_before_work(tiny, tmp_path: Path, tiny_model) -> None:
    with pytest.raises(UsageError, match="unknown task 'lambda'; the nearest is 'lambada'"):
        evaluate(tiny, ["lambda"], out=tmp_path)
    with pytest.raises(UsageError, match=r"window is 4096, the model sees 512"):
        evaluate(tiny, ["ptb"], out=tmp_path, config=EvalConfig(window=4096))
    tiny.model = tiny_model(vocab_size=100)
    with pytest.raises(ModelError, match="tokenizer has 261 tokens, the model 100"):
        evaluate(tiny, ["ptb"], out=tmp_path)


class StopAfter(Reporter):
    """Asks to stop at the n-th check."""

    def __init__(self, checks: int) -> None:
        super().__init__(quiet=True)
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        self.stop_requested = self.left < 0
        super().check()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("checks", [0, 8])
def test_a_stopped_run_goes_on(tiny, corpus: Path, tmp_path: Path, checks: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    evaluate(tiny, BUILT_IN, out=whole, corpus=corpus, config=QUICK)
    with pytest.raises(Interrupted):
        evaluate(tiny, BUILT_IN, out=parts, corpus=corpus, config=QUICK, reporter=StopAfter(checks))
    assert not all((parts / f"{name}.json").exists() for name in BUILT_IN)
    evaluate(tiny, BUILT_IN, out=parts, corpus=corpus, config=QUICK)
    assert content(parts) == content(whole)


@pytest.mark.usefixtures("small_blocks")
def test_a_resumed_run_scores_only_the_rest(
    tiny, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        evaluate(
            tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK, reporter=StopAfter(3)
        )
    asked = []
    whole = run.Scorer.score
    monkeypatch.setattr(run.Scorer, "score", lambda self, r: asked.append(len(r)) or whole(self, r))
    result = evaluate(tiny, ["cloze"], out=tmp_path / "s", corpus=corpus, config=QUICK)["cloze"]
    assert result.n == 16 and asked == [40]  # four of sixteen questions, ten options each


CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [{here!r}]
from conftest import build, Tiny
import torch
torch.set_num_threads(1)
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot import run
from gptwo.zeroshot.config import EvalConfig
run.BLOCK = 4
tokenizer = Tokenizer([(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b" ", b"a")])
model = build(vocab_size=tokenizer.vocab_size + 3, n_ctx=512)
description = {{"weights_sha256": "0"}}
run.evaluate(Tiny(model, tokenizer, description), {tasks!r}, out=Path({out!r}),
             corpus=Path({corpus!r}),
             config=EvalConfig(questions=16, documents=4, resamples=50, window=64))
"""


def start(corpus: Path, out: Path) -> subprocess.Popen:
    code = CHILD.format(
        here=str(Path(__file__).parent), tasks=BUILT_IN, out=str(out), corpus=str(corpus)
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def sizes(out: Path) -> Iterator[int]:
    for path in out.glob("*.zst"):
        yield path.stat().st_size


@pytest.mark.slow
def test_killed_at_any_moment_the_result_is_the_same(corpus: Path, tmp_path: Path) -> None:
    undisturbed = start(corpus, tmp_path / "whole")
    assert undisturbed.wait() == 0, undisturbed.communicate()
    final = sum(sizes(tmp_path / "whole"))
    out = tmp_path / "killed"
    for share in sorted(random.Random(6).uniform(0, 0.9) for _ in range(4)):
        child = start(corpus, out)
        while child.poll() is None and sum(sizes(out)) <= share * final:
            time.sleep(0.001)
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    child = start(corpus, out)
    assert child.wait() == 0, child.communicate()
    child.communicate(), undisturbed.communicate()
    (out / ".lock").unlink(missing_ok=True)
    assert content(out) == content(tmp_path / "whole")
    shutil.rmtree(out)
