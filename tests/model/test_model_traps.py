"""Traps of other implementations that no other file here is about.

Elsewhere: the number of normalisations, the tanh GELU, the starting weights and the head that is
the embedding in test_model_gpt2.py; positions, the cache and left padding in
test_model_decoding.py; transposed maps in test_model_transformers.py; the padding rows of a
vocabulary where ids are drawn and scored, tests/text and tests/zeroshot.
"""

import math
from dataclasses import replace

import pytest
import torch
from made_model import TINY, largest_difference, made, random_ids

from gptwo.model.gpt2 import GPT2, KeyValueCache, left_padded
from gptwo.model.sizes import SIZES
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import adamw


def test_the_variance_of_a_normalisation_is_the_biased_one() -> None:
    """Divided by C, not C - 1; epsilon inside the root. With 8 channels both would show."""
    norm = made(replace(TINY, n_embd=8)).h[0].ln_1
    x = torch.randn(5, 8) * 0.01  # small, so that epsilon shows as well
    centred = x - x.mean(-1, keepdim=True)
    with torch.no_grad():
        root = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        assert largest_difference(norm(x), centred / root * norm.weight + norm.bias) <= 1e-6
        unbiased = (x.var(-1, keepdim=True) + 1e-5).sqrt()
        assert largest_difference(norm(x), centred / unbiased * norm.weight + norm.bias) > 1e-3
        outside = centred.square().mean(-1, keepdim=True).sqrt() + 1e-5
        assert largest_difference(norm(x), centred / outside * norm.weight + norm.bias) > 1e-3


def test_a_tied_head_has_one_gradient() -> None:
    """That of the embedding as input plus that as output, as two separate matrices would have."""
    tied, untied = made(), GPT2(replace(TINY, tied_head=False))
    untied.load_state_dict({**tied.state_dict(), "lm_head.weight": tied.wte.weight})
    assert len(list(untied.parameters())) == len(list(tied.parameters())) + 1
    ids = random_ids(TINY)
    for model in (tied, untied):
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
    parts = untied.wte.weight.grad, untied.lm_head.weight.grad
    assert all(float(part.norm()) > 0.01 for part in parts)  # type: ignore[union-attr]
    assert largest_difference(tied.wte.weight.grad, sum(parts)) <= 1e-6  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_masks_give_numbers_in_half_precision(dtype: torch.dtype) -> None:
    """A mask that subtracts 1e10 overflows float16; one of -inf gives no number to padding.

    Scores in the thousands under the causal mask, with a cache, and in a left-padded batch with a
    row that is all padding.
    """
    model, ids = made(), random_ids(TINY, batch=3, length=10)
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight.mul_(60)
    model = model.to(dtype)
    padding = torch.tensor([0, 4, 10])
    caches = [KeyValueCache(TINY, 3, 10, dtype=dtype) for _ in range(2)]
    with torch.no_grad():
        whole = model(ids)
        parts = [model(part, cache=caches[0]) for part in ids.split([6, 4], dim=1)]
        padded = []
        for part in ids.split([6, 4], dim=1):
            positions, mask = left_padded(padding, part.size(1), caches[1].length)
            padded.append(model(part, cache=caches[1], positions=positions, mask=mask))
    with torch.no_grad():
        q, k, _ = model.h[0].attn.c_attn(model.h[0].ln_1(model.wte(ids))).float().split(32, dim=2)
    assert float((q[..., :16] @ k[..., :16].mT).max() / math.sqrt(16)) > 1_000
    for logits in (whole, *parts, *padded):
        assert torch.isfinite(logits).all()
        assert logits.dtype == dtype


def test_only_matrices_decay() -> None:
    """Embeddings, positions, maps and a head of its own; no bias and no gain. The head once."""
    for tied_head in (True, False):
        model = made(replace(TINY, tied_head=tied_head))
        names = {parameter: name for name, parameter in model.named_parameters()}
        decayed, left = adamw(model, TrainingConfig(weight_decay=0.1)).param_groups
        assert (decayed["weight_decay"], left["weight_decay"]) == (0.1, 0.0)
        decays = sorted(names[parameter] for parameter in decayed["params"])
        maps = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        expected = [f"h.{layer}.{name}.weight" for layer in range(2) for name in maps]
        expected += ["wte.weight", "wpe.weight"] + ["lm_head.weight"] * (not tied_head)
        assert decays == sorted(expected)
        assert len(decays) + len(left["params"]) == len(names)


def test_a_new_model_of_the_released_vocabulary_starts_near_its_logarithm() -> None:
    """ln 50,257 = 10.82; what starts far above has a head or a scale that is wrong."""
    torch.manual_seed(0)
    model = GPT2(SIZES["femto"]).eval()
    ids = random_ids(model.config, batch=2, length=256)
    with torch.no_grad():
        assert 10.8 <= float(model.loss(ids[:, :-1], ids[:, 1:])) <= 11.0
