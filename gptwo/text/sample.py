"""Choosing the next id from logits: temperature, then top-k, then top-p, then one draw."""

import torch
from torch import Tensor

from gptwo.text.config import SampleConfig

SMALLEST_TEMPERATURE = 1e-30  # what is below overflows float32, and is greedy just as well


def next_id(logits: Tensor, config: SampleConfig, generator: torch.Generator) -> int:
    """logits (V) -> one id. At temperature 0 the most probable (the smallest id of a tie)."""
    if config.temperature == 0:
        return int(logits.argmax())
    probabilities = distribution(logits, config)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def distribution(logits: Tensor, config: SampleConfig) -> Tensor:
    """logits (V) -> the probabilities (V) that are drawn from."""
    logits = logits.float() / max(config.temperature, SMALLEST_TEMPERATURE)
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1.0:
        logits = keep_top_p(logits, config.top_p)
    return torch.softmax(logits, dim=-1)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest (and ties with the k-th) become impossible."""
    threshold = torch.topk(logits, min(k, logits.size(-1))).values[-1]
    return logits.masked_fill(logits < threshold, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The nucleus: the most probable ids up to and including the one that reaches p.

    (The released sampler leaves the crossing id out.)
    """
    ordered, order = torch.sort(logits, descending=True, stable=True)
    probabilities = torch.softmax(ordered, dim=-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(dropped, float("-inf"))
