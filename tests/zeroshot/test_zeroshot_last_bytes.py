"""enwik8 and text8 by hand, on files of the same make."""

import hashlib
import math
from pathlib import Path

import pytest
import torch

from gptwo.errors import DataError
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.last_bytes import TEST_BYTES, last_bytes
from gptwo.zeroshot.run import TASKS, paper_rows
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import enwik8, text8

TEXT = ("<page>héllo the 日本 cat " * 40).encode()


def test_bits_by_hand(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the file, cut through a character, in windows that see 100 tokens."""
    monkeypatch.setattr("gptwo.zeroshot.last_bytes.TEST_BYTES", 314)
    (tmp_path / "set").write_bytes(TEXT)
    file = DataFile(path="set", size=len(TEXT), sha256=hashlib.sha256(TEXT).hexdigest())
    config = EvalConfig(window=100, resamples=20)
    bench = Bench(
        sources=Sources(tmp_path, None), tokenizer=tiny.tokenizer, n_ctx=512, config=config
    )
    test = TEXT[-314:]
    with pytest.raises(UnicodeDecodeError):
        test.decode()
    task = last_bytes(file, "bits_per_byte")
    assert task.data(bench)["units"] == 314
    scorer = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size)
    records = solve(task.examples(bench), task, bench, tiny.model, scorer)
    metrics, intervals = task.summary(records, bench)

    ids = tiny.tokenizer.encode(test)
    assert tiny.tokenizer.decode_bytes(ids) == test and metrics["tokens"] == len(ids)
    fed, nats = [tiny.tokenizer.eot, *ids], 0.0
    for first in range(0, len(ids), 100):  # the last window is as long as the others, too
        scored = fed[1:][first : first + 100]
        left = max(0, first + len(scored) - 100)
        with torch.no_grad():
            logits = tiny.model(torch.tensor([fed[left : first + len(scored)]]))[0]
        logprobs = logits[-len(scored) :, : tiny.tokenizer.vocab_size].log_softmax(-1)
        nats -= logprobs.gather(1, torch.tensor(scored)[:, None]).sum().item()
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / 314, rel=1e-5)
    assert metrics["token_perplexity"] == pytest.approx(math.exp(nats / len(ids)), rel=1e-4)
    assert set(intervals) == {"bits_per_byte", "token_perplexity"}
    assert 0 < task.baselines([], bench)["xz"]["bits_per_byte"] < 8


def test_the_published_files_are_asked_for(tiny, tmp_path: Path) -> None:
    assert TEST_BYTES == 5_000_000
    for name, module, metric in (
        ("enwik8", enwik8, "bits_per_byte"),
        ("text8", text8, "bits_per_character"),
    ):
        assert module.FILE.size == 100_000_000
        assert metric in paper_rows(name)["117M"]
        (tmp_path / module.FILE.path).parent.mkdir(parents=True)
        (tmp_path / module.FILE.path).write_bytes(b"<!DOCTYPE html>")
        bench = Bench(
            sources=Sources(tmp_path, None),
            tokenizer=tiny.tokenizer,
            n_ctx=512,
            config=EvalConfig(),
        )
        with pytest.raises(DataError, match="web page"):
            TASKS[name].data(bench)
