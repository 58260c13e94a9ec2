"""The datasheet of a corpus: what it counts, and how it is told."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.datasheet import (
    WEBTEXT_DOMAINS,
    as_markdown,
    domain_of,
    read_domains,
    write_datasheet,
)
from gptwo.errors import DataError

KEPT = ("id", "url", "text", "score", "date", "lang", "source", "meta")
DROPPED = (*KEPT, "stage", "reason", "detail")


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def write(path: Path, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([(name, pa.int32() if name == "score" else pa.string()) for name in names])
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def document(number: int, text: str, url: str = "", **more: Any) -> dict[str, Any]:
    same = {"id": f"{number:032x}", "url": url, "text": text, "lang": "en", "source": "crawl"}
    return same | {"score": 3, "date": "", "meta": "{}"} | more


@pytest.fixture
def corpus(tmp_path: Path) -> dict[str, Any]:
    """Ten documents kept, eight dropped for two reasons; returns the counts."""
    urls = ["http://news.bbc.co.uk/a", "http://me.blogspot.com/", "https://user@x.example:80/?q#f"]
    kept = [document(i, "é" * (10 * i + 1), urls[i % 3]) for i in range(9)]
    kept.append(document(9, "no address", source="dump.jsonl/line"))
    write(tmp_path / "train/part-00000.parquet", KEPT, kept[:6])
    write(tmp_path / "valid/part-00000.parquet", KEPT, kept[6:8])
    write(tmp_path / "test/part-00000.parquet", KEPT, kept[8:])
    why = {"stage": "language", "reason": "other-language", "detail": "de 0.99", "lang": "de"}
    dropped = [
        document(100 - i, f"Nummer {i}  |\n `x`", f"http://d.de/{i}", **why) for i in range(7)
    ]
    dropped.append(
        document(200, "", source="tar/a", stage="read", reason="empty", detail="<&>", lang="")
    )
    write(tmp_path / "dropped/part-00000.parquet", DROPPED, dropped)
    stages = [
        {"stage": "read", "in": 18, "out": 17, "dropped": {"empty": 1}},
        {"stage": "language", "in": 17, "out": 10, "dropped": {"other-language": 7}},
    ]
    characters = {"train": 156, "valid": 132, "test": 91}
    return {
        "stages": stages,
        "documents": {"train": 6, "valid": 2, "test": 2},
        "characters": characters,
    }


def test_what_it_counts(
    tmp_path: Path, corpus: dict[str, Any], database: duckdb.DuckDBPyConnection
) -> None:
    sheet = write_datasheet(database, tmp_path, corpus, "")
    assert sheet == json.loads((tmp_path / "datasheet.json").read_text())
    assert sheet["sources"] == [
        {"source": "crawl", "read": 16, "kept": 9, "characters": 369},
        {"source": "dump.jsonl", "read": 1, "kept": 1, "characters": 10},
        {"source": "tar", "read": 1, "kept": 0, "characters": 0},
    ]
    domains = sheet["domains"]
    top = [(row["domain"], row["documents"], row["webtext_rank"]) for row in domains["top"]]
    assert top == [("bbc", 3, 9), ("blogspot", 3, 3), ("x", 3, None)]
    assert (domains["documents_without"], domains["distinct"]) == (1, 3)
    assert domains["share_on_webtext_list"] == pytest.approx(6 / 9)
    assert domains["webtext"][2] == {"domain": "blogspot", "links": 456_344, "documents": 3}
    assert sheet["languages"] == [
        {"language": "en", "kept": 10, "dropped": 0},
        {"language": "de", "kept": 0, "dropped": 7},
    ]
    lengths = sheet["lengths"]["documents"]
    assert (sum(lengths), lengths[0], lengths[16]) == (10, 1, 2)  # of 1, of 10 and 11 characters
    (german,) = [
        s["dropped"]["other-language"] for s in sheet["stages"] if s["stage"] == "language"
    ]
    assert german["documents"] == 7
    assert [row["url"] for row in german["examples"]] == [
        f"http://d.de/{i}" for i in (6, 5, 4, 3, 2)
    ]
    assert german["examples"][0]["text"] == "Nummer 6 | `x`"


def test_the_page_for_people(
    tmp_path: Path, corpus: dict[str, Any], database: duckdb.DuckDBPyConnection
) -> None:
    write_datasheet(database, tmp_path, corpus, "")
    page = (tmp_path / "datasheet.md").read_text(encoding="utf-8")
    assert "10 documents, 379 characters" in page
    assert "### language: other-language, 7 documents" in page
    assert "- `http://d.de/6` · de 0.99 · Nummer 6 \\| 'x'\n" in page
    assert "- `tar/a` · &lt;&>\n" in page
    assert "| blogspot | 3 | 3 |" in page
    assert "\n\n\n" not in page


@given(st.text(), st.text())
def test_nothing_in_a_document_ends_its_line(text: str, detail: str) -> None:
    example = {"url": "http://a.example/", "source": "s", "detail": detail, "text": text}
    stage = {
        "stage": "s",
        "in": 1,
        "out": 0,
        "dropped": {"r": {"documents": 1, "examples": [example]}},
    }
    sheet = {
        **{"documents": {"train": 0}, "characters": {"train": 0}, "sources": [], "stages": [stage]},
        **{"languages": [], "lengths": {"documents": [0] * 128}},
        "domains": {
            **{"distinct": 0, "documents_without": 0, "webtext_list": 0, "top": [], "webtext": []},
            "share_on_webtext_list": None,
        },
    }
    lines = as_markdown(sheet).split("\n")
    (item,) = [line for line in lines if line.startswith("- ")]
    assert item.startswith("- `http://a.example/`") and "<" not in item
    assert lines.index("## Domains") == lines.index(item) + 2


def test_names_are_those_registered() -> None:
    known = {
        **{"news.bbc.co.uk": "bbc", "www.abc.net.au": "abc", "me.blogspot.com": "blogspot"},
        **{"a.github.io": "github", "gazette-0.example": "gazette-0", "localhost": "localhost"},
        **{"10.0.0.1": "10.0.0.1", "": "", "xn--bcher-kva.de": "xn--bcher-kva", "..": ""},
    }
    assert {host: domain_of(host) for host in known} == known


def test_the_whole_list_of_webtext(data_dir: Path) -> None:
    found = read_domains(str(data_dir / "weblists" / "webtext_top_domains.txt"))
    assert len(found) == 1000
    assert list(found.items())[:12] == list(WEBTEXT_DOMAINS.items())


def test_another_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("12 google\ngoogle 12\n")
    with pytest.raises(DataError, match="line 2 is 'google 12', expected a count and a domain"):
        read_domains(str(tmp_path / "list"))
    with pytest.raises(DataError, match="cannot be read"):
        read_domains(str(tmp_path))


def test_it_is_written_with_the_corpus(tmp_path: Path) -> None:
    texts = [
        f"Text {i}: the river rose in spring, and the town stood under water." for i in range(9)
    ]
    lines = [
        {"text": t * 8, "url": f"http://a{i % 3}.blogspot.com/{i}"} for i, t in enumerate(texts)
    ]
    source, known = tmp_path / "s.jsonl", tmp_path / "domains.txt"
    source.write_text("\n".join(map(json.dumps, [*lines, {"text": "short"}])))
    known.write_text("7 other\n5 blogspot\n")
    config = CorpusConfig(top_domains=str(known))
    manifest = build_corpus([source], tmp_path / "out", config, workers=1)
    sheet = json.loads((tmp_path / "out/datasheet.json").read_text())
    assert {"datasheet.json", "datasheet.md"} <= manifest.files.keys()
    folders = {"train", "valid", "test", "dropped"}
    files = {"datasheet.json", "datasheet.md", "manifest.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == folders | files
    assert sheet["domains"]["top"][0] | {"characters": 0} == {
        **{"domain": "blogspot", "documents": sum(sheet["documents"].values())},
        **{"characters": 0, "webtext_rank": 2},
    }
    assert [stage["stage"] for stage in sheet["stages"]][:3] == ["read", "extract", "language"]
    (reason,) = [r for s in sheet["stages"] for r, d in s["dropped"].items() if d["documents"] == 1]
    assert reason in ("too-short", "uncertain-language")
