"""The page: whole, alone, safe, the same every time, readable."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from lxml import html
from lxml.html import HtmlElement
from made_run import MARKUP, make_run

from gptwo.errors import DataError
from gptwo.report import collect as collecting
from gptwo.report.collect import collect
from gptwo.report.page import CHARTS, HERE, TITLES, write_report

PARTS = tuple(name for name in TITLES if name != "truth")
NOT_THERE = "Not there yet"


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the slow part."""
    empty = dict.fromkeys(CHARTS)
    monkeypatch.setattr("gptwo.report.page.draw", lambda found: empty)


@pytest.fixture(scope="session")
def text(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = write_report(made, tmp_path_factory.mktemp("page") / "page.html")
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(text: str) -> HtmlElement:
    return html.document_fromstring(text)


def notes(page: HtmlElement, part: str) -> list[str]:
    return [
        note.text_content() for note in page.xpath(f'//section[@id="{part}"]//p[@class="note"]')
    ]


def test_all_sections_in_the_order_of_the_arrow(page: HtmlElement) -> None:
    assert [section.get("id") for section in page.xpath("//section")] == [*PARTS, "provenance"]
    rooms = [node.text for node in page.xpath('//ol[@class="arrow"]//span[@class="room"]')]
    assert rooms == ["web", "pages", "corpus", "tokens", "model", "training", "zeroshot", "text"]
    counts = [node.text for node in page.xpath('//ol[@class="arrow"]//span[@class="count"]')]
    assert counts == ["236", "196", "114", "79.7k", "2.62M", "600", "4", "6"]
    assert not page.xpath('//p[@class="note"]')


def test_it_asks_the_network_for_nothing(page: HtmlElement, text: str) -> None:
    assert not page.xpath("//script | //img | //iframe | //object | //embed | //base")
    for name in ("src", "srcset", "action", "poster", "data", "background"):
        assert not page.xpath(f"//@{name}")
    targets = {str(value) for value in page.xpath("//@href")}
    assert all(value.startswith("#") or value == "data:," for value in targets)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text and 'http-equiv="refresh"' not in text
    policy = page.xpath('//meta[@http-equiv="Content-Security-Policy"]/@content')
    assert policy and policy[0].startswith("default-src 'none'")


def test_ids_are_unique_and_links_lead_somewhere(page: HtmlElement) -> None:
    ids = Counter(page.xpath("//@id"))
    assert [name for name, n in ids.items() if n > 1] == []
    targets = {value[1:] for value in page.xpath("//@href") if value.startswith("#")}
    used = {
        value for style in page.xpath("//@clip-path") for value in re.findall(r"#([^)]+)", style)
    }
    assert used and (targets | used) - {""} <= set(ids)


def test_text_of_others_is_text(page: HtmlElement, text: str) -> None:
    """Markup in a document, a detail, a sample and the tokens is shown, not obeyed."""
    assert "<script" not in text.lower()
    assert not page.xpath('//b[text()="not bold"]')
    shown = page.text_content()
    assert shown.count(MARKUP) >= 4
    pieces = "".join(page.xpath('//p[@class="pieces"]/span/text()'))
    assert MARKUP in pieces


def test_tokens_of_one_letter_are_shown_as_they_are(page: HtmlElement) -> None:
    pieces = page.xpath('//p[@class="pieces"]/span/text()')
    assert pieces[:3] == ["T", "h", "e"]
    assert "é" in pieces and "\ufffd" not in pieces  # two tokens, shown as the letter they spell


def test_it_can_be_read_without_seeing_it(page: HtmlElement) -> None:
    assert page.get("lang") == "en"
    assert len(page.xpath("//h1")) == 1
    assert all(
        chart.get("role") == "img" and chart.get("aria-label") for chart in page.xpath("//svg")
    )
    assert all(cell.get("scope") for cell in page.xpath("//th"))
    assert all(figure.xpath("./figcaption") for figure in page.xpath("//figure"))
    for section in page.xpath("//section"):
        assert page.get_element_by_id(section.get("aria-labelledby")).tag == "h2"
    for table in page.xpath("//table"):
        assert (
            table.getparent().get("class") == "scroll" and table.getparent().get("tabindex") == "0"
        )


def test_numbers_with_their_intervals_baselines_and_the_papers(page: HtmlElement) -> None:
    table = page.xpath('//div[@aria-label="LAMBADA"]/table')[0]
    rows = [" ".join(row.text_content().split()) for row in table.xpath(".//tr")]
    assert rows[1].startswith("this run 2.62M 5.2%4.6% to 5.8% 13.1%12.2% to 14.1%")
    assert rows[1].endswith("8.1%7.4% to 8.9% 2,1241,702 to 2,650")
    assert rows[2] == "most frequent content word baseline1.3%"
    assert rows[3:5] == ["prior SOTA paper59.2%99.80", "117M paper46.0%35.13"]
    assert "n = 5,153" in page.text_content()
    assert "but data and size differ" in page.text_content()


def test_examples_are_five_at_most_and_real(page: HtmlElement, made: Path) -> None:
    lists = page.xpath('//ul[@class="examples"]')
    assert lists and max(len(found.xpath("./li")) for found in lists) == 5
    assert min(len(found.xpath("./li")) for found in lists) >= 1
    assert "kept" not in [label.text for label in page.xpath("//summary/span")]


def test_the_same_folder_gives_the_same_bytes(made: Path, tmp_path: Path, text: str) -> None:
    code = (
        "from gptwo.report.page import write_report; from pathlib import Path;"
        f"write_report(Path({str(made)!r}), Path({str(tmp_path / 'again.html')!r}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_it_is_written_into_the_run_and_nothing_else_is(run: Path, no_charts: None) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert write_report(run) == run / "report.html"
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert after == before | {run / "report.html": after[run / "report.html"]}


@pytest.mark.parametrize("part", PARTS)
def test_a_stage_that_has_not_run_is_said(run: Path, part: str, no_charts: None) -> None:
    for name in {"training": ("metrics.jsonl",), "tokens": ("tokenizer", "tokens")}.get(
        part, (part,)
    ):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = html.parse(str(write_report(run))).getroot()
    assert [NOT_THERE in note for note in notes(page, part)] == [True]
    assert not any(notes(page, other) for other in PARTS if other != part)


def test_a_run_that_has_only_begun(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "run.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    state = json.loads((run / "run.json").read_text())
    state["stages"] = {"links": {"state": "running"}}
    (run / "run.json").write_text(json.dumps(state))
    page = html.parse(str(write_report(run))).getroot()
    assert all(NOT_THERE in notes(page, part)[0] for part in PARTS)
    assert "Nothing is finished" in page.text_content()
    assert "interrupted" in " ".join(notes(page, "links"))


def test_a_run_that_began_with_texts_has_no_crawl(run: Path, no_charts: None) -> None:
    for name in ("links", "pages"):
        shutil.rmtree(run / name)
    state = json.loads((run / "run.json").read_text())
    state["recipe"] |= {"sources": ["texts"], "link_files": []}
    for name in ("links", "pages"):
        del state["stages"][name]
    (run / "run.json").write_text(json.dumps(state))
    page = html.parse(str(write_report(run))).getroot()
    rooms = [node.text for node in page.xpath('//ol[@class="arrow"]//span[@class="room"]')]
    assert rooms[0] == "corpus"
    assert not page.xpath('//section[@id="links" or @id="pages"]')


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("links/manifest.json", "links"),
        ("links/dropped.parquet", "links"),
        ("pages/fetched.parquet", "pages"),
        ("corpus/manifest.json", "corpus"),
        ("corpus/test/part-00000.parquet", "corpus"),
        ("corpus/datasheet.json", "corpus"),
        ("tokenizer/encoder.json", "tokens"),
        ("tokens/test-00000.bin", "tokens"),
        ("metrics.jsonl", "training"),
        ("training.json", "training"),
        ("tune.json", "training"),
        ("samples.jsonl", "training"),
        ("scores/lambada.json", "scores"),
        ("samples/samples.jsonl", "samples"),
    ],
)
@pytest.mark.parametrize("damage", ["empty", "half", "other"])
def test_a_damaged_file_is_said(
    run: Path, name: str, part: str, damage: str, no_charts: None
) -> None:
    content = (run / name).read_bytes()
    half = content[: len(content) // 2 + 1]
    new = {"empty": b"", "half": half, "other": b"<html>not found</html>"}[damage]
    (run / name).write_bytes(new)
    page = html.parse(str(write_report(run))).getroot()
    found = notes(page, part)
    if (name, damage) == ("samples.jsonl", "empty"):  # nothing was sampled yet
        return
    assert found, f"{name} {damage}"
    if (name, damage) != ("metrics.jsonl", "empty"):  # which is how a run begins
        assert "Damaged" in found[0] and str(run) not in found[0]
    assert not any(notes(page, other) for other in PARTS if other != part)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stages": 3, "recipe": null, "machine": []}'])
def test_a_damaged_run_json_is_said(run: Path, content: str, no_charts: None) -> None:
    (run / "run.json").write_text(content)
    page = html.parse(str(write_report(run))).getroot()
    said = [note.text_content() for note in page.xpath("//header//p[@class='note']")]
    assert [("run.json" in note) for note in said] == ([True] if content in ("", "{") else [])
    assert page.xpath("//h1")[0].text == "made"


def test_without_run_json_the_rest_is_told(run: Path) -> None:
    (run / "run.json").unlink()
    found = collect(run)
    assert "no run.json" in found.notes[0] and found.name == "made"
    assert all(part.facts for part in found.parts.values() if part.name != "truth")


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    for name, found in (
        ("nowhere", "does not exist"),
        ("file", "is a file"),
        ("folder", "not a run"),
    ):
        with pytest.raises(DataError, match=found):
            write_report(tmp_path / name)
    assert not (tmp_path / "folder/report.html").exists()


def test_a_long_run_stays_a_small_page(run: Path) -> None:
    with (run / "metrics.jsonl").open("w") as metrics, (run / "timings.jsonl").open("w") as timings:
        for step in range(1, 20_001):
            line = {"step": step, "tokens": step * 1000}
            metrics.write(json.dumps(line | {"loss": 3.0, "lr": 1e-3, "grad_norm": 1.0}) + "\n")
            metrics.write(json.dumps(line | {"valid_loss": 3.1}) + "\n")
            timings.write(json.dumps({"step": step, "tokens_per_second": 1e4, "mfu": 0.4}) + "\n")
    assert write_report(run).stat().st_size < 500_000


def test_a_demo_is_labelled_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth_facts: dict
) -> None:
    run = make_run(tmp_path / "demo", demo=True)
    (run / "demoweb").mkdir()
    monkeypatch.setattr(collecting, "judge", lambda run: truth_facts)
    page = html.parse(str(write_report(run))).getroot()
    badges = [badge.text for badge in page.xpath('//p[@class="badge"]')]
    assert badges == ["synthetic web, real prose"] * 2
    assert "near-copy" in page.xpath('//section[@id="truth"]')[0].text_content()


def _palettes() -> list[dict[str, str]]:
    style = (HERE / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, flags=re.DOTALL)[:2]
    found = [dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for part in (light, dark)]
    return [found[0], found[0] | found[1]]


def _luminance(color: str) -> float:
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(w * s for w, s in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", _palettes(), ids=["light", "dark"])
def test_contrast(palette: dict[str, str]) -> None:
    for text in ("ink", "muted", "accent"):
        for ground in ("paper", "card"):
            assert contrast(palette[text], palette[ground]) >= 4.5, (text, ground)
    for ground in ("note", "tone0", "tone1", "tone2", "tone3"):
        assert contrast(palette["ink"], palette[ground]) >= 4.5, ground
    for mark in ("first", "second", "third", *(f"run{place}" for place in range(1, 9))):
        assert contrast(palette[mark], palette["paper"]) >= 3, mark


def test_the_corpus_beside_webtext(run: Path, no_charts: None) -> None:
    """Domains with their places in WebText, and what was shared with evaluation sets."""
    page = html.parse(str(write_report(run))).getroot()
    (section,) = page.xpath('//section[@id="corpus"]')
    titles = [title.text for title in section.xpath(".//h3")]
    assert {"Top domains", "WebText's", "What it shares with evaluation sets"} <= set(titles)
    (row,) = section.xpath('.//tr[th="lambada/lambada_test"]')
    assert [cell.text for cell in row.xpath("td")] == ["5,153", "1.25%", "0.10%", "3", "2"]
    assert "google" in section.text_content() and "1,542,261" in section.text_content()
