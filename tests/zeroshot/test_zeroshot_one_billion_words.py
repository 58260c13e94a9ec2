"""One Billion Words by hand, on a small archive of the same make."""

import hashlib
import io
import math
import tarfile
from pathlib import Path

import pytest
import torch

from gptwo.errors import DataError
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.detokenize import NEWS
from gptwo.zeroshot.run import paper_rows
from gptwo.zeroshot.running_text import running_text
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import DataFile, Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import one_billion_words

LINES = 'The cat \'s hat .\nHe said , " the cat " .\nThe hat !\n'
PROSE = ("The cat's hat.\n", 'He said, "the cat".\n', "The hat!\n")


def packed(folder: Path, content: bytes, name: str = "set/heldout/part-0") -> DataFile:
    """A tar.gz whose second file is the test."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as files:
        for member, inside in (("set/train", b"not this one\n" * 99), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(inside)
            files.addfile(info, io.BytesIO(inside))
    whole = archive.getvalue()
    (folder / "set.tar.gz").write_bytes(whole)
    return DataFile(
        path="set.tar.gz",
        size=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        member="set/heldout/part-0",
    )


def bench_of(tiny, data: Path, **settings) -> Bench:
    return Bench(
        sources=Sources(data, None),
        tokenizer=tiny.tokenizer,
        n_ctx=512,
        config=EvalConfig(resamples=20, **settings),
    )


def nats_of(tiny, text: str) -> float:
    ids = [tiny.tokenizer.eot, *tiny.tokenizer.encode(text)]
    with torch.no_grad():
        logits = tiny.model(torch.tensor([ids[:-1]]))[0, :, : tiny.tokenizer.vocab_size]
    return -logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum().item()


def test_sentences_alone_by_hand(tiny, tmp_path: Path) -> None:
    task = running_text(packed(tmp_path, LINES.encode()), NEWS, "something", shuffled=True)
    bench = bench_of(tiny, tmp_path)
    facts = task.data(bench)
    # 5 + 8 + 3 words and an end for each of 3 lines
    assert (facts["units"], facts["lines"], facts["text_bytes"]) == (19, 3, len(LINES))
    assert (
        facts["member"] == "set/heldout/part-0"
        and "every line alone" in (task.protocol(bench)["scored"])
    )
    examples = task.examples(bench)
    assert [tiny.tokenizer.decode(e.requests[0].continuation) for e in examples[:3]] == [*PROSE]
    assert all(list(e.requests[0].context) == [tiny.tokenizer.eot] for e in examples)
    scorer = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size)
    metrics, intervals = task.summary(solve(examples, task, bench, tiny.model, scorer), bench)
    clean = sum(nats_of(tiny, line) for line in PROSE)
    raw = sum(nats_of(tiny, line + "\n") for line in LINES.splitlines())
    assert metrics["perplexity"] == pytest.approx(math.exp(clean / 19), rel=1e-4)
    assert metrics["raw_perplexity"] == pytest.approx(math.exp(raw / 19), rel=1e-4)
    assert metrics["raw_bits_per_byte"] == pytest.approx(raw / math.log(2) / len(LINES), rel=1e-4)
    assert metrics["units"] == 19 and "perplexity" in intervals


def test_a_sentence_longer_than_the_window_is_read_in_parts(tiny, tmp_path: Path) -> None:
    task = running_text(packed(tmp_path, b"The cat . " * 90 + b"\n"), NEWS, "", shuffled=True)
    windows = [e for e in task.examples(bench_of(tiny, tmp_path, window=64)) if e.facts]
    assert len(windows) > 10
    assert all(len(e.requests[0].context) + len(e.requests[0].continuation) <= 65 for e in windows)


def test_an_archive_without_the_file_or_cut_short(tiny, tmp_path: Path) -> None:
    file = packed(tmp_path, LINES.encode(), name="set/heldout/part-1")
    with pytest.raises(DataError, match="holds no set/heldout/part-0"):
        file.read(tmp_path)
    path = tmp_path / "set.tar.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not the published file"):
        file.read(tmp_path)


def test_the_archive_has_the_hash_that_is_known() -> None:
    file = one_billion_words.FILE
    assert file.size == 1_792_209_805 and file.sha256.startswith("01ba6038")
    assert file.member.endswith("/news.en.heldout-00000-of-00050")
    assert paper_rows("1bw")["1542M"] == {"perplexity": 42.16}
