"""The choice under a budget, with made-up machines and with this one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_run import Inputs

from gptwo.errors import DataError, ResourceError, UsageError
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.training.budgets import budget
from gptwo.training.budgets.budget import BUDGET, MOST_EPOCHS, choose, choose_once
from gptwo.training.budgets.pace import SHARE_FOR_STEPS
from gptwo.training.budgets.scaling import LAW
from gptwo.training.config import rate_for
from gptwo.training.loop import train
from gptwo.training.speed import flops_per_token
from gptwo.world import World, here


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine of 100 GFLOP/s that is measured in no time; lists the shapes it was asked about."""
    asked: list[str] = []

    def measure(shape: GPT2Config, world: World, seconds: float) -> float:
        plain = {name: replace(known, vocab_size=shape.vocab_size) for name, known in SIZES.items()}
        asked.append(next((name for name, known in plain.items() if known == shape), "another"))
        return 100e9 / flops_per_token(shape)

    monkeypatch.setattr(budget, "measure", measure)
    return asked


def chosen(seconds: float, corpus_tokens: int = 10**10, **more: str) -> budget.Choice:
    return choose(seconds, 4096, corpus_tokens, World(), **more)  # type: ignore[arg-type]


def test_more_time_buys_a_larger_model(machine: list[str]) -> None:
    names = [chosen(seconds).size for seconds in (10, 600, 6_000, 60_000, 600_000)]
    order = list(SIZES)
    assert [order.index(name) for name in names] == sorted(order.index(name) for name in names)
    assert names[0] == "femto" and len(set(names)) >= 3


@pytest.mark.parametrize("seconds", [60, 3_600, 86_400])
def test_no_other_size_would_end_lower(machine: list[str], seconds: float) -> None:
    choice = chosen(seconds)
    ends = {}
    for name, shape in SIZES.items():
        model = replace(shape, vocab_size=4096)
        tokens = 100e9 / flops_per_token(model) * SHARE_FOR_STEPS * (seconds - 2)
        ends[name] = LAW.loss(model.parameters(), tokens)
    assert choice.size == min(ends, key=ends.__getitem__)
    assert choice.measured["predicted_loss"][choice.size] == pytest.approx(
        ends[choice.size], abs=1e-4
    )


def test_a_size_that_was_named_is_kept(machine: list[str]) -> None:
    choice = chosen(6_000, size="nano")
    assert choice.size == "nano" and machine == ["nano"]
    rate = choice.measured["tokens_per_second"]["nano"]
    assert 5_000 < choice.training.steps * choice.training.batch_tokens / rate <= 6_000


def test_settings_that_were_named_are_kept_and_measured(machine: list[str]) -> None:
    wanted = ("training.seed=3", "training.batch_tokens=16384", "model.n_layer=1")
    choice = chosen(6_000, size="nano", settings=wanted)  # type: ignore[arg-type]
    assert machine == ["another"] and choice.model.n_layer == 1
    assert (choice.training.seed, choice.training.batch_tokens) == (3, 16_384)
    rate = 100e9 / flops_per_token(choice.model)
    assert choice.training.steps * 16_384 / rate == pytest.approx(6_000 * SHARE_FOR_STEPS, rel=0.01)


def test_the_choice_keeps_its_rules(machine: list[str]) -> None:
    choice = chosen(6_000)
    tokens = choice.training.steps * choice.training.batch_tokens
    rate = choice.measured["tokens_per_second"][choice.size]
    assert 0.9 * 6_000 <= tokens / rate <= 6_000
    assert 5_990 < choice.seconds <= 6_000
    assert choice.training.batch_tokens % choice.model.n_ctx == 0
    assert 500 <= choice.training.steps <= 4_000
    assert choice.model.vocab_size == 4096
    assert choice.size in choice.sentence and "tokens per second" in choice.sentence
    assert "xl" not in machine  # once a size would end higher, larger ones are not tried


def test_a_small_corpus_is_not_read_over_and_over(machine: list[str]) -> None:
    """It says so, and the time to be kept to is the one that is needed."""
    choice = chosen(60_000, corpus_tokens=1_000_000, size="femto")
    tokens = choice.training.steps * choice.training.batch_tokens
    assert 0.99 * MOST_EPOCHS * 1_000_000 <= tokens <= MOST_EPOCHS * 1_000_000
    assert choice.seconds < 1_000 and "the most there is use for" in choice.sentence


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        ({"seconds": 0}, UsageError, "is no time"),
        ({"seconds": -5}, UsageError, "is no time"),
        ({"seconds": float("inf")}, UsageError, "is no time"),
        ({"seconds": 0.5}, UsageError, "too short for one step"),
        ({"size": "huge"}, UsageError, "unknown size 'huge'"),
        ({"settings": ("training.steps=5",)}, UsageError, r"training\.steps is chosen by"),
        ({"settings": ("model.vocab_size=5",)}, UsageError, "by the tokenizer"),
        ({"settings": ("training.lr=0",)}, UsageError, "lr must be"),
        ({"corpus_tokens": 0}, DataError, "the training split has 0 tokens"),
        ({"corpus_tokens": 256}, DataError, "one context takes 257"),
        ({"world": World(size=2)}, UsageError, "kept by one process"),
        (
            {"size": "xl", "settings": ("model.n_layer=5000",)},
            ResourceError,
            r"takes about 49[0-9.]+ GB",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(
    machine: list[str], arguments: dict, error: type[Exception], what: str
) -> None:
    usual = {"seconds": 60.0, "corpus_tokens": 10**8, "world": World()} | arguments
    with pytest.raises(error, match=what):
        choose(usual.pop("seconds"), 4096, usual.pop("corpus_tokens"), usual.pop("world"), **usual)


def test_smaller_models_learn_faster() -> None:
    rates = [rate_for(shape) for shape in SIZES.values()]
    assert rates == sorted(rates, reverse=True)
    assert rate_for(SIZES["small"]) == pytest.approx(6e-4)


@pytest.fixture
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = replace(SIZES["femto"], n_ctx=16, n_embd=16)
    monkeypatch.setattr(budget, "SIZES", {"femto": smaller})


def test_a_choice_is_made_once(
    inputs: Inputs, tmp_path: Path, tiny_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real steps, a moment of them; then the same again without measuring."""
    run = tmp_path / "run"
    first = choose_once(run, 60.0, tokens=inputs.tokens, world=here(threads=1))
    assert first.measured["tokens_per_second"]["femto"] > 0
    monkeypatch.setattr(budget, "measure", lambda *_: pytest.fail("measured again"))
    assert choose_once(run, 60.0, tokens=inputs.tokens, world=World()) == first
    assert json.loads((run / BUDGET).read_text())["choice"]["size"] == "femto"
    with pytest.raises(UsageError, match=r"seconds: 60\.0 -> 3\.0"):
        choose_once(run, 3.0, tokens=inputs.tokens, world=World())
    with pytest.raises(UsageError, match="settings: "):
        choose_once(run, 60.0, tokens=inputs.tokens, world=World(), settings=("training.seed=1",))


def test_a_folder_of_other_files_is_left_alone(inputs: Inputs, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        choose_once(tmp_path, 60.0, tokens=inputs.tokens, world=World())
    assert not (tmp_path / BUDGET).exists()


def test_a_choice_can_be_trained(
    inputs: Inputs, tmp_path: Path, tiny_sizes: None, machine: list[str]
) -> None:
    run = tmp_path / "run"
    choice = choose_once(
        run,
        2.2,
        tokens=inputs.tokens,
        world=World(),
        size="femto",
        settings=("training.batch_tokens=64", "training.validation_tokens=64"),
    )
    training = replace(choice.training, steps=3)
    last = train(training, choice.model, out=run, world=World(), **inputs._asdict())
    assert last.name == "step-00000003"
