"""What the page is made of: tables, tokens, charts, words."""

import math
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lxml import etree
from made_run import MARKUP

from gptwo.report import charts, panels, words
from gptwo.report.collect import collect
from gptwo.report.pieces import packed_sample, printable_bytes
from gptwo.report.reading import columns
from gptwo.report.summary import flat, joined, validation_rows
from gptwo.report.tables import examples, excerpt


def test_examples_are_the_first_of_each_kind(made: Path) -> None:
    file = made / "corpus/dropped/part-00000.parquet"
    found = examples([file], ["stage", "reason"], ["url", "text"])
    rows = pq.read_table(file).to_pylist()
    for key, shown in found.items():
        same = [row for row in rows if (row["stage"], row["reason"]) == key]
        assert [row["url"] for row in shown] == [row["url"] for row in same][:5]
    assert MARKUP in {row["text"] for rows in found.values() for row in rows}


def test_excerpts_are_one_line_and_short() -> None:
    assert excerpt("a\n\n b") == "a b"
    assert excerpt("x" * 10_000) == "x" * 280 + " …"
    assert excerpt(None) is None and excerpt(7) == 7


def test_the_printable_alphabet_is_gpt2s() -> None:
    letters = printable_bytes()
    assert sorted(letters.values()) == list(range(256))
    known = {"Ġ": 0x20, "Ċ": 0x0A, "!": 0x21, "Ā": 0x00, "Ń": 0xAD, "ÿ": 0xFF}
    assert {letter: letters[letter] for letter in known} == known


def test_the_sample_is_the_document(made: Path) -> None:
    details = collect(made).manifests["tokens"].details
    pieces = packed_sample(made, details)
    text = pq.read_table(made / "corpus/test/part-00000.parquet")["text"][0].as_py()
    assert sum(len(piece["ids"].split()) for piece in pieces) == 160
    assert text.startswith("".join(piece["text"] for piece in pieces))
    (accented,) = [piece for piece in pieces if "é" in piece["text"]]
    assert len(accented["ids"].split()) == 2  # neither of them is a character by itself


def test_columns_leave_out_what_is_no_number() -> None:
    lines = [
        {"step": 1, "tokens": 10, "loss": 2.0, "lr": None},
        {"step": 2, "tokens": 20, "loss": math.nan, "lr": 1.0},
        {"step": "3", "loss": 1.0},
        {"step": 4, "loss": 1.5, "lr": 0.5},
        {"step": 4, "tokens": 40, "valid_loss": 1.0},
    ]
    found = columns(lines, "loss", "lr")
    assert found["step"].tolist() == [1, 4]
    assert found["loss"].tolist() == [2.0, 1.5]
    assert found["tokens"].tolist() == [10, 0]
    assert math.isnan(found["lr"][0]) and found["lr"][1] == 0.5


def test_many_validations_become_few_rows(made: Path) -> None:
    rows = validation_rows(collect(made).parts["training"], most=5)
    assert len(rows) == 5 and rows[0][0] == 50 and rows[-1][0] == 600
    assert rows[-1][3] == pytest.approx(math.exp(rows[-1][2]))


EMPTY = np.array([])
ONE = np.array([1.0])


@pytest.mark.parametrize("x", [EMPTY, ONE, np.arange(1.0, 5000.0)], ids=["none", "one", "many"])
def test_curves_of_any_length(x: np.ndarray) -> None:
    train, valid = {"step": x, "tokens": 8 * x, "loss": x}, {"tokens": 8 * x, "valid_loss": x}
    drawn = charts.loss_curves(train, valid)
    etree.fromstring(drawn)
    assert len(drawn) < 90_000
    nans = np.full(len(x), np.nan)
    etree.fromstring(charts.line("rate", x, nans, label="rate", title="Rate"))


def test_charts_take_their_colours_from_the_page() -> None:
    drawn = charts.accuracies([("$a_1$ <b>", 0.3, {"low": 0.2, "high": 0.4}, {"chance": 0.1})])
    assert not re.findall(r"#[0-9a-f]{6}\b", drawn) and "var(--second)" in drawn
    assert "font-family" not in drawn and "<metadata" not in drawn
    assert "$a_1$ &lt;b&gt;" in drawn


def test_charts_of_odd_numbers() -> None:
    etree.fromstring(charts.length_histogram(np.zeros(64, int), 10 ** (np.arange(65) / 16)))
    paper = [("117M", 124_439_808, 35.1), ("345M", 354_823_168, 15.6)]
    ours = [("A", 1000, 1e9, None), ("B", 1000, 0.0, {"low": 0.0, "high": 3.0})]
    odd = {"metric": "perplexity", "label": "", "ours": ours, "read_off": []}
    for known in (paper, []):
        series = panels.Series(paper=known, **odd)
        etree.fromstring(panels.size_panel("x", "x", [series], {"prior SOTA": 99.8}))
    nothing = {"generated": [], "true": [0.0]}
    etree.fromstring(panels.memorisation([(0, "", nothing)], median=0.026))
    etree.fromstring(charts.perplexities([("test", 30.0, None)]))


def test_thinning_keeps_the_mean() -> None:
    x = np.arange(10_000.0)
    thin_x, thin_y = charts.thinned(x, 2 * x)
    assert len(thin_x) == 600 and thin_y.mean() == pytest.approx(2 * x.mean(), rel=0.02)
    assert np.allclose(thin_y, 2 * thin_x)
    assert np.allclose(charts.smoothed(np.ones(500)), 1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (999, "999"), (8192, "8,192"), (70_500, "70.5k"), (999_999, "1M"),
     (2_615_808, "2.62M"), (1_557_611_200, "1.56B"), (0.002, "0.002"), (None, "–"),
     (math.nan, "–")],
)  # fmt: skip
def test_compact(value: float | None, shown: str) -> None:
    assert words.compact(value) == shown


def test_words() -> None:
    assert words.percent(1, 3) == "33.3%" and words.percent(0, 3) == "0%"
    assert words.percent(1, 0) == "–" and words.percent(3, 3) == "100%"
    assert words.size_of(1_500_000) == "1.5 MB" and words.size_of(12) == "12 bytes"
    assert words.metric_value("accuracy", 0.0812) == "8.1%"
    assert words.metric_value("perplexity", 8.63) == "8.63"
    assert words.metric_value("perplexity", 2345.6) == "2,346"
    assert words.metric_value("bits_per_byte", 0.97691) == "0.977"
    assert words.paper_size("gpt2-medium") == ("345M", 354_823_168)
    assert joined(["3 links", "2 pages", "1 document"]) == "3 links led to 2 pages and 1 document"
    assert flat({"a": {"b": 1, "c": ["x"]}, "d": None, "e": "y"}) == [
        ("a.b", "1"),
        ("a.c", '["x"]'),
        ("d", "null"),
        ("e", "y"),
    ]
