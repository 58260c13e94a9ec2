"""Against transformers: the same files, the same logits, losses and gradients."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_model import TINY, made, random_ids, theirs
from torch import Tensor
from transformers import GPT2LMHeadModel

from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import load_model, read_config, save_checkpoint_model

# The released shapes, a sixth as deep and a quarter as wide: heads of 64 channels as there.
SCALED = {
    "small": GPT2Config(vocab_size=501, n_ctx=48, n_layer=2, n_head=3, n_embd=192),
    "medium": GPT2Config(vocab_size=501, n_ctx=48, n_layer=4, n_head=4, n_embd=256),
    "large": GPT2Config(vocab_size=501, n_ctx=48, n_layer=6, n_head=5, n_embd=320),
    "xl": GPT2Config(vocab_size=501, n_ctx=48, n_layer=8, n_head=6, n_embd=384),
}
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def largest_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("size", SCALED)
def test_our_checkpoint_gives_their_logits(size: str, tmp_path: Path) -> None:
    model = made(SCALED[size])
    save_checkpoint_model(model, tmp_path)
    other = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = random_ids(model.config)
    with torch.no_grad():
        assert largest_difference(model(ids), other(ids).logits) <= 1e-5


@pytest.mark.parametrize("size", SCALED)
def test_their_checkpoint_gives_our_logits(size: str, tmp_path: Path) -> None:
    other = theirs(SCALED[size])
    other.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert not model.training and model.config == replace(SCALED[size], dropout=0.1)
    ids = random_ids(model.config)
    with torch.no_grad():
        logits = model(ids)
        assert largest_difference(logits, other(ids).logits) <= 1e-5
        assert float(logits.std()) > 0.1  # not equal by being nothing


def test_losses_and_gradients_are_theirs(tmp_path: Path) -> None:
    model = made(SCALED["medium"])
    save_checkpoint_model(model, tmp_path)
    other = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = random_ids(model.config)
    loss = model.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    their_loss = other(ids, labels=ids).loss
    their_loss.backward()
    assert abs(loss.item() - their_loss.item()) <= 1e-5
    gradients = {name: p.grad for name, p in other.transformer.named_parameters()}
    assert gradients.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        assert largest_difference(parameter.grad, gradients[name]) <= 1e-5, name


def test_their_cached_decoding_is_ours(tmp_path: Path) -> None:
    model = made(SCALED["small"])
    save_checkpoint_model(model, tmp_path)
    other = GPT2LMHeadModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids = random_ids(model.config, batch=1)
    cache, past = KeyValueCache(model.config, 1, 48), None
    with torch.no_grad():
        for part in ids[:, :29].split([20, 1, 1, 7], dim=1):
            out = other(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            assert largest_difference(model(part, cache=cache), out.logits) <= 1e-5


def test_their_files_in_half_precision_are_read_as_float32(tmp_path: Path) -> None:
    other = theirs(TINY).to(torch.bfloat16)
    other.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ids = random_ids(TINY)
    with torch.no_grad():
        assert largest_difference(model(ids), other.float()(ids).logits) <= 1e-5


def test_a_file_without_prefix_and_with_mask_buffers_is_read(tmp_path: Path) -> None:
    """As the files of the first releases: no "transformer.", masks and a copy of the head."""
    from safetensors.torch import load_file, save_file

    model = made()
    save_checkpoint_model(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): value.clone() for name, value in tensors.items()}
    for layer in range(2):
        bare[f"h.{layer}.attn.bias"] = torch.ones(24, 24).tril()[None, None]
        bare[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    save_file(bare, tmp_path / "model.safetensors")
    ids = random_ids(TINY)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids), model(ids))


def test_the_config_says_what_theirs_says(tmp_path: Path) -> None:
    theirs(TINY).save_pretrained(tmp_path / "theirs")
    save_checkpoint_model(made(), tmp_path / "ours")
    known = json.loads((tmp_path / "theirs" / "config.json").read_text())
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    ours_alone = {"n_ctx", "torch_dtype", "tie_word_embeddings"}
    dropouts = {"embd_pdrop", "attn_pdrop", "resid_pdrop"}
    for name in written.keys() - ours_alone - dropouts:
        assert written[name] == known[name], name
    assert {written[name] for name in dropouts} == {0.0}
    assert read_config(tmp_path / "ours") == TINY


def stored(value: dict[str, Any]) -> Tensor:
    raw = np.frombuffer(base64.b64decode(value["data"]), "<f4")
    return torch.from_numpy(raw.reshape(value["shape"]).copy())


def test_a_trained_model_from_elsewhere_gives_its_stored_activations(data_dir: Path) -> None:
    """minGPT's sorter of six letters: every activation its authors stored, to 1e-5.

    It keeps matrices [out, in] and has an output head of its own.
    """
    folder = data_dir / "tiny_gpt"
    weights = json.loads((folder / "gpt-nano-sort-model.json").read_text())
    partials = json.loads((folder / "gpt-nano-sort-t0-partials.json").read_text())
    model = GPT2(GPT2Config(vocab_size=3, n_ctx=11, n_layer=3, n_head=3, n_embd=48)).eval()
    tensors = {
        name.removeprefix("transformer."): stored(value)
        for name, value in weights.items()
        if name.startswith("transformer.") and not name.endswith(".attn.bias")
    }
    model.load_state_dict(
        {name: x.T if name.endswith(TRANSPOSED) else x for name, x in tensors.items()}
    )
    seen: dict[str, Tensor] = {}

    def keep(name: str, module: torch.nn.Module) -> None:
        module.register_forward_hook(lambda m, i, out: seen.__setitem__(name, out))

    first = model.h[0]
    named = {"tok_emb": model.wte, "x": model.drop, "ln1": first.ln_1, "qkv": first.attn.c_attn}
    named |= {"yProj": first.attn, "ln2": first.ln_2, "fc": first.mlp.c_fc, "mlp": first.mlp}
    named |= {f"block{i}": block for i, block in enumerate(model.h)} | {"ln_f": model.ln_f}
    for name, module in named.items():
        keep(name, module)
    ids = stored(partials["idx"]).long()
    with torch.no_grad():
        logits = model.hidden(ids) @ stored(weights["lm_head.weight"]).T
    for name, value in seen.items():
        assert largest_difference(value, stored(partials[name])) <= 1e-5, name
    assert set(seen) == set(named)
    assert largest_difference(logits, stored(partials["lm_head"])) <= 1e-5
    assert largest_difference(torch.softmax(logits, -1), stored(partials["probs"])) <= 1e-5
