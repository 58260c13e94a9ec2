"""The choice under a budget, with made-up machines and with this one."""

from dataclasses import replace

import pytest

from gptwo.errors import DataError, UsageError
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.training import budget
from gptwo.training.budget import choose
from gptwo.training.speed import flops_per_token
from gptwo.world import World, here


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine of 100 GFLOP/s that trains in no time; lists the shapes it was asked about."""
    asked: list[str] = []

    def measure(shape: GPT2Config, world: World, seconds: float) -> float:
        asked.append(next(n for n, s in SIZES.items() if replace(s, vocab_size=4096) == shape))
        return 100e9 / flops_per_token(shape)

    monkeypatch.setattr(budget, "measure", measure)
    return asked


def chosen(seconds: float, corpus_tokens: int = 10**9) -> budget.Choice:
    return choose(seconds, 4096, corpus_tokens, World())


def test_more_time_buys_a_larger_model(machine: list[str]) -> None:
    names = [chosen(seconds).size for seconds in (1, 600, 6_000, 60_000, 600_000)]
    order = list(SIZES)
    assert [order.index(name) for name in names] == sorted(order.index(name) for name in names)
    assert names[0] == "femto" and len(set(names)) >= 4


def test_a_size_that_was_named_is_kept(machine: list[str]) -> None:
    choice = choose(6_000, 4096, 10**9, World(), size="nano")
    assert choice.size == "nano" and machine == ["nano"]
    rate = choice.measured["tokens_per_second"]["nano"]
    assert 4_000 < choice.training.steps * choice.training.batch_tokens / rate <= 6_000


def test_the_choice_keeps_its_rules(machine: list[str]) -> None:
    choice = chosen(6_000)
    tokens = choice.training.steps * choice.training.batch_tokens
    rate = choice.measured["tokens_per_second"][choice.size]
    assert tokens >= 20 * choice.model.parameters() * 0.99
    assert tokens / rate <= 6_000
    assert choice.training.batch_tokens % choice.model.n_ctx == 0
    assert 500 <= choice.training.steps <= 4_000
    assert choice.model.vocab_size == 4096
    assert choice.size in choice.sentence and "tokens per second" in choice.sentence
    assert "tiny" not in machine  # once a size is too large, larger ones are not tried


def test_a_small_corpus_is_not_read_over_and_over(machine: list[str]) -> None:
    choice = chosen(60_000, corpus_tokens=1_000_000)
    assert choice.training.steps * choice.training.batch_tokens <= 6_000_000
    assert choice.size == "femto"


def test_no_time_and_no_text_are_refused(machine: list[str]) -> None:
    with pytest.raises(UsageError):
        chosen(0)
    with pytest.raises(DataError):
        chosen(60, corpus_tokens=0)


def test_smaller_models_learn_faster() -> None:
    rates = [budget.rate_for(shape) for shape in SIZES.values()]
    assert rates == sorted(rates, reverse=True)
    assert budget.rate_for(SIZES["small"]) == pytest.approx(6e-4)


def test_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real steps, a moment of them."""
    monkeypatch.setattr(budget, "MEASURING_SECONDS", 0.5)
    monkeypatch.setattr(budget, "SIZES", {name: SIZES[name] for name in ("femto", "nano", "xl")})
    choice = choose(30.0, 300, 5_000_000, here())
    assert choice.size in ("femto", "nano")
    assert choice.measured["tokens_per_second"]["femto"] > 0
