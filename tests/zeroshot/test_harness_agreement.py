"""Harness mode equals lm-evaluation-harness 0.4.13, run beside it on parts of the real files."""

import importlib.util
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from gptwo.errors import DataError, UsageError
from gptwo.language_model import load
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import save_checkpoint_model
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot import harness
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.log import read_samples
from gptwo.zeroshot.run import evaluate
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import hellaswag, lambada, nq, wikitext2, wsc273

FAVOURITE = " the"  # the word that the models here write most
LIMITS = {"lambada": 20, "wikitext2": 2, "wsc273": 30, "hellaswag": 12, "nq": 4}


@pytest.fixture(scope="module")
def agreement() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "agreement.py"
    spec = importlib.util.spec_from_file_location("benchmark_agreement", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def saved(folder: Path, data: Path, n_ctx: int) -> Path:
    """A random model of GPT-2's vocabulary that likes one word, where and when its noise allows."""
    tokenizer = Tokenizer.load(data / "bpe")
    (favourite,) = tokenizer.encode(FAVOURITE)
    torch.manual_seed(3)
    model = GPT2(GPT2Config(n_layer=2, n_head=2, n_embd=32, n_ctx=n_ctx, wpe_std=0.1))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
        model.ln_f.bias.normal_()
        model.wte.weight[favourite] = model.ln_f.bias * 0.2
    save_checkpoint_model(model, folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def models(
    agreement: ModuleType, data_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], tuple[Any, Any]]:
    """One model as we and as the harness open it, with a context of so many tokens."""
    made: dict[int, tuple[Any, Any]] = {}

    def opened(n_ctx: int) -> tuple[Any, Any]:
        if n_ctx not in made:
            folder = saved(tmp_path_factory.mktemp("model"), data_dir, n_ctx)
            options = {"device": "cpu", "batch_size": 2, "dtype": "float32"}
            made[n_ctx] = load(folder), agreement.HFLM(pretrained=str(folder), **options)
        return made[n_ctx]

    return opened


@pytest.fixture
def both(
    agreement: ModuleType, models: Callable[[int], tuple[Any, Any]], data_dir: Path
) -> Callable[..., dict[str, Any]]:
    """Runs a task by us and by the harness."""

    def run(task: str, n_ctx: int = 320) -> dict[str, Any]:
        return agreement.compare(*models(n_ctx), [task], data_dir, LIMITS[task])[task]

    return run


@pytest.fixture
def easier(
    models: Callable[[int], tuple[Any, Any]],
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every second passage ends in the favourite word; every second question is answered right."""
    config = EvalConfig(mode="harness", limit=LIMITS["nq"], resamples=1)
    evaluate(models(320)[0], ["nq"], out=tmp_path, data=data_dir, config=config)
    said = [record["answer"] for record in read_samples(tmp_path / "nq.samples.jsonl.zst")]
    whole = Sources.rows

    def rows(self: Sources, file: Any, limit: int = 0) -> list[dict[str, Any]]:
        found = [dict(row) for row in whole(self, file, limit)]
        for number, row in enumerate(found[::2]):
            if file is lambada.FILE:
                row["text"] = row["text"].rpartition(" ")[0] + FAVOURITE
            if file is nq.FILE and 2 * number < len(said):
                row["answer"] = ["no", said[2 * number] + "!"]
        return found

    monkeypatch.setattr(Sources, "rows", rows)


def agree(found: dict[str, Any], *, nats: float = 1e-4) -> None:
    assert found["metrics"]
    for name, pair in found["metrics"].items():
        assert pair["gptwo"] == pytest.approx(pair["harness"], abs=1e-4, rel=1e-4), name
    assert found.get("largest_difference_nats", 0.0) <= nats
    assert found.get("answers_that_differ", 0) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("easier")
@pytest.mark.parametrize("task", ["lambada", "wsc273", "hellaswag", "nq"])
def test_both_find_the_same(both: Callable[..., dict[str, Any]], task: str) -> None:
    found = both(task)
    assert found["n"] == LIMITS[task]
    agree(found)
    for name, pair in found["metrics"].items():
        if name != "perplexity":
            assert 0 < pair["gptwo"] < 1, name  # neither all nor none: the examples tell


@pytest.mark.slow
def test_both_find_the_same_of_pages(both: Callable[..., dict[str, Any]]) -> None:
    found = both("wikitext2")
    assert set(found["metrics"]) == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
    agree(found, nats=0.05)  # of a page: the harness adds thousands of tokens in float32
    bits = found["metrics"]["bits_per_byte"]
    assert bits["gptwo"] == pytest.approx(bits["harness"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["wsc273", "hellaswag"])
def test_both_cut_a_long_context_alike(both: Callable[..., dict[str, Any]], task: str) -> None:
    agree(both(task, n_ctx=48 if task == "hellaswag" else 12))


def test_the_harness_here_is_the_one_that_is_named() -> None:
    assert f"lm-evaluation-harness {version('lm-eval')}" == harness.VERSION


def test_pages_are_those_of_the_harness_data(data_dir: Path) -> None:
    text = Sources(data_dir, None).read(wikitext2.FILE).decode("utf-8")
    pages = harness.pages(text)
    assert len(pages) == 62  # the number of rows of the data set
    assert "\n".join(pages).split() == text.split()


def test_pages_and_choices_are_spelled_as_the_harness_spells_them(
    agreement: ModuleType, data_dir: Path, tiny
) -> None:
    """All of the real examples, text for text."""
    sources = Sources(data_dir, None)
    pages = agreement.rows("wikitext2", sources)
    task = agreement.harness_task("wikitext2", pages)
    assert [harness.detokenized(p["page"]) for p in pages] == [task.doc_to_target(p) for p in pages]

    schemas = agreement.rows("wsc273", sources)
    task = agreement.harness_task("wsc273", schemas)
    for row, doc in zip(sources.rows(wsc273.FILE, 0), task.test_docs(), strict=True):
        assert task.doc_to_choice(doc) == row["context_options"]
        assert task.doc_to_target(doc) == wsc273.glue(row["continuation"]) + row["continuation"]

    questions = agreement.rows("nq", sources)[:50]
    task = agreement.harness_task("nq", questions)
    for doc in task.validation_docs():
        asked = task.fewshot_context(doc, 0)
        assert asked == harness.NQ_PROMPT.format(question=doc["question"])


def test_answers_are_compared_as_the_harness_compares_them() -> None:
    assert harness.bare_answer("The U.S. Army and a tank") == "us army and tank"
    assert harness.bare_answer("An") == "an"  # articles go before a space only


def test_a_cut_context_is_recorded(tiny, data_dir: Path) -> None:
    config = EvalConfig(mode="harness")
    bench = Bench(sources=Sources(data_dir, None), tokenizer=tiny.tokenizer, n_ctx=8, config=config)
    request, cut = harness.fitting(bench, "ten tokens", " and")
    assert len(request.context) + len(request.continuation) == 9 and cut > 0
    assert bench.tokenizer.decode(request.context) == "ten tokens"[cut:]


def test_modes_are_told_apart(tiny, data_dir: Path, tmp_path: Path) -> None:
    config = EvalConfig(mode="harness", limit=2, resamples=10)
    found = evaluate(tiny, ["wsc273", "nq"], out=tmp_path, data=data_dir, config=config)
    assert found["wsc273"].protocol["mode"] == "harness: as lm-evaluation-harness 0.4.13"
    assert set(found["wsc273"].metrics) == {"acc", "cut_contexts"} and found["wsc273"].paper == {}
    with pytest.raises(UsageError, match="other settings"):
        evaluate(tiny, ["wsc273"], out=tmp_path, data=data_dir, config=EvalConfig(limit=2))
    with pytest.raises(UsageError, match="ptb has no harness mode") as caught:
        evaluate(tiny, ["nq", "ptb"], out=tmp_path / "other", data=data_dir, config=config)
    assert "hellaswag" in str(caught.value.remedy)
    assert not (tmp_path / "other").exists()


def test_a_window_too_small_for_answers_is_refused(tiny, data_dir: Path) -> None:
    config = EvalConfig(mode="harness", limit=1)
    sources = Sources(data_dir, None)
    bench = Bench(sources=sources, tokenizer=tiny.tokenizer, n_ctx=256, config=config)
    with pytest.raises(DataError, match="256 tokens, the model sees 256"):
        harness.TASKS["nq"].data(bench)


def test_hellaswag_by_hand(tiny, data_dir: Path) -> None:
    config = EvalConfig(mode="harness", limit=1)
    bench = Bench(
        sources=Sources(data_dir, None), tokenizer=tiny.tokenizer, n_ctx=512, config=config
    )
    (example,) = harness.TASKS["hellaswag"].examples(bench)
    (row,) = bench.sources.rows(hellaswag.FILE, 1)
    context, endings = hellaswag.harness_texts(row)
    scores = Scorer(tiny.model, vocab_size=tiny.tokenizer.vocab_size).score(example.requests)
    assert [tiny.tokenizer.decode(r.context) for r in example.requests] == [context] * 4
    assert [tiny.tokenizer.decode(r.continuation) for r in example.requests] == [
        " " + ending for ending in endings
    ]
    talk = harness.TASKS["hellaswag"].solve(example, bench)
    assert next(talk) == example.requests
    with pytest.raises(StopIteration) as end:
        talk.send(scores)
    record, sums = end.value.value, [score.logprob for score in scores]
    assert record["acc"] == (sums.index(max(sums)) == int(row["label"]))
    means = [total / len(ending) for total, ending in zip(sums, endings, strict=True)]
    assert record["acc_norm"] == (means.index(max(means)) == int(row["label"]))
