"""A cut of the laptop run on real files: old crawl, saved pages, news, a book; GPT-2's ids."""

import io
import json
import lzma
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gptwo.artifacts import read_json, verify
from gptwo.cli import main

SETTINGS = (
    "training.steps=4",
    "training.batch_tokens=512",
    "training.warmup_steps=1",
    "training.validation_interval=0",
    "evaluation.limit=12",
    "evaluation.questions=12",
    "evaluation.documents=2",
    "evaluation.resamples=20",
    "sampling.max_tokens=6",
)


def first_lines(path: Path, count: int, characters: int, out: Path) -> Path:
    """The first documents of a JSONL.xz file, each cut to some characters."""
    with lzma.open(path, "rt", encoding="utf-8") as lines, out.open("w", encoding="utf-8") as cut:
        for _, line in zip(range(count), lines, strict=False):
            value = json.loads(line)
            cut.write(json.dumps(value | {"text": value["text"][:characters]}) + "\n")
    return out


def first_pages(path: Path, count: int, out: Path) -> Path:
    """The first pages of a tar.xz, packed again."""
    with tarfile.open(path) as pages, tarfile.open(out, "w:gz") as cut:
        for member in pages:
            if member.isfile() and count:
                body = pages.extractfile(member)
                assert body is not None
                cut.addfile(member, io.BytesIO(body.read()))
                count -= 1
    return out


@pytest.mark.slow
def test_a_cut_of_the_laptop_run(data_dir: Path, tmp_path: Path) -> None:
    text = data_dir / "text"
    sources = [
        data_dir / "warc/example_archiveorg_2008.warc.gz",
        first_pages(data_dir / "html/article_extraction_dev/pages.tar.xz", 12, tmp_path / "p.tgz"),
        first_lines(text / "news_articles_3824.jsonl.xz", 150, 20_000, tmp_path / "news.jsonl"),
        first_lines(
            text / "classic_books/books-00-of-12.jsonl.xz", 12, 60_000, tmp_path / "b.jsonl"
        ),
    ]
    run = tmp_path / "run"
    words = ["reproduce", "laptop", *map(str, sources), "--out", str(run), "--quiet"]
    words += ["--data", str(data_dir), "--size", "femto"]
    words += ["--set", f"vocabulary={data_dir / 'bpe'}"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    assert main(words) == 0
    verify(run)

    counts = read_json(run / "corpus/manifest.json")["counts"]
    read, kept = counts["stages"][0]["in"], sum(counts["documents"].values())
    assert read > 400 and 150 < kept < read
    sources_kept = {
        row["source"].split("/")[0]
        for path in (run / "corpus/train").glob("*.parquet")
        for row in pq.read_table(path, columns=["source"]).to_pylist()
    }
    assert sources_kept >= {"p.tgz", "news.jsonl", "b.jsonl"}

    packed = read_json(run / "tokens/manifest.json")["details"]
    assert packed["vocab_size"] == 50257 and packed["dtype"] == "uint16"
    results = {path.stem: read_json(path) for path in (run / "scores").glob("*.json")}
    assert set(results) == {
        *("heldout", "cloze", "lastword"),
        *("lambada", "wikitext2", "ptb", "wsc273"),
    }
    assert results["lambada"]["n"] == results["wsc273"]["n"] == 12
    assert results["lambada"]["paper"]["1542M"]["filtered_accuracy"] == 0.6324
    assert results["wikitext2"]["data"]["sha256"].startswith("173c87a5")
    # 4 steps teach little: about as surprised as at the start, ln 50257 nats a token
    assert 10_000 < results["wikitext2"]["metrics"]["token_perplexity"] < 100_000
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "WikiText-2" in page and "LAMBADA" in page and "synthetic" not in page.lower()
