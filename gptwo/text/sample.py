"""Choosing the next id from logits: penalty and bias, temperature, top-k, top-p, min-p, a draw."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gptwo.text.config import SampleConfig

SMALLEST_TEMPERATURE = 1e-30  # what is below overflows float32, and is greedy just as well
RELEASED_EXCLUDED = -1e10  # the logit of what the released sampler excludes


def next_id(
    logits: Tensor, config: SampleConfig, generator: torch.Generator, seen: Sequence[int] = ()
) -> int:
    """logits (V) -> one id. At temperature 0 the most probable (the smallest id of a tie).

    `seen` are the ids that the text holds so far, for the repetition penalty.
    """
    logits = adjusted(logits, config, seen)
    if config.temperature == 0:
        return int(logits.argmax())
    probabilities = distribution(logits, config)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def adjusted(logits: Tensor, config: SampleConfig, seen: Sequence[int]) -> Tensor:
    """logits (V) -> the same with the penalty for what was seen, and the biases."""
    logits = logits.float()
    if config.repetition_penalty != 1.0 and len(seen):
        logits = logits.clone()
        ids = torch.tensor(sorted({i for i in seen if i < logits.size(-1)}))
        values, penalty = logits[ids], config.repetition_penalty
        logits[ids] = torch.where(values > 0, values / penalty, values * penalty)
    if config.logit_bias:
        logits = logits.clone()
        for token, bias in config.logit_bias:
            logits[token] += bias
    return logits


def distribution(logits: Tensor, config: SampleConfig) -> Tensor:
    """logits (V) -> the probabilities (V) that are drawn from."""
    logits = logits.float() / max(config.temperature, SMALLEST_TEMPERATURE)
    if config.openai_compat:
        return _released_distribution(logits, config)
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1.0:
        logits = keep_top_p(logits, config.top_p)
    if config.min_p:
        probabilities = torch.softmax(logits, dim=-1)
        logits = logits.masked_fill(
            probabilities < config.min_p * probabilities.max(), float("-inf")
        )
    return torch.softmax(logits, dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest (and ties with the k-th) become impossible."""
    threshold = torch.topk(logits, min(k, logits.size(-1))).values[-1]
    return logits.masked_fill(logits < threshold, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus: the most probable ids up to and including the one that reaches p."""
    ordered, order = torch.sort(logits, descending=True, stable=True)
    probabilities = torch.softmax(ordered, dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    past = before >= p
    past[0] = False  # the likeliest stays, be p as small as it may
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, past)
    return logits.masked_fill(dropped, float("-inf"))


def _released_distribution(logits: Tensor, config: SampleConfig) -> Tensor:
    """As openai/gpt-2 src/sample.py: excluded logits become -1e10, and the nucleus is what sums to
    at most p, one token at least. (At p = 1 the released code loses the last tokens whenever its
    sum is rounded above 1; that is chance, and not repeated here.)"""
    if config.top_k:
        threshold = torch.topk(logits, min(config.top_k, logits.size(-1))).values[-1]
        logits = logits.masked_fill(logits < threshold, RELEASED_EXCLUDED)
    if config.top_p < 1.0:
        ordered = torch.sort(logits, descending=True).values
        sums = torch.softmax(ordered, dim=-1).cumsum(-1)
        last = max(int((sums <= config.top_p).sum()) - 1, 0)
        logits = logits.masked_fill(logits < ordered[last], RELEASED_EXCLUDED)
    return torch.softmax(logits, dim=-1)


def log_probabilities(
    logits: Tensor, token: int, most: int
) -> tuple[float, list[tuple[int, float]]]:
    """The model's own log p of `token`, and the `most` likely ids with theirs, likeliest first."""
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    best = torch.topk(logprobs, min(most, logprobs.size(-1)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return float(logprobs[token]), list(pairs)
