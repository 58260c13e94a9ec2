"""One draw: temperature, top-k, top-p, worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.text.config import SampleConfig
from gptwo.text.sample import adjusted, distribution, keep_top_k, keep_top_p, next_id

SCORES = torch.tensor([1.0, 3.0, 2.0, 3.0, 0.0])


def kept(logits: torch.Tensor) -> list[int]:
    return torch.isfinite(logits).nonzero()[:, 0].tolist()


def drawn(logits: torch.Tensor, config: SampleConfig, n: int = 400) -> set[int]:
    source = torch.Generator().manual_seed(0)
    return {next_id(logits, config, source) for _ in range(n)}


@pytest.mark.parametrize(
    "k, expected",
    [(1, [1, 3]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4])],
)
def test_top_k_keeps_ties_with_the_kth(k: int, expected: list[int]) -> None:
    assert kept(keep_top_k(SCORES, k)) == expected
    assert drawn(SCORES, SampleConfig(top_k=k)) == set(expected)


def test_a_top_k_past_the_vocabulary_keeps_all() -> None:
    assert kept(keep_top_k(SCORES, 99)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "p, expected",
    [
        (0.01, [2]),
        (0.5, [2]),
        (0.51, [1, 2]),
        (0.8, [1, 2]),
        (0.81, [0, 1, 2]),
        (0.99, [0, 1, 2, 3]),
    ],
)
def test_top_p_keeps_the_token_that_crosses(p: float, expected: list[int]) -> None:
    """Probabilities .15 .3 .5 .05: the released sampler would drop the crossing one."""
    logits = torch.tensor([0.15, 0.3, 0.5, 0.05]).log()
    assert kept(keep_top_p(logits, p)) == expected
    assert drawn(logits, SampleConfig(top_p=p), 600) == set(expected)


def test_temperature_divides_the_scores() -> None:
    for temperature in (0.25, 1.0, 3.0):
        found = distribution(SCORES, SampleConfig(temperature=temperature))
        weights = [math.exp(score / temperature) for score in SCORES.tolist()]
        assert found.tolist() == pytest.approx([w / sum(weights) for w in weights], rel=1e-5)


def test_temperature_then_top_k_then_top_p() -> None:
    """At temperature 2 the two best have .62 of the kept three: with p = .7 all three stay."""
    logits = torch.tensor([4.0, 2.0, 0.0, -2.0])
    config = SampleConfig(temperature=2.0, top_k=3, top_p=0.7)
    found = distribution(logits, config)
    weights = [math.e**2, math.e, 0.0, 0.0]
    assert found.tolist() == pytest.approx([w / sum(weights) for w in weights], abs=1e-6)


def test_temperature_zero_takes_the_best_and_the_smallest_id_of_a_tie() -> None:
    assert drawn(SCORES, SampleConfig(temperature=0)) == {1}


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-45, 1e-320])
def test_a_tiny_temperature_is_nearly_greedy(temperature: float) -> None:
    logits = torch.tensor([-90.0, 88.0, 87.0, 89.0])
    assert drawn(logits, SampleConfig(temperature=temperature), 20) == {3}
    assert drawn(SCORES, SampleConfig(temperature=temperature)) == {1, 3}


def test_draws_follow_the_distribution() -> None:
    config = SampleConfig(temperature=1.5)
    expected = distribution(SCORES, config)
    source, counts = torch.Generator().manual_seed(1), torch.zeros(5)
    for _ in range(4000):
        counts[next_id(SCORES, config, source)] += 1
    assert torch.allclose(counts / 4000, expected, atol=0.03)


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12),
    k=st.integers(0, 14),
    p=st.floats(0.01, 1.0),
    temperature=st.floats(0.05, 5.0),
)
def test_any_settings_leave_a_distribution(
    scores: list[float], k: int, p: float, temperature: float
) -> None:
    config = SampleConfig(temperature=temperature, top_k=k, top_p=p)
    logits = torch.tensor(scores)
    found = distribution(logits, config)
    assert torch.isfinite(found).all() and float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float(found[logits.argmax()]) > 0
    positive = int((found > 0).sum())
    if k:
        ties = int((logits >= logits.sort(descending=True).values[min(k, len(scores)) - 1]).sum())
        assert positive <= ties


@pytest.mark.parametrize(
    "change, said",
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more, found nan"),
        ({"temperature": float("inf")}, "temperature must be 0 or more, found inf"),
        ({"top_k": -1}, "top_k must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.1}, "top_p must be above 0 and at most 1"),
        ({"top_p": float("nan")}, "top_p must be above 0"),
        ({"min_p": -0.1}, "min_p must be between 0 and 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be above 0"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias must be of token ids from 0 on"),
        ({"logit_bias": ((1, float("nan")),)}, "logit_bias must be of token ids"),
        ({"logprobs": -1}, "logprobs must be 0 or more"),
        ({"when_full": "never"}, "when_full must be one of slide, refuse"),
        ({"stop": ("a", "")}, "stop must not be an empty text"),
    ],
)
def test_settings_are_checked(change: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SampleConfig(**change)  # type: ignore[arg-type]


def test_min_p_keeps_what_is_near_the_best() -> None:
    logits = torch.tensor([0.5, 0.26, 0.14, 0.1]).log()
    for share, expected in [(0.0, {0, 1, 2, 3}), (0.25, {0, 1, 2}), (0.5, {0, 1}), (1.0, {0})]:
        assert drawn(logits, SampleConfig(min_p=share), 600) == expected


def test_the_repetition_penalty_is_that_of_transformers() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    torch.manual_seed(0)
    logits, seen = torch.randn(50) * 3, [3, 9, 9, 30]
    theirs = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([seen]), logits[None].clone())[0]
    assert torch.equal(adjusted(logits, SampleConfig(repetition_penalty=1.7), seen), theirs)
    assert torch.equal(adjusted(logits, SampleConfig(repetition_penalty=1.7), []), logits)


def test_a_bias_forbids_and_forces() -> None:
    config = SampleConfig(logit_bias=((1, -100.0), (3, -100.0)))
    assert drawn(SCORES, config) == {0, 2, 4}
    assert drawn(SCORES, SampleConfig(temperature=0, logit_bias=((4, 50.0),))) == {4}


def released(logits: list[float], k: int, p: float) -> list[float]:
    """The rules of openai/gpt-2 src/sample.py worked out one number at a time."""
    if k:
        least = sorted(logits, reverse=True)[min(k, len(logits)) - 1]
        logits = [-1e10 if value < least else value for value in logits]
    ordered = sorted(logits, reverse=True)
    weights = [math.exp(value - ordered[0]) for value in ordered]
    total, inside = 0.0, 0
    for weight in weights:
        total += weight / sum(weights)
        inside += total <= p
    least = ordered[max(inside - 1, 0)]
    kept = [math.exp(value - ordered[0]) if value >= least else 0.0 for value in logits]
    return [value / sum(kept) for value in kept]


@pytest.mark.parametrize("k", [0, 2, 3])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.79, 0.81, 0.96])
def test_the_released_samplers_rules(k: int, p: float) -> None:
    logits = torch.tensor([0.15, 0.3, 0.5, 0.05]).log()
    config = SampleConfig(openai_compat=True, top_k=k, top_p=p)
    expected = released(logits.tolist(), k, p)
    assert distribution(logits, config).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_released_nucleus_leaves_out_the_crossing_token() -> None:
    logits = torch.tensor([0.15, 0.3, 0.5, 0.05]).log()
    assert drawn(logits, SampleConfig(openai_compat=True, top_p=0.81), 600) == {1, 2}
    assert drawn(logits, SampleConfig(openai_compat=True), 900) == {0, 1, 2, 3}
