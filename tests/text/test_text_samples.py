"""Continuations made together: the same as alone, in any company; printed, written, conversed."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_text_model import Subject, subject

from gptwo.artifacts import read_json
from gptwo.errors import Interrupted, ModelError, UsageError
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
from gptwo.text.engine import Engine, Text
from gptwo.text.generate import generate, stream
from gptwo.text.samples import complete, converse, print_samples, seeds, write_samples

PLAIN = SampleConfig(max_tokens=20)


def said(small: Subject, prompt: str, **change: Any) -> str:
    return "".join(stream(*small, prompt, replace(PLAIN, **change)))


def ids_of(small: Subject, prompt: str, config: SampleConfig) -> list[int]:
    ids = small.tokenizer.encode(prompt)
    return list(generate(small.model, ids, config, eot=small.tokenizer.eot))


def alone(small: Subject, ids: list[int], config: SampleConfig) -> list[int]:
    """The plain loop without a cache."""
    return list(generate(small.model, ids, config, eot=small.tokenizer.eot, cached=False))


def run(engine: Engine, texts: list[Text]) -> None:
    while not all(text.finish for text in texts):
        assert engine.step()


PROMPTS = st.lists(st.integers(0, 250), max_size=31)
CONFIGS = st.builds(
    SampleConfig,
    max_tokens=st.integers(1, 40),
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.9]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    seed=st.integers(0, 9),
    openai_compat=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(asked=st.lists(st.tuples(PROMPTS, CONFIGS), min_size=1, max_size=7), rows=st.integers(1, 4))
def test_a_text_is_the_same_alone_and_in_any_company(
    asked: list[tuple[list[int], SampleConfig]], rows: int
) -> None:
    """Some wait, some share a beginning, some slide past the window while others run."""
    small = subject()
    engine = Engine(small.model, eot=small.tokenizer.eot, rows=rows)
    texts = [engine.submit(ids, config) for ids, config in asked]
    run(engine, texts)
    assert engine.running == [] and engine.step() == []
    for text, (ids, config) in zip(texts, asked, strict=True):
        assert text.ids == alone(small, ids, config)
        assert text.finish == ("length" if len(text.ids) == config.max_tokens else "stop")


def test_the_start_of_a_document_is_no_repetition(small: Subject) -> None:
    """An empty prompt is read as `eot`, which nobody said: ending is not penalised for it."""
    config = SampleConfig(max_tokens=1, temperature=0.7, top_k=5, repetition_penalty=1.3, seed=5)
    engine = Engine(small.model, eot=small.tokenizer.eot, rows=1)
    text = engine.submit([], config)
    run(engine, [text])
    assert text.ids == alone(small, [], config) == []


def test_texts_join_and_leave_between_tokens(small: Subject) -> None:
    engine = Engine(small.model, eot=small.tokenizer.eot, rows=2)
    config = replace(PLAIN, temperature=0.0)
    first, second, third = (engine.submit([40 + i], config) for i in range(3))
    assert engine.step() == [first, second]
    engine.cancel(first)
    assert engine.step() == [second, third]
    engine.cancel(third)
    run(engine, [second])
    assert second.ids == alone(small, [41], config)
    assert len(first.ids) == 1 and len(third.ids) == 1 and first.finish == ""


def test_a_shared_beginning_is_read_once(small: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    hidden = small.model.hidden

    def counted(ids: torch.Tensor, **more: Any) -> torch.Tensor:
        read.append(ids.numel())
        return hidden(ids, **more)

    monkeypatch.setattr(small.model, "hidden", counted)
    engine = Engine(small.model, eot=small.tokenizer.eot, rows=3)
    ids = list(range(60, 84))
    texts = [engine.submit(end, PLAIN) for end in (ids, ids, [*ids[:20], 7, 8])]
    engine.step()
    assert read == [24, 2, 3]  # the prompt; what differs; a token of each
    run(engine, texts)
    assert texts[2].ids == alone(small, [*ids[:20], 7, 8], PLAIN)


def test_log_probabilities_are_the_models_own(small: Subject) -> None:
    config = replace(PLAIN, temperature=0.5, top_k=3, logprobs=4, logit_bias=((65, 2.0),))
    ((_, found),) = complete(*small, [("the", config)])
    ids = small.tokenizer.encode("the")
    assert found.tokens == len(found.logprobs) > 3
    for told in found.logprobs:
        with torch.no_grad():
            scores = small.model(torch.tensor([ids]))[0, -1, : small.tokenizer.vocab_size]
        true = torch.log_softmax(scores, -1)
        assert told["logprob"] == pytest.approx(float(true[told["id"]]), abs=1e-4)
        best = [(entry["id"], entry["logprob"]) for entry in told["top"]]
        assert [i for i, _ in best] == true.topk(4).indices.tolist()
        assert [p for _, p in best] == pytest.approx(true.topk(4).values.tolist(), abs=1e-4)
        ids.append(told["id"])


def test_a_stop_text_ends_one_and_not_its_neighbours(small: Subject) -> None:
    whole = said(small, "the", temperature=0.0)
    stop = whole[2:4]
    asked = [("the", replace(PLAIN, temperature=0.0, stop=(stop,))), ("the", PLAIN)]
    found = dict(complete(*small, asked))
    assert (found[0].text, found[0].finish) == (whole[: whole.find(stop)], "stop")
    assert found[0].tokens < 20
    assert found[1].text == said(small, "the")


def test_refusals_come_before_anything_is_drawn(small: Subject) -> None:
    for prompt, change, message in [
        ("x" * 99, {}, "the prompt has 99 tokens, the model reads 32"),
        ("abc", {"when_full": "refuse", "max_tokens": 30}, "the prompt's 3 tokens and max_tokens"),
        ("abc", {"logit_bias": ((9999, 1.0),)}, "token 9999 is not in the vocabulary"),
    ]:
        with pytest.raises(UsageError, match=message):
            next(complete(*small, [("fine", PLAIN), (prompt, replace(PLAIN, **change))]))
    fits = replace(PLAIN, when_full="refuse", max_tokens=29)
    assert len(list(complete(*small, [("abc", fits)]))) == 1
    with pytest.raises(UsageError, match="token -1 is not in the vocabulary"):
        Engine(small.model, eot=small.tokenizer.eot, rows=1).submit([-1], PLAIN)


def test_a_model_of_no_numbers_is_named(small: Subject) -> None:
    with torch.no_grad():
        small.model.ln_f.bias[3] = float("nan")
    with pytest.raises(ModelError, match="not finite numbers"):
        list(complete(*small, [("a", PLAIN)]))


# Several, printed and written.


def test_each_continuation_has_a_seed_of_its_own(small: Subject) -> None:
    made = [found for _, found in complete(*small, seeds("the", PLAIN, 3))]
    assert sorted(found.seed for found in made) == [0, 1, 2]
    for found in made:
        assert found.text == said(small, "the", seed=found.seed)
    assert len({found.text for found in made}) == 3


class Listens(Reporter):
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)


def test_one_is_printed_after_its_prompt(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Listens()
    print_samples(*small, "the", PLAIN, n=1, as_json=False, reporter=reporter)
    out, err = capsys.readouterr()
    assert out == "the" + "".join(stream(*small, "the", PLAIN)) + "\n" and err == ""
    assert reporter.heard[-1].endswith("tokens/s")


def test_several_are_printed_under_their_seeds(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    print_samples(*small, "the", PLAIN, n=2, as_json=False, reporter=SILENT)
    texts = [said(small, "the", seed=seed) for seed in (0, 1)]
    expected = f"=== seed 0\nthe{texts[0]}\n=== seed 1\nthe{texts[1]}\n"
    assert capsys.readouterr().out == expected


def test_for_machines_each_is_a_line_of_json(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    print_samples(*small, "naïve 日本", PLAIN, n=3, as_json=True, reporter=SILENT)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 2]
    keys = {"prompt", "text", "seed", "tokens", "finish"}
    assert all(line.keys() == keys for line in lines)
    assert lines[0]["prompt"] == "naïve 日本"
    assert lines[0]["text"] == "".join(stream(*small, "naïve 日本", PLAIN))


@pytest.mark.parametrize("as_json", [True, False])
def test_a_prompt_that_is_no_unicode_can_be_printed(
    small: Subject, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command line hands broken bytes over as lone surrogates."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    print_samples(*small, "a\udcff", PLAIN, n=1, as_json=as_json, reporter=SILENT)
    assert "a\ufffd" in raw.getvalue().decode()


def test_printing_stops_when_asked(small: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        print_samples(*small, "the", PLAIN, n=1, as_json=False, reporter=reporter)
    assert capsys.readouterr().out == "the"


def test_nothing_is_printed_before_a_refusal(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="n must be at least 1, found 0"):
        print_samples(*small, "the", PLAIN, n=0, as_json=False, reporter=SILENT)
    with pytest.raises(UsageError, match="the prompt has 99 tokens"):
        print_samples(*small, "x" * 99, PLAIN, n=1, as_json=False, reporter=SILENT)
    assert capsys.readouterr().out == ""


def test_samples_are_written_once(small: Subject, tmp_path: Path) -> None:
    def write(**change: int) -> object:
        return write_samples(
            *small,
            ["the", ""],
            tmp_path / "out",
            replace(PLAIN, **change),
            n=2,
            inputs={"checkpoint": "abc"},
        )

    manifest = write()
    path = tmp_path / "out" / "samples.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["prompt"], line["seed"]) for line in lines] == [
        ("the", 0), ("the", 1), ("", 0), ("", 1),
    ]  # fmt: skip
    for line in lines:
        config = replace(PLAIN, seed=line["seed"])
        assert line["text"] == "".join(stream(*small, line["prompt"], config))
        assert line["tokens"] == len(ids_of(small, line["prompt"], config))
    assert read_json(tmp_path / "out" / "manifest.json")["counts"] == {"samples": 4}
    before = path.stat().st_mtime_ns
    with torch.no_grad():
        small.model.ln_f.bias.fill_(float("nan"))  # it would not survive being asked again
    assert write() == manifest and path.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="seed: 0 -> 5"):
        write(seed=5)


def test_writing_stops_when_asked(small: Subject, tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        write_samples(*small, ["the"], tmp_path / "out", PLAIN, n=1, inputs={}, reporter=reporter)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert write_samples(*small, ["the"], tmp_path / "out", PLAIN, n=1, inputs={}).counts


# Prompts in turn.


def test_a_conversation_goes_on_after_what_cannot_be_said(
    small: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = Listens()
    lines: list[Any] = ["the", KeyboardInterrupt, "x" * 99, Interrupted, "the", EOFError]

    def ask() -> str:
        line = lines.pop(0)
        if line is Interrupted:  # a signal while the next text is written
            reporter.stop_requested = True
            return "stopped"
        if isinstance(line, str):
            return line
        raise line

    converse(*small, PLAIN, ask=ask, reporter=reporter)
    first, last = said(small, "the", seed=0), said(small, "the", seed=3)
    out = capsys.readouterr().out
    assert out == f"the{first}\n\nstopped\nthe{last}\n\n"
    assert any("the prompt has 99 tokens" in line for line in reporter.heard)
    assert not reporter.stop_requested
