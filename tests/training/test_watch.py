"""A sample at each held-out loss: the same every time, and the training does not notice."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import TINY, Inputs, content, train_small

from gptwo.model.gpt2 import GPT2
from gptwo.text.watch import SAMPLING, sampler

MODEL = replace(TINY, dropout=0.1)


def samples(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text("utf-8").splitlines()]


def test_training_is_the_same_with_samples_and_without(tmp_path: Path, inputs: Inputs) -> None:
    """With dropout, whose draws a careless sampler would take from."""
    told: list[tuple[int, str, str]] = []
    tell = sampler(
        inputs.tokenizer, tmp_path / "with", ("the sea", ""), tell=lambda *text: told.append(text)
    )
    train_small(tmp_path / "without", inputs, model=MODEL)
    train_small(tmp_path / "with", inputs, model=MODEL, at_validation=tell)
    found = content(tmp_path / "with")
    assert found.pop("samples.jsonl").endswith(b"\n")
    assert found == content(tmp_path / "without")
    lines = samples(tmp_path / "with")
    assert [(line["step"], line["prompt"]) for line in lines] == [
        (step, prompt) for step in (0, 4, 8, 10) for prompt in ("the sea", "")
    ]
    assert told == [(line["step"], "sample", line["prompt"] + line["text"]) for line in lines]
    by_step = {(line["step"], line["prompt"]): line["text"] for line in lines}
    assert all(by_step[0, prompt] != by_step[10, prompt] for prompt in ("the sea", ""))  # it learns


def test_what_is_made_again_replaces_what_was(tmp_path: Path, inputs: Inputs) -> None:
    """As after a kill: later lines and a half-written one are there when step 4 comes again."""
    torch.manual_seed(0)
    model = GPT2(replace(MODEL, vocab_size=300))
    state = torch.get_rng_state()
    sample = sampler(inputs.tokenizer, tmp_path)
    for step in (0, 4, 8):
        sample(model, step)
    whole = (tmp_path / "samples.jsonl").read_bytes()
    with (tmp_path / "samples.jsonl").open("ab") as handle:
        handle.write(b'{"step": 9, "te\xff')
    for step in (4, 8):
        sample(model, step)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole
    assert torch.equal(torch.get_rng_state(), state) and model.training


@pytest.mark.parametrize("prompt", ["", "old men told of storms " * 50, "\udcff\x00 日本"])
def test_any_prompt_fits_any_model(tmp_path: Path, inputs: Inputs, prompt: str) -> None:
    model = GPT2(replace(TINY, vocab_size=300, n_ctx=2)).eval()
    sampler(inputs.tokenizer, tmp_path, (prompt,), SAMPLING)(model, 3)
    (line,) = samples(tmp_path)
    assert line["step"] == 3 and line["tokens"] <= 2 and not model.training


def test_a_model_that_has_diverged_says_nothing(tmp_path: Path, inputs: Inputs) -> None:
    model = GPT2(replace(TINY, vocab_size=300))
    with torch.no_grad():
        model.wte.weight.fill_(float("nan"))
    sampler(inputs.tokenizer, tmp_path)(model, 1)
    assert not (tmp_path / "samples.jsonl").exists() and model.training
