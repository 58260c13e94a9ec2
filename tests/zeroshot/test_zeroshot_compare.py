"""Results beside the paper's: the numbers file, row by row, and the command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptwo.cli import main
from gptwo.errors import DataError
from gptwo.language_model import released
from gptwo.model.weights import save_checkpoint_model
from gptwo.progress import Reporter
from gptwo.records import Interval, TaskResult
from gptwo.report.compare import compare
from gptwo.zeroshot.compare import (
    beside_the_paper,
    compare_with_paper,
    nearest_size,
    table,
    tasks_of_the_paper,
)
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.run import TASKS, evaluate, published

SMALL = 124_439_808


def result(task: str, metrics: dict[str, tuple[float, float, float]], **more: Any) -> TaskResult:
    return TaskResult(
        task=task,
        metrics={name: value[0] for name, value in metrics.items()},
        intervals={name: Interval(low=v[1], high=v[2]) for name, v in metrics.items()},
        n=more.pop("n", 5153),
        protocol=more.pop("protocol", {"limit": "all passages"}),
        data={},
        model={"weights_sha256": "1b", "parameters": SMALL},
    )


def test_the_papers_tables_to_the_digit() -> None:
    """Table 3 and 4 and the sections, typed again from the paper."""
    paper = published()["paper"]
    rows = {
        "prior SOTA": (99.8, 59.23, 85.7, 82.3, 39.14, 46.54, 0.99, 1.08, 18.3, 21.8),
        "117M": (35.13, 45.99, 87.65, 83.4, 29.41, 65.85, 1.16, 1.17, 37.50, 75.20),
        "345M": (15.60, 55.48, 92.35, 87.1, 22.76, 47.33, 1.01, 1.06, 26.37, 55.72),
        "762M": (10.87, 60.12, 93.45, 88.0, 19.93, 40.31, 0.97, 1.02, 22.05, 44.575),
        "1542M": (8.63, 63.24, 93.30, 89.05, 18.34, 35.76, 0.93, 0.98, 17.48, 42.16),
    }
    for size, values in rows.items():
        found = (
            paper["lambada"][size]["perplexity"],
            100 * paper["lambada"][size]["filtered_accuracy"],
            100 * paper["cbt-cn"][size]["accuracy"],
            100 * paper["cbt-ne"][size]["accuracy"],
            paper["wikitext2"][size]["perplexity"],
            paper["ptb"][size]["perplexity"],
            paper["enwik8"][size]["bits_per_byte"],
            paper["text8"][size]["bits_per_character"],
            paper["wikitext103"][size]["perplexity"],
            paper["1bw"][size]["perplexity"],
        )
        assert found == pytest.approx(values, abs=1e-9), size
    summaries = {
        "Bottom-Up": (41.22, 18.68, 38.34, 32.75),
        "Lede-3": (40.38, 17.66, 36.62, 31.55),
        "Seq2Seq+Attn": (31.33, 11.81, 28.83, 23.99),
        "1542M": (29.34, 8.27, 26.58, 21.40),
        "Random-3": (28.78, 8.63, 25.52, 20.98),
        "1542M no hint": (21.58, 4.03, 19.47, 15.03),
    }
    assert {k: tuple(v.values()) for k, v in paper["cnn-dailymail"].items()} == summaries
    largest = {t: paper[t]["1542M"] for t in ("wsc273", "coqa", "wmt14-en-fr", "wmt14-fr-en", "nq")}
    assert largest == {
        "wsc273": {"partial_accuracy": 0.707},
        "coqa": {"f1": 0.55},
        "wmt14-en-fr": {"bleu": 5.0},
        "wmt14-fr-en": {"bleu": 11.5},
        "nq": {"exact_match": 0.041, "top_1_percent_accuracy": 0.631},
    }
    overlap = published()["overlap"]
    sets = ("ptb", "wikitext2", "enwik8", "text8", "wikitext103", "1bw")
    assert [overlap["own training split"][s] for s in sets] == [
        0.0267, 0.0066, 0.0750, 0.0234, 0.0909, 0.1319,
    ]  # fmt: skip
    assert [overlap["WebText"][s] for s in sets] == [
        0.0088, 0.0163, 0.0631, 0.0394, 0.0242, 0.0375,
    ]  # fmt: skip


def test_reproductions_by_others() -> None:
    """A number of each source, and that every task and size is known."""
    known = published()["reproductions"]

    def values(task: str, words: str) -> Any:
        (found,) = [e["values"] for e in known if e["task"] == task and words in e["protocol"]]
        return found

    harness = values("wikitext2", "lm-evaluation-harness")["124M"]
    assert harness == {"perplexity": 37.3698, "bits_per_byte": 0.9769, "byte_perplexity": 1.9682}
    assert values("lambada", "lm-evaluation-harness")["1558M"]["perplexity"] == 10.634
    assert values("lambada", "CORE-style")["774M"] == {"accuracy": 0.488}
    assert values("lambada", "stop-word filter at every token")["124M"] == {
        "filtered_accuracy": 0.4198
    }
    assert values("hellaswag", "acc_norm")["1558M"]["harness_accuracy_per_character"] == 0.5089
    assert values("coqa", "official scorer") == {"1558M": {"f1": 0.287}}
    assert values("ptb", "per token and per word")["124M"]["perplexity"] == 79.65
    assert values("openwebtext", "validation")["355M"] == {"valid_loss": 2.84}
    assert values("wikitext103", "stride 32")["124M"] == {"raw_perplexity": 37.50}
    assert len(known) >= 37


def test_the_sizes_are_the_released_models() -> None:
    for label, size in published()["sizes"].items():
        model = released()[size["released"]]
        assert model.files["model.safetensors"].sha256 == size["weights_sha256"], label
    assert set(tasks_of_the_paper()) <= set(TASKS)


def test_a_row_says_what_differs_and_why() -> None:
    results = {
        "lambada": result(
            "lambada", {"perplexity": (40.06, 38.0, 42.0), "filtered_accuracy": (0.45, 0.44, 0.47)}
        ),
        "wikitext2": result(
            "wikitext2",
            {"perplexity": (30.0, 29.0, 31.0)},
            protocol={"limit": "the first 100 lines", "window": 1024, "stride": 512},
        ),
        "coqa": result("coqa", {"f1": (0.2, 0.1, 0.3)}, n=20),
    }
    found = compare_with_paper(results, SMALL, "117M")
    assert found["paper_size"] == "117M" and found["same_model"]
    assert "released weights of the paper's 117M (gpt2)" in found["note"]
    rows = {(row["task"], row["metric"]): row for row in found["rows"]}
    perplexity = rows["lambada", "perplexity"]
    assert perplexity["difference"] == pytest.approx(40.06 - 35.13)
    assert perplexity["within"] is False and (perplexity["low"], perplexity["high"]) == (38.0, 42.0)
    (other,) = perplexity["reproductions"]
    assert other["value"] == 40.055 and other["difference"] == pytest.approx(0.005)
    assert "lm-evaluation-harness" in other["protocol"]
    assert rows["lambada", "filtered_accuracy"]["within"] is True
    why = " ".join(rows["wikitext2", "perplexity"]["why"])
    assert "the first 100 lines only" in why and "512 of them new" in why and "stride of 32" in why
    assert ("coqa", "f1") not in rows  # no number for this size
    assert "cbt-cn" in found["not_run"] and "coqa" not in found["not_run"]
    largest = compare_with_paper(results, 1_557_611_200, "1542M")
    (row,) = [row for row in largest["rows"] if row["task"] == "coqa"]
    assert row["paper"] == 0.55 and "20 of the paper's 500" in " ".join(row["why"])
    lines = table(found)
    assert (
        "+4.93" in lines and "38 to 42" in lines and "not run: cbt-cn" in lines.replace(", ", " ")
    )


@pytest.mark.parametrize(
    "parameters, label",
    [(1, "117M"), (SMALL, "117M"), (210_127_000, "117M"), (210_129_000, "345M"), (10**10, "1542M")],
)
def test_another_size_stands_beside_the_nearest(parameters: int, label: str) -> None:
    """Nearest by ratio: the border of the first two is their geometric mean."""
    assert nearest_size(parameters, published()["sizes"]) == label
    found = compare_with_paper({}, parameters)
    assert found["paper_size"] == label and not found["same_model"]
    assert "is not one of the paper's" in found["note"] and f"{parameters:,}" in found["note"]


def test_missing_data_leaves_a_task_out(tmp_path: Path, tiny: Any, corpus: Path) -> None:
    """What could be scored is compared, and what could not is named; nothing at all is an error."""
    model = replace(tiny, description=tiny.description | {"parameters": 5})

    def work() -> dict[str, TaskResult]:
        return evaluate(model, ["lastword", "lambada"], out=tmp_path, corpus=corpus)

    with pytest.raises(DataError, match="no data folder"):
        beside_the_paper(model, work, tmp_path, some_missing=False)
    with pytest.raises(DataError, match="no data folder"):
        beside_the_paper(model, work, tmp_path, some_missing=True)
    (tmp_path / "lambada.json").write_text(
        json.dumps(
            {
                **vars(result("lambada", {})),
                "metrics": {"perplexity": 50.0},
                "intervals": {},
                "model": {"weights_sha256": "0" * 64},
            }
        )
    )
    found = beside_the_paper(model, work, tmp_path, some_missing=True)
    assert [row["metric"] for row in found["rows"]] == ["perplexity"]
    assert found["rows"][0]["within"] is None and "wikitext2" in found["not_run"]


def test_the_command(
    tmp_path: Path,
    tiny: Any,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Reporter, "listen", lambda self: None)
    save_checkpoint_model(tiny.model, tmp_path / "model")
    tiny.tokenizer.save(tmp_path / "model")
    words = ["eval", str(tmp_path / "model"), "wsc273", "--data", str(data_dir), "--quiet"]
    words += ["--set", "limit=4", "--compare", "paper", "--out", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["paper_size"] == "117M" and found["rows"] == []  # only 1542M has a number
    assert main(words) == 0
    assert "is not one of the paper's" in capsys.readouterr().out
    assert main([*words[:-4], "--compare", "nobody"]) == 2


def test_two_evaluated_models_are_compared_in_pairs(
    tmp_path: Path, tiny: Any, tiny_model: Any, corpus: Path
) -> None:
    """Real results of real runs through `gptwo report A B`: every metric with an interval."""
    config = EvalConfig(questions=12, documents=4, resamples=20)
    tasks = ["cloze", "lastword", "heldout"]
    other = tiny_model(vocab_size=tiny.tokenizer.vocab_size + 3, n_ctx=512, seed=5)
    second = replace(tiny, model=other, description=tiny.description | {"weights_sha256": "1" * 64})
    made = [
        evaluate(model, tasks, out=tmp_path / name / "scores", corpus=corpus, config=config)
        for name, model in (("a", tiny), ("b", second))
    ]
    (pair,) = compare([tmp_path / "a", tmp_path / "b"]).pairs
    assert not pair["refused"]
    rows = {(row["task"], row["metric"]): row for row in pair["rows"]}
    for task in tasks:
        first, later = (results[task] for results in made)
        for metric in first.intervals:
            row = rows[task, metric]
            assert row["first"] == pytest.approx(first.metrics[metric], rel=1e-6)
            assert row["second"] == pytest.approx(later.metrics[metric], rel=1e-6)
            assert row["low"] <= row["difference"] <= row["high"]
            assert row["wins"] + row["losses"] + row["ties"] == row["n"]
