"""Two runs on the same examples: matching, the statistics by hand, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gptwo.artifacts import write_json
from gptwo.report.paired import (
    Measure,
    Refused,
    bootstrap_difference,
    compare_pair,
    lines_of,
    matched,
    mcnemar,
    share_interval,
)

PROTOCOL = {"version": 1, "limit": "all questions"}


def score(
    run: Path,
    records: list[dict[str, Any]],
    metrics: dict[str, float],
    task: str = "nq",
    **more: Any,
) -> Path:
    """A result and its samples as `gptwo eval` writes them."""
    (run / "scores").mkdir(parents=True, exist_ok=True)
    result = {
        "task": task,
        "metrics": metrics,
        "intervals": {name: {"low": 0.0, "high": 1.0} for name in metrics},
        "n": len(records),
        "protocol": PROTOCOL,
        "data": {"sha256": "ab"},
        "model": {"tokenizer_fingerprint": "t"},
    }
    write_json(run / f"scores/{task}.json", result | more)
    frames = b""
    for lines in ([{"task": task, "key": "k"}], records[:3], records[3:]):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        frames += zstandard.ZstdCompressor().compress(text.encode())
    (run / f"scores/{task}.samples.jsonl.zst").write_bytes(frames)
    return run


def answers(right: str, order: list[int] | None = None) -> list[dict[str, Any]]:
    """A record for each letter of `right`, "1" for a right answer."""
    made = [
        {"question": f"q{i}", "answer": "a", "confidence": 0.5, "exact_match": bit == "1"}
        for i, bit in enumerate(right)
    ]
    return [made[i] for i in order] if order else made


def nq(run: Path, right: str, order: list[int] | None = None, **more: Any) -> Path:
    return score(run, answers(right, order), {"exact_match": right.count("1") / len(right)}, **more)


def test_shares_by_hand(tmp_path: Path) -> None:
    """Of ten questions the second wins four, loses one; in another order in its file."""
    first = nq(tmp_path / "a", "1110000000")
    second = nq(tmp_path / "b", "0111111000", order=[9, 0, 3, 1, 2, 8, 7, 6, 5, 4])
    (row,) = compare_pair(first, second)["rows"]
    assert (row["task"], row["metric"], row["n"]) == ("nq", "exact_match", 10)
    assert (row["wins"], row["losses"], row["ties"]) == (4, 1, 5)
    assert (row["first"], row["second"]) == (0.3, 0.6)
    assert row["difference"] == pytest.approx(0.3)
    assert row["p"] == pytest.approx(2 * (1 + 5) / 2**5)  # McNemar: P(at most one of five), twice
    middle, half = 3 / 12, 1.959964 * math.sqrt(6 - 9 / 12) / 12  # half an example to each
    assert (row["low"], row["high"]) == pytest.approx((middle - half, middle + half))


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    assert mcnemar(9, 1) == pytest.approx(0.021484375)  # 2 * (1 + 10) / 1024
    assert mcnemar(1, 9) == mcnemar(9, 1)


def test_the_interval_of_shares_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    for n, b, c in ((50, 0.2, 0.1), (273, 0.08, 0.05), (1000, 0.02, 0.02)):
        drawn = generator.multinomial(n, [b, c, 1 - b - c], size=2000)
        inside = [
            low <= b - c <= high for w, k, _ in drawn for low, high in [share_interval(w, k, n)]
        ]
        assert 0.94 <= np.mean(inside) <= 0.985, (n, np.mean(inside))


def test_averages_by_the_paired_bootstrap(tmp_path: Path) -> None:
    """What both find hard cancels out: the interval is that of the differences."""
    generator = np.random.default_rng(2)
    hard = generator.normal(20, 10, 400)
    gain = generator.normal(1, 2, 400)
    runs = [
        score(
            tmp_path / name,
            [{"id": i, "rouge_1": float(v)} for i, v in enumerate(values)],
            {"rouge_1": float(values.mean())},
            task="cnn-dailymail",
        )
        for name, values in (("a", hard), ("b", hard + gain))
    ]
    (row,) = compare_pair(*runs)["rows"]
    assert row["difference"] == pytest.approx(gain.mean())
    exact = 1.96 * gain.std() / 20
    assert row["high"] - row["low"] == pytest.approx(2 * exact, rel=0.15)
    assert row["wins"] == (gain > 0).sum() and row["p"] <= 0.001


def test_perplexity_is_compared_in_its_own_unit(tmp_path: Path) -> None:
    """Per word of the file, whose number the samples do not hold: 60 words in 50 tokens."""
    nats = {"a": [10.0, 30.0, 20.0, 40.0, 50.0], "b": [9.0, 29.0, 21.0, 38.0, 47.0]}
    runs = []
    for name, values in nats.items():
        records = [
            {"text": text, "tokens": 1024, "nats": v + (5 if text == "raw" else 0)}
            for text in ("detokenised", "raw")
            for v in values
        ]
        metrics = {
            "perplexity": math.exp(sum(values) / 60),
            "raw_bits_per_byte": (sum(values) + 25) / 300 / math.log(2),
        }
        runs.append(score(tmp_path / name, records, metrics, task="wikitext2"))
    rows = {row["metric"]: row for row in compare_pair(*runs)["rows"]}
    found = rows["perplexity"]
    assert found["second"] == pytest.approx(math.exp(144 / 60)) and found["n"] == 5
    assert found["difference"] == pytest.approx(math.exp(144 / 60) - math.exp(150 / 60))
    assert (found["wins"], found["losses"]) == (4, 1)  # fewer nats are better
    assert found["low"] < found["difference"] < found["high"]
    raw = rows["raw_bits_per_byte"]
    assert raw["difference"] == pytest.approx(-6 / 300 / math.log(2))


def test_windows_of_other_tokenizers_are_not_matched(tmp_path: Path) -> None:
    records = [{"text": "detokenised", "tokens": 8, "nats": 3.0}]
    a = score(tmp_path / "a", records, {"perplexity": 2.0}, task="ptb")
    b = score(
        tmp_path / "b", records, {"perplexity": 2.0}, task="ptb",
        model={"tokenizer_fingerprint": "u"},
    )  # fmt: skip
    found = compare_pair(a, b)
    assert not found["rows"] and "tokenizers differ" in found["refused"]["ptb"]


def test_turns_of_one_text_are_drawn_together(tmp_path: Path) -> None:
    runs = [
        score(
            tmp_path / name,
            [{"id": "x", "f1": [0.0, low]}, {"id": "y", "f1": [1.0, 1.0, 1.0]}],
            {"f1": (3 + low) / 5},
            task="coqa",
        )
        for name, low in (("a", 0.0), ("b", 1.0))
    ]
    (row,) = compare_pair(*runs)["rows"]
    assert row["n"] == 2 and row["difference"] == pytest.approx(0.2)
    assert (row["low"], row["high"]) == pytest.approx((0.0, 0.5))  # y twice, x twice


def test_bleu_is_that_of_the_corpus(tmp_path: Path) -> None:
    """Counts of sentences add up to sacreBLEU's own score; the interval comes from drawing them."""
    from sacrebleu.metrics.bleu import BLEU

    references = [f"the {i} old men of the harbour sold {i} boats to the mayor" for i in range(40)]
    said = {
        "a": [text.replace("boats", "ships") for text in references],
        "b": [
            text.replace("boats", "ships") if i % 2 else text for i, text in enumerate(references)
        ],
    }
    runs, scores = [], []
    for name, lines in said.items():
        scores.append(BLEU().corpus_score(lines, [references]).score)
        records = [
            {"source": str(i), "reference": r, "translation": line}
            for i, (r, line) in enumerate(zip(references, lines, strict=True))
        ]
        runs.append(score(tmp_path / name, records, {"bleu": scores[-1]}, task="wmt14-fr-en"))
    (row,) = compare_pair(*runs)["rows"]
    assert (row["first"], row["second"]) == pytest.approx(tuple(scores))
    assert (row["wins"], row["losses"], row["ties"]) == (20, 0, 20)
    assert 0 < row["low"] < row["difference"] < row["high"] and row["p"] <= 0.001


def test_parts_of_a_set(tmp_path: Path) -> None:
    def made(right: str) -> list[dict[str, Any]]:
        kinds = ("names", "names", "nouns", "nouns")
        return [
            {"query": f"{i}", "kind": kind, "right": bit == "1"}
            for i, (kind, bit) in enumerate(zip(kinds, right, strict=True))
        ]

    metrics = {"accuracy": 0.5, "names_accuracy": 0.5, "nouns_accuracy": 0.5}
    runs = [
        score(tmp_path / name, made(right), metrics, task="cloze")
        for name, right in (("a", "1010"), ("b", "1011"))
    ]
    rows = {row["metric"]: row for row in compare_pair(*runs)["rows"]}
    assert {name: (row["n"], row["wins"]) for name, row in rows.items()} == {
        "accuracy": (4, 1),
        "names_accuracy": (2, 0),
        "nouns_accuracy": (2, 1),
    }


def test_a_run_is_no_better_than_itself(tmp_path: Path) -> None:
    run = nq(tmp_path / "a", "1100110")
    (row,) = compare_pair(run, run)["rows"]
    assert row["difference"] == 0 and row["p"] == 1 and row["low"] < 0 < row["high"]
    ones = np.arange(5.0)
    same = Measure((ones, ones), np.ones(5), lambda total, n: total / n, order=(ones, ones))
    assert bootstrap_difference(same) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"protocol": PROTOCOL | {"limit": "the first 7 questions"}},
            "protocol.limit: 'all questions'",
        ),
        ({"data": {"sha256": "cd"}}, "data.sha256: 'ab' -> 'cd'"),
    ],
)
def test_other_protocols_and_data_are_refused_by_name(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    found = compare_pair(nq(tmp_path / "a", "1100110"), nq(tmp_path / "b", "1100110", **change))
    assert not found["rows"] and words in found["refused"]["nq"]
    text = lines_of([{"first": "a", "second": "b", **found}])
    assert "b against a" in text and f"nq: not compared: the runs differ in {words}" in text


def test_missing_and_damaged_samples_cost_their_task_alone(tmp_path: Path) -> None:
    a, b = (nq(tmp_path / name, "1100110") for name in "ab")
    for run in (a, b):
        nq(run, "110", task="other")
    path = b / "scores/nq.samples.jsonl.zst"
    for damage in (None, b"", path.read_bytes()[:-5], b"<html>"):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        found = compare_pair(a, b)
        assert [row["task"] for row in found["rows"]] == ["other"] and found["refused"]["nq"]
        path.touch()
    nq(b, "110011")
    assert "1 examples are in one of them alone" in compare_pair(a, b)["refused"]["nq"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_matching_does_not_depend_on_order(asked: list[int], chance: Any) -> None:
    """Questions that are the same are told apart by their order."""
    records = [{"question": f"{q}", "place": i} for i, q in enumerate(asked)]
    by_question = sorted(records, key=lambda record: record["question"])
    for one, other in matched(records, by_question):
        assert one is other
    with pytest.raises(Refused):
        matched(records, records[1:])
