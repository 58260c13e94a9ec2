"""extract: main text, limits, and quality on real pages."""

import json
import re
import tarfile
from pathlib import Path

import pytest
from page_files import html

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.extract import extract_file, extract_text, separate_paragraphs
from gptwo.corpus.shards import Draft, read_shard, write_shard
from gptwo.pool import Task

PROSE = "\n\n".join(
    f"Paragraph {i} tells at some length, and in whole sentences, what happened in the town."
    for i in range(6)
)


def extract(drafts: list[Draft], tmp_path: Path, **settings: float) -> list[Draft]:
    write_shard(tmp_path / "in.parquet", drafts)
    task = Task(
        input=tmp_path / "in.parquet", output=tmp_path / "out.parquet", skip=((1, "SIGSEGV"),)
    )
    extract_file(task, CorpusConfig(**settings), lambda position: None)  # type: ignore[arg-type]
    return read_shard(tmp_path / "out.parquet", kept=False)


def test_the_main_text_in_paragraphs() -> None:
    text = extract_text(html(PROSE))
    assert PROSE in text
    assert "Buy one" not in text and "Copyright" not in text


def test_lists_stay_together() -> None:
    lines = "intro\n- one\n- two\noutro\n| a | b |\n| c | d |"
    assert separate_paragraphs(lines) == "intro\n\n- one\n- two\n\noutro\n\n| a | b |\n| c | d |"


def test_pages_texts_and_killers(tmp_path: Path) -> None:
    drafts = [
        Draft(payload=html(PROSE).encode()),
        Draft(payload=html(PROSE).encode()),  # said to have killed a worker
        Draft(text="already text", id="kept"),
        Draft(payload=b"<html><body></body></html>"),
    ]
    page, killer, text, empty = extract(drafts, tmp_path)
    assert PROSE in page.text and page.payload is None and len(page.id) == 32
    assert (killer.reason, killer.detail) == ("killed-the-extractor", "SIGSEGV")
    assert (text.text, text.id, text.reason) == ("already text", "kept", "")
    assert empty.reason == "no-main-text"


def test_hostile_pages_cost_only_themselves(tmp_path: Path) -> None:
    row = "<tr>" + "<td>cell text</td>" * 20 + "</tr>"
    hostile = {
        "deep": "<div>" * 100_000 + "hello " * 100,
        "bold": "<p>" + "<b>" * 50_000 + "x",
        "table": "<table>" + row * 20_000,
        "no-end": "<p>some words here and there " * 50_000,
        "nul": "\0" * 1000,
        "attributes": "<p " + "a=1 " * 100_000 + ">" + "text " * 300,
    }
    drafts = [Draft(payload=page.encode(), url=name) for name, page in hostile.items()]
    drafts.insert(1, Draft(payload=b"placeholder"))
    drafts.append(Draft(payload=html(PROSE).encode(), url="good"))
    out = {d.url: d for d in extract(drafts, tmp_path, document_seconds=0.5)}
    assert out["table"].reason == "too-slow" and out["table"].detail == "more than 0.5 s"
    assert out["deep"].reason and out["nul"].reason == "no-main-text"
    assert PROSE in out["good"].text


def test_memory_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(page: str) -> str:
        return "x" * (3 << 30)  # more than the heap of a test process may hold free

    monkeypatch.setattr("gptwo.corpus.extract.extract_text", hungry)
    (out,) = extract([Draft(payload=b"<p>")], tmp_path, document_memory_mb=64)
    assert (out.reason, out.detail) == ("too-much-memory", "more than 64 MB")


def shingle_f1(found: str, true: str) -> tuple[float, float]:
    """Precision and recall over multisets of word 4-grams, as the benchmark defines them."""

    def grams(text: str) -> dict[tuple[str, ...], int]:
        words = re.findall(r"\w+", text)
        n = min(4, len(words)) or 1
        counts: dict[tuple[str, ...], int] = {}
        for i in range(max(len(words) - n + 1, 0)):
            gram = tuple(words[i : i + n])
            counts[gram] = counts.get(gram, 0) + 1
        return counts

    a, b = grams(found), grams(true)
    common = sum(min(count, b.get(gram, 0)) for gram, count in a.items())
    return common / max(sum(a.values()), 1), common / max(sum(b.values()), 1)


@pytest.mark.slow
def test_quality_on_the_article_benchmark(data_dir: Path) -> None:
    folder = data_dir / "html" / "article_extraction_dev"
    truth = json.loads((folder / "ground_truth.json").read_text())
    precisions, recalls = [], []
    with tarfile.open(folder / "pages.tar.xz") as archive:
        for member in archive:
            key = Path(member.name).stem
            if member.isfile() and key in truth:
                page = archive.extractfile(member)
                assert page is not None
                found = extract_text(page.read().decode("utf-8", "replace"))
                precision, recall = shingle_f1(found, truth[key]["articleBody"])
                precisions.append(precision)
                recalls.append(recall)
    assert len(precisions) == 91
    precision, recall = sum(precisions) / 91, sum(recalls) / 91
    f1 = 2 * precision * recall / (precision + recall)
    assert f1 > 0.95, (f1, precision, recall)
