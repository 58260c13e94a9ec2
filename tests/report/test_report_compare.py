"""Several trainings on one page: what is overlaid, what differs, and runs that are odd."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lxml import html
from lxml.html import HtmlElement

from gptwo.artifacts import stage
from gptwo.errors import DataError, UsageError
from gptwo.report import curves
from gptwo.report.compare import compare, mark_of, seconds_at
from gptwo.report.page import write_comparison, write_report
from gptwo.report.training import events, read_training

TOKENS = 4096


def train(
    folder: Path,
    *,
    steps: int = 60,
    floor: float = 3.0,
    lr: float = 1e-3,
    tokenizer: str = "aa",
    timed: bool = True,
) -> Path:
    """A run whose losses fall to `floor`, a held-out loss at each tenth step."""
    folder.mkdir(parents=True)
    metrics, timings = [], []
    for step in range(1, steps + 1):
        line = {"step": step, "tokens": step * TOKENS}
        loss = floor + 6 * math.exp(-step / 10)
        metrics.append(line | {"loss": loss, "lr": lr, "grad_norm": 1.0})
        if step % 10 == 0:
            metrics.append(line | {"valid_loss": loss + 0.1})
        timings.append({"step": step, "seconds": 0.5, "tokens_per_second": 8192.0, "mfu": 0.4})
    for name, lines in (("metrics", metrics), *([("timings", timings)] if timed else [])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    plan = {
        "training": {"steps": steps, "lr": lr, "seed": 0},
        "model": {"n_layer": 2},
        "inputs": {"tokens": "cc" * 32, "tokenizer": tokenizer * 32},
        "parameters": 1_000_000,
        "world": {"threads": 1},
    }
    (folder / "training.json").write_text(json.dumps(plan))
    return folder


def page_of(runs: list[Path], out: Path) -> HtmlElement:
    text = write_comparison(compare(runs), out).read_text(encoding="utf-8")
    assert "<script" not in text and "http://" not in text.replace("http://www.w3.org", "")
    return html.document_fromstring(text)


def cells(page: HtmlElement, section: str) -> list[list[str]]:
    rows = page.xpath(f'//section[@id="{section}"]//tr')
    return [[" ".join(cell.text_content().split()) for cell in row] for row in rows]


def test_two_runs_beside_each_other(tmp_path: Path) -> None:
    runs = [train(tmp_path / "a"), train(tmp_path / "b", floor=2.5, lr=2e-3, steps=80)]
    page = page_of(runs, tmp_path / "page.html")
    assert [item.text_content().split() for item in page.xpath('//ol[@class="runs"]/li')] == [
        ["A", "a"],
        ["B", "b"],
    ]
    charts = [chart.get("aria-label") for chart in page.xpath('//svg[@class="chart"]')]
    assert charts == [
        "Losses against tokens",
        "Losses against steps",
        "Losses against seconds in steps",
        "learning rate against steps",
        "gradient norm before clipping against steps",
    ]
    head, first, second = cells(page, "results")
    row = dict(zip(head, second, strict=True))
    assert (row["run"], row["parameters"], row["steps"]) == ("B b", "1M", "80")
    assert row["held-out loss"] == f"{2.6 + 6 * math.exp(-8):.4f}"
    # A ends at 3.1149; B is below it for the first time at its held-out loss of step 30.
    assert row["time to 3.115"] == "15s" and row["tokens to 3.115"] == "123k"
    assert dict(zip(head, first, strict=True))["time to 3.115"] == "30s"
    assert cells(page, "settings") == [
        ["setting", "A", "B"],
        ["training.steps", "60", "80"],
        ["training.lr", "0.001", "0.002"],
    ]
    assert not page.xpath('//p[@class="note"]')


def test_the_page_is_sound(tmp_path: Path) -> None:
    runs = [train(tmp_path / f"run {i}<b>", floor=3 + i / 10) for i in range(3)]
    page = page_of(runs, tmp_path / "page.html")
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids)) and not page.xpath("//b")
    assert all(cell.get("scope") for cell in page.xpath("//th"))
    assert all(figure.xpath("./figcaption") for figure in page.xpath("//figure"))
    for section in page.xpath("//section"):
        assert page.get_element_by_id(section.get("aria-labelledby")).tag == "h2"
    chart = page.xpath('//svg[@class="chart"]')[0]
    assert [text for text in chart.xpath(".//text/text()") if text in "ABC"] == ["A", "B", "C"]
    again = tmp_path / "again.html"
    write_comparison(compare(runs), again)
    assert again.read_bytes() == (tmp_path / "page.html").read_bytes()


def test_runs_are_told_apart_by_more_than_colour() -> None:
    marks = [tuple(mark_of(place).values()) for place in range(26)]
    assert len(set(marks)) == 26
    assert len({mark_of(place)["color"] for place in range(8)}) == 8
    assert len({mark_of(place)["dashes"] for place in range(4)}) == 4


def test_one_run_and_many(tmp_path: Path) -> None:
    one = train(tmp_path / "one")
    assert cells(page_of([one], tmp_path / "1.html"), "results")[1][0] == "A one"
    many = [train(tmp_path / f"r{i}", steps=20 + i) for i in range(12)]
    page = page_of(many, tmp_path / "12.html")
    assert len(cells(page, "results")) == 13
    assert (tmp_path / "12.html").stat().st_size < 1_000_000
    with pytest.raises(UsageError, match="27 runs"):
        compare([one] * 27)


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [train(tmp_path / "x/run"), train(tmp_path / "y/run")]
    assert [run.name for run in compare(runs).runs] == ["x/run", "y/run"]


def test_other_tokenizers_are_not_compared_per_token(tmp_path: Path) -> None:
    runs = [train(tmp_path / "a"), train(tmp_path / "b", tokenizer="bb")]
    found = compare(runs)
    assert found.unit == "nats per token" and "cannot be compared" in found.notes[0]
    assert "inputs.tokenizer" in [name for name, _ in found.settings]
    for run, size in zip(runs, (400, 300), strict=True):
        with stage(run / "tokens", kind="tokens", config={}, inputs={}) as made:
            made.commit(counts={"valid": {"tokens": 100, "bytes": size}})
    found = compare(runs)
    assert found.unit == "bits per byte" and "per byte" in found.notes[0]
    last = (3.1 + 6 * math.exp(-6)) / math.log(2)
    at = found.columns.index("held-out loss")
    assert [row[at] for row in found.rows] == [f"{last / 4:.4f}", f"{last / 3:.4f}"]


def _damage(run: Path, how: str) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if how == "gone":
        path.unlink()
    elif how == "empty":
        path.write_text("")
    elif how == "half a line":
        path.write_text("".join(lines[:20]) + lines[20][:15])
    elif how == "not a number":
        bad = re.sub(r'("(?:valid_)?loss"): [\d.]+', r"\1: NaN", "".join(lines[10:]))
        path.write_text("".join(lines[:10]) + bad)
    elif how == "all nan":
        path.write_text(re.sub(r'("(?:valid_)?loss"): [\d.]+', r"\1: NaN", "".join(lines)))
    elif how == "other":
        path.write_bytes(b"<html>\xff</html>\n[1]\nnull\n{}\n" + b"[" * 100_000 + b"\n")
    elif how == "strange values":
        path.write_text('{"step": "x", "loss": 1}\n{"step": 1, "loss": "y"}\n{"step": 2}\n')
    elif how == "no timings":
        (run / "timings.jsonl").unlink()
    elif how == "no seconds":
        (run / "timings.jsonl").write_text('{"step": 1, "tokens_per_second": 5}\n')
    elif how == "plan":
        (run / "training.json").write_text("[]")
    elif how == "odd plan":
        (run / "training.json").write_text('{"training": 3, "model": null, "parameters": "x"}')
    elif how == "one step":
        path.write_text(lines[0])
    elif how == "begun":
        path.write_text('{"step": 0, "tokens": 0, "valid_loss": 9.0}\n')


DAMAGES = ("gone", "empty", "half a line", "not a number", "all nan", "other", "strange values",
           "no timings", "no seconds", "plan", "odd plan", "one step", "begun")  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_an_odd_run_is_said_and_the_other_is_shown(tmp_path: Path, how: str) -> None:
    """Never a traceback: on the page of both, and on its own."""
    runs = [train(tmp_path / "good"), train(tmp_path / "odd")]
    _damage(runs[1], how)
    page = page_of(runs, tmp_path / "page.html")
    rows = cells(page, "results")
    assert rows[1][0] == "A good" and rows[2][0] == "B odd"
    assert f"{3.1 + 6 * math.exp(-6):.4f}" in rows[1]
    notes = [note.text_content() for note in page.xpath('//p[@class="note"]')]
    if how in ("gone", "empty", "half a line", "not a number", "all nan", "other"):
        assert notes and all(note.startswith("B ") and str(tmp_path) not in note for note in notes)
    if how != "gone":
        assert write_report(runs[1]).exists()


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    good = train(tmp_path / "good")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="does not exist"):
        compare([good, tmp_path / "nowhere"])
    with pytest.raises(DataError, match="is a file"):
        compare([good, good / "metrics.jsonl"])
    with pytest.raises(DataError, match=r"no metrics\.jsonl and no result"):
        compare([tmp_path / "empty"])
    assert len(compare([good, tmp_path / "empty"]).runs) == 2


def test_time_is_that_of_the_steps() -> None:
    timings = {"step": np.array([1.0, 2, 4]), "seconds": np.array([1.0, math.nan, 3])}
    found = seconds_at({"timings": timings}, np.array([0.0, 1, 2.5, 4, 9]))
    assert found.tolist() == [0, 1, 2.5, 4, 4]
    none = {"timings": {"step": np.array([]), "seconds": np.array([])}}
    assert np.isnan(seconds_at(none, np.array([1.0]))).all()


def test_steps_that_went_wrong_are_told(made: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made, tmp_path / "run"))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    odd: list[dict[str, Any]] = [
        {"step": 601, "tokens": 1, "skipped": {"why": "loss nan", "windows": [1]}},
        {"step": 601, "tokens": 1, "rolled_back_to": 500},
        {"step": 602, "tokens": 1, "loss": 9.0, "lr": 1, "spike": {"why": "a jump", "windows": []}},
    ]
    (run / "metrics.jsonl").write_text("\n".join([*lines, *map(json.dumps, odd)]) + "\n")
    assert [(e["step"], e["kind"], e["why"]) for e in events(odd)] == [
        (601, "not applied", "loss nan"),
        (601, "rolled back", "to the weights of step 500"),
        (602, "spike, applied", "a jump"),
    ]
    page = html.parse(str(write_report(run))).getroot()
    (section,) = page.xpath('//section[@id="training"]')
    text = " ".join(section.text_content().split())
    assert "Steps that went wrong (3)" in text and "to the weights of step 500" in text
    assert "not applied: 1" in text and "rolled back: 1" in text  # the chart's legend


def test_samples_on_the_way_and_the_search_for_a_rate(made: Path) -> None:
    facts = read_training(made, [])
    assert [sample["step"] for sample in facts["watched"]] == [0, 100, 150, 250, 350, 450, 500, 600]
    assert {sample["prompt"] for sample in facts["watched"]} == {"The"}
    assert [trial["valid_loss"] for trial in facts["trials"]][4:] == [None, 3.8, 3.85]
    drawn = curves.search_for_a_rate(facts["trials"])
    assert "24 steps" in drawn and "diverged" in drawn
    assert curves.search_for_a_rate(facts["trials"][4:5])  # all diverged
