"""The paper's figures and tables from a set of runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import zstandard
from lxml import html
from test_report_paired import nq

from gptwo.artifacts import write_json
from gptwo.report.compare import compare
from gptwo.report.page import write_comparison, write_report
from gptwo.report.paper import figures, on_page, read_scored, surest_answers, table_3
from gptwo.report.published import levels, parameters_of, points, published

CURVE = {
    "model": "m", "split": "test", "documents": 4, "prompt_tokens": 8, "continuation_tokens": 8,
    "top_k": 40, "temperature": 1.0, "seed": 0, "generated": [0.0, 0.01, 0.02, 0.2],
    "true": [0.0, 0.02, 0.03, 0.5], "medians": {"generated": 0.015, "true": 0.025}, "paper": {},
}  # fmt: skip
OVERLAP = {
    "table": [
        {"task": "ptb", "share": 0.012, "interval": {"low": 0.01, "high": 0.014}},
        {"task": "lambada", "share": 0.02, "interval": {"low": 0.01, "high": 0.03}},
    ],
    "curve": CURVE,
}


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The made run with overlap and answers."""
    run = Path(shutil.copytree(made, tmp_path / "made"))
    (run / "overlap").mkdir()
    write_json(run / "overlap/overlap.json", OVERLAP)
    return run


def paper_of(*runs: Path) -> dict[str, Any]:
    notes: list[str] = []
    scored = [read_scored(run, i, "AB"[i], run.name, notes) for i, run in enumerate(runs)]
    assert not notes
    return on_page(scored)


def test_the_papers_numbers_are_read_as_they_are_printed() -> None:
    assert points("lambada", "filtered_accuracy") == [
        ("117M", 124_439_808, 0.4599),
        ("345M", 354_823_168, 0.5548),
        ("762M", 774_030_080, 0.6012),
        ("1542M", 1_557_611_200, 0.6324),
    ]
    assert [value for *_, value in points("1bw", "perplexity")] == [75.20, 55.72, 44.575, 42.16]
    assert levels("nq", "exact_match") == {"most frequent answer per question word": 0.01}
    assert list(levels("cnn-dailymail", "rouge_mean")) == [
        "Bottom-Up", "Lede-3", "Seq2Seq+Attn", "Random-3",
    ]  # fmt: skip
    assert [value for *_, value in points("wsc273", "full_accuracy", "plots")] == [0.56, 0.70]
    assert parameters_of("prior SOTA") == 0


def test_every_figure_has_its_place(run: Path) -> None:
    found = paper_of(run)["figures"]
    assert [heading.split(".")[0] for heading, _ in found] == [f"Figure {i}" for i in range(1, 6)]
    assert [len(places) for _, places in found] == [4, 2, 1, 1, 1]
    drawn = {heading[7]: [bool(place.chart) for place in places] for heading, places in found}
    assert drawn == {"1": [False] * 4, "2": [False] * 2, "3": [False], "4": [True], "5": [True]}
    told = [place.run for _, places in found for place in places if not place.chart]
    assert (
        told[0] == "gptwo eval RUN coqa --data DIR" and "gptwo eval RUN cbt-ne --data DIR" in told
    )
    (heldout,) = found[3][1]
    text = "".join(html.fragment_fromstring(heldout.chart).itertext())
    assert "ours, train" in text and "paper, test, off its plot" in text
    (memory,) = found[4][1]
    assert (
        "none more than 30%" in memory.caption and "4 documents of the test split" in memory.caption
    )


def test_curves_have_intervals_and_both_runs(made: Path, run: Path) -> None:
    places = {place.title: place for place in paper_of(made, run)["curves"]}
    assert list(places) == ["LAMBADA ppl", "LAMBADA acc", "WikiText-2"]
    chart = html.fragment_fromstring(places["LAMBADA acc"].chart)
    texts = [text.strip() for text in chart.xpath(".//text/text()") if text.strip()]
    assert {"A", "B", "117M", "345M", "762M", "1542M", "best before it", "ours"} <= set(texts)
    bars = chart.xpath('.//g[starts-with(@id, "size-lambada") and contains(@id, "LineCollection")]')
    assert len(bars) == 2  # an interval for each run
    assert "n = 5,153; bars are 95% intervals" in places["LAMBADA acc"].caption


def test_table_3_holds_the_papers_rows_and_ours(run: Path) -> None:
    table = table_3([read_scored(run, 0, "A", "made", [])])
    rows = {row["label"]: [cell["text"] for cell in row["cells"]] for row in table.rows}
    assert rows["117M"] == [
        "35.13", "45.99%", "87.65%", "83.4%", "29.41", "65.85", "1.16", "1.17", "37.5", "75.2",
    ]  # fmt: skip
    assert list(rows) == ["prior SOTA", "117M", "345M", "762M", "1542M", "A made"]
    assert rows["A made"][:2] == ["2,124", "8.1%"] and rows["A made"][2] == ""
    (ours,) = [row for row in table.rows if row["kind"] == "ours"]
    assert ours["cells"][1]["interval"] == "7.4% to 8.9%"
    assert table.note == "gptwo eval RUN cbt-cn cbt-ne ptb enwik8 text8 wikitext103 1bw --data DIR"


def test_tables_4_5_and_6(run: Path) -> None:
    nq(run, "1101000000")
    path = run / "scores/nq.samples.jsonl.zst"
    records = [
        {"question": f"q{i}", "answer": f"a{i}", "confidence": i / 40, "exact_match": i > 20}
        for i in range(40)
    ]
    text = "".join(json.dumps(line) + "\n" for line in [{"task": "nq"}, *records])
    path.write_bytes(zstandard.ZstdCompressor().compress(text.encode()))
    surest = surest_answers(run)
    assert len(surest) == 30 and [answer["question"] for answer in surest[:2]] == ["q39", "q38"]
    found = paper_of(run)
    _, summaries, overlap = found["tables"]
    labels = [row["label"] for row in summaries.rows]
    assert "1542M TL;DR:" in labels and "Lede-3" in labels and summaries.note
    rows = {row["label"]: [cell["text"] for cell in row["cells"]] for row in overlap.rows}
    assert overlap.columns[:2] == ["ptb", "wikitext2"] and overlap.columns[-1] == "lambada"
    assert rows["WebText"][:2] == ["0.88%", "1.63%"] and rows["A made's corpus"][0] == "1.2%"
    page = html.parse(str(write_report(run))).getroot()
    text = " ".join(page.get_element_by_id("scores").text_content().split())
    assert "The paper's 1542M got 22 of its 30 surest answers right" in text
    assert "made: 19 of 30 right" in text and "97.5%" in text


def test_a_run_that_has_only_scores_is_shown(made: Path, tmp_path: Path) -> None:
    """As `gptwo eval gpt2` leaves one; pairs come with their reasons."""
    runs = [tmp_path / "x", tmp_path / "y"]
    for run, right in zip(runs, ("1100110", "1110111"), strict=True):
        nq(run, right)
    found = compare(runs)
    assert [row["metric"] for row in found.pairs[0]["rows"]] == ["exact_match"]
    page = html.parse(str(write_comparison(found, tmp_path / "page.html"))).getroot()
    assert [section.get("id") for section in page.xpath("//section")] == ["pairs", "paper"]
    assert not page.xpath('//p[@class="note"]')
    both = compare([made, runs[0]])
    page = html.parse(str(write_comparison(both, tmp_path / "both.html"))).getroot()
    ids = [section.get("id") for section in page.xpath("//section")]
    assert ids == ["curves", "results", "settings", "pairs", "paper"]
    assert len(page.xpath("//@id")) == len(set(page.xpath("//@id")))
    assert "They have no task in common" in page.text_content()


@pytest.mark.parametrize("text", ["", "[]", '{"table": 3}', '{"table": [{"task": "x"}]}'])
def test_damaged_overlap_is_a_note(run: Path, text: str) -> None:
    (run / "overlap/overlap.json").write_text(text)
    notes: list[str] = []
    scored = read_scored(run, 0, "", "made", notes)
    assert scored.overlap == {} and len(notes) == 1 and "Damaged" in notes[0]
    assert figures([scored])[4][1][0].run == "gptwo overlap RUN --data DIR"


def test_the_numbers_file_has_a_source_for_everything() -> None:
    known = published()
    assert set(known["sources"]["where"]) == set(known["paper"]) == set(known["protocols"])
    for entry in known["reproductions"]:
        assert entry["source"] and entry["protocol"] and entry["values"]
        assert set(entry["values"]) <= {size["weights"] for size in known["sizes"].values()}
