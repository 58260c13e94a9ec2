"""Against transformers: the same files, the same logits, losses and gradients."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_model import SCALED, TINY, largest_difference, made, random_ids, theirs
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2LMHeadModel

from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.model.weights import WEIGHTS, load_model, read_config, save_checkpoint_model
from gptwo.training.config import TrainingConfig
from gptwo.training.optimizers.optim import adamw

# One rounding to bfloat16 is off by 2^-8 at most, relatively.
BF16 = 2.0**-8


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> GPT2LMHeadModel:
    """`folder` in transformers, attention written out, in evaluation mode."""
    return GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", dtype=dtype).eval()


def same_in_both(size: str, folder: Path) -> tuple[GPT2, GPT2LMHeadModel, Tensor]:
    """A model of a released shape, transformers' reading of its files, and four texts."""
    model = made(SCALED[size])
    save_checkpoint_model(model, folder)
    return model, opened(folder), random_ids(model.config, batch=4)


def gradients(model: GPT2 | GPT2LMHeadModel) -> Tensor:
    """All of them in one vector, in the same order for both."""
    module = model.transformer if isinstance(model, GPT2LMHeadModel) else model
    named = dict(module.named_parameters())
    return torch.cat([named[name].grad.flatten().float() for name in sorted(named)])


@pytest.mark.parametrize("size", SCALED)
def test_our_checkpoint_gives_their_logits(size: str, tmp_path: Path) -> None:
    model, other, ids = same_in_both(size, tmp_path)
    with torch.no_grad():
        logits = model(ids)
        assert largest_difference(logits, other(ids).logits) <= 1e-5
        assert float(logits.std()) > 0.3  # not equal by being nothing


@pytest.mark.parametrize("size", SCALED)
def test_their_checkpoint_gives_our_logits(size: str, tmp_path: Path) -> None:
    other = theirs(SCALED[size])
    other.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert not model.training and model.config == replace(SCALED[size], dropout=0.1)
    ids = random_ids(model.config)
    with torch.no_grad():
        assert largest_difference(model(ids), other(ids).logits) <= 1e-5


@pytest.mark.parametrize("size", SCALED)
def test_losses_and_gradients_are_theirs(size: str, tmp_path: Path) -> None:
    model, other, ids = same_in_both(size, tmp_path)
    loss, their_loss = model.loss(ids[:, :-1], ids[:, 1:]), other(ids, labels=ids).loss
    assert abs(loss.item() - their_loss.item()) <= 1e-5
    loss.backward()
    their_loss.backward()
    names = [name for name, _ in other.transformer.named_parameters()]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert largest_difference(gradients(model), gradients(other)) <= 1e-5
    assert float(gradients(model).abs().max()) > 0.01


@pytest.mark.parametrize("size", SCALED)
def test_ten_steps_of_training_are_theirs(size: str, tmp_path: Path) -> None:
    """Eleven losses with ten updates between them, each within 2e-5 of theirs."""
    model, other, ids = same_in_both(size, tmp_path)
    settings = TrainingConfig(lr=1e-3, weight_decay=0.1)
    optimizers = adamw(model, settings), adamw(other, settings)
    losses = []
    for _ in range(11):
        pair = model.loss(ids[:, :-1], ids[:, 1:]), other(ids, labels=ids).loss
        losses.append([loss.item() for loss in pair])
        for optimizer, loss in zip(optimizers, pair, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert max(abs(ours - their) for ours, their in losses) <= 2e-5
    assert losses[-1][0] < losses[0][0] - 1.0  # and it learnt something


@pytest.mark.parametrize("size", SCALED)
def test_bfloat16_is_as_near_as_its_resolution_allows(size: str, tmp_path: Path) -> None:
    """Against float32 with the same weights, and against transformers in bfloat16.

    The stream is rounded after the embedding, after each of its 2 L additions and as logits. Such
    errors, at most 2^-8 each and independent, add up to 2^-8 sqrt(2 L + 2) (root mean square,
    relative to the logits'); a gradient passes them twice; two such results differ by as much
    again. Found: half of that.
    """
    save_checkpoint_model(made(SCALED[size]).bfloat16().float(), tmp_path)
    exact, model = load_model(tmp_path), load_model(tmp_path).bfloat16()
    other, ids = opened(tmp_path, torch.bfloat16), random_ids(exact.config, batch=4)
    roundings = 2 * exact.config.n_layer + 2
    with torch.no_grad():
        right, ours, their = exact(ids), model(ids).float(), other(ids).logits.float()
    bound = BF16 * roundings**0.5
    assert (ours - right).norm() <= bound * right.norm()
    assert (ours - their).norm() <= bound * 2**0.5 * right.norm()
    losses = [m.loss(ids[:, :-1], ids[:, 1:]) for m in (exact, model)]
    losses.append(other(ids, labels=ids).loss)
    for loss in losses:
        loss.backward()
        assert loss.item() == pytest.approx(losses[0].item(), rel=BF16)
    right, ours, their = (gradients(m) for m in (exact, model, other))
    assert (ours - right).norm() <= bound * 2**0.5 * right.norm()
    assert (ours - their).norm() <= bound * 2 * right.norm()


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_the_other_activation_and_head_are_theirs(
    tmp_path: Path, activation: str, tied_head: bool
) -> None:
    """In both directions: through our files and through theirs."""
    config = replace(TINY, activation=activation, tied_head=tied_head)
    save_checkpoint_model(made(config), tmp_path / "ours")
    theirs(config).save_pretrained(tmp_path / "theirs")
    ids, found = random_ids(config), []
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        model = load_model(folder)
        assert model.config == replace(config, dropout=model.config.dropout)
        with torch.no_grad():
            found.append(model(ids))
            assert largest_difference(found[-1], opened(folder)(ids).logits) <= 1e-5
    plain = made(replace(config, activation="gelu_new" if activation == "gelu" else "gelu"))
    with torch.no_grad():
        assert largest_difference(plain(ids), found[0]) > 5e-5  # the forms differ


def test_a_map_transposed_by_mistake_shows_in_the_logits(tmp_path: Path) -> None:
    """Trap 4: attn.c_proj is square and loads either way round; only the logits tell."""
    _, other, ids = same_in_both("small", tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors["transformer.h.1.attn.c_proj.weight"].t_()
    save_file({name: x.contiguous() for name, x in tensors.items()}, tmp_path / WEIGHTS)
    with torch.no_grad():
        assert largest_difference(load_model(tmp_path)(ids), other(ids).logits) > 1e-3


def test_their_cached_decoding_is_ours(tmp_path: Path) -> None:
    model = made(SCALED["small"])
    save_checkpoint_model(model, tmp_path)
    other = opened(tmp_path)
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
