"""A model trained elsewhere: minGPT's sorter of six letters, every number its authors kept.

It has an output head of its own and keeps matrices [out, in]; `gptwo.formats.mingpt` reads it.
"""

import base64
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_model import largest_difference
from torch import Tensor, nn

from gptwo.formats import mingpt
from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.model.sizes import GPT2Config

LETTERS, LENGTH = 3, 6


@pytest.fixture(scope="module")
def sorter(data_dir: Path) -> GPT2:
    weights = mingpt.read(data_dir / "tiny_gpt" / "gpt-nano-sort-model.json")
    model = GPT2(weights.config)
    model.load_state_dict(weights.tensors)
    return model.eval()


@pytest.fixture(scope="module")
def stored(data_dir: Path) -> dict[str, Tensor]:
    """The activations for three inputs, by their authors' names."""
    path = data_dir / "tiny_gpt" / "gpt-nano-sort-t0-partials.json"
    values = json.loads(path.read_text())
    return {name: tensor(value) for name, value in values.items() if name != "config"}


def tensor(value: dict[str, Any]) -> Tensor:
    raw = np.frombuffer(base64.b64decode(value["data"]), "<f4")
    return torch.from_numpy(raw.reshape(value["shape"]).copy())


def test_its_shape(sorter: GPT2) -> None:
    assert sorter.config == GPT2Config(
        vocab_size=3, n_ctx=11, n_layer=3, n_head=3, n_embd=48, tied_head=False
    )
    assert sum(p.numel() for p in sorter.parameters()) == sorter.config.parameters()


def test_every_stored_activation_is_ours(sorter: GPT2, stored: dict[str, Tensor]) -> None:
    """Those of the first block step by step, then those of the others, logits, probabilities."""
    ours: dict[str, Tensor] = {}

    def after(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda m, inputs, out: ours.__setitem__(name, out))

    def before(name: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda m, inputs: ours.__setitem__(name, inputs[0]))

    first = sorter.h[0]
    after("tok_emb", sorter.wte)
    after("pos_emb", sorter.wpe)
    after("x", sorter.drop)
    after("ln1", first.ln_1)
    after("qkv", first.attn.c_attn)
    before("y", first.attn.c_proj)
    after("yProj", first.attn)
    before("attnResid", first.ln_2)
    after("ln2", first.ln_2)
    after("fc", first.mlp.c_fc)
    before("gelu", first.mlp.c_proj)
    after("mlp", first.mlp)
    after("mlpResid", first)
    for number, block in enumerate(sorter.h):
        after(f"block{number}", block)
    after("ln_f", sorter.ln_f)
    with torch.no_grad():
        ours["lm_head"] = sorter(stored["idx"].long())
    ours["probs"] = torch.softmax(ours["lm_head"], -1)
    ours |= attention_of(ours["qkv"])
    assert ours.keys() == stored.keys() - {"idx"}
    for name, value in ours.items():
        expected = stored[name].reshape(value.shape) if name == "pos_emb" else stored[name]
        seen = torch.isfinite(value)  # the scores of the future are -inf in both
        assert torch.equal(seen, torch.isfinite(expected)), name
        assert largest_difference(value[seen], expected[seen]) <= 1e-5, name
    mixed = ours["attSm"] @ ours["v"]  # (B, H, T, D): what the fused attention did not show
    assert largest_difference(mixed.transpose(1, 2).reshape(3, 11, 48), ours["y"]) <= 1e-5


def attention_of(qkv: Tensor) -> dict[str, Tensor]:
    """Queries, keys, values, scores and weights, written out."""
    q, k, v = (part.view(3, 11, 3, 16).transpose(1, 2) for part in qkv.split(48, dim=2))
    scores = q @ k.transpose(2, 3) / math.sqrt(16)
    scores = scores.masked_fill(~torch.ones(11, 11).tril().bool(), float("-inf"))
    return {"q": q, "k": k, "v": v, "att": scores, "attSm": torch.softmax(scores, -1)}


@pytest.mark.parametrize("cached", [True, False])
def test_it_sorts(sorter: GPT2, cached: bool) -> None:
    """All 729 inputs, letter by letter: 729 come out sorted."""
    inputs = torch.tensor(list(itertools.product(range(LETTERS), repeat=LENGTH)))
    assert len(inputs) == 729
    cache = KeyValueCache(sorter.config, len(inputs), 2 * LENGTH) if cached else None
    ids = fresh = inputs
    with torch.no_grad():
        for _ in range(LENGTH):
            logits = sorter(fresh if cached else ids, cache=cache)[:, -1]
            fresh = logits.argmax(-1, keepdim=True)
            ids = torch.cat([ids, fresh], 1)
    right = (ids[:, LENGTH:] == inputs.sort(1).values).all(1)
    assert int(right.sum()) == 729
