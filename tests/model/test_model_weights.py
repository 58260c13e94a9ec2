"""Checkpoints out and in, and every file that must not be taken for one."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_model import TINY, made, random_ids
from safetensors.torch import load_file, save_file

from gptwo.artifacts import MANIFEST, stage
from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.model.weights import (
    CONFIG,
    WEIGHTS,
    load_model,
    read_config,
    resolve,
    save_checkpoint_model,
    what_is,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint_model(made(), tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, said: str) -> str:
    with pytest.raises(ModelError, match=said) as error:
        load_model(folder)
    assert error.value.exit_code == 4 and error.value.remedy
    assert "\n" not in error.value.message
    return error.value.message


def test_saved_and_loaded_it_is_the_same(folder: Path) -> None:
    model, loaded = made(), load_model(folder)
    assert loaded.config == model.config and not loaded.training
    for name, parameter in loaded.named_parameters():
        assert torch.equal(parameter, model.state_dict()[name]), name
        assert parameter.requires_grad and not parameter.is_meta
    ids = random_ids(TINY)
    loaded.loss(ids[:, :-1], ids[:, 1:]).backward()  # it can be trained on


def test_two_saves_are_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_checkpoint_model(made(), tmp_path / "again")
    for name in (CONFIG, WEIGHTS):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert set(load_file(folder / WEIGHTS)) == {
        f"transformer.{name}" for name in made().state_dict()
    }


def test_dropout_comes_back(tmp_path: Path) -> None:
    config = replace(TINY, dropout=0.1)
    save_checkpoint_model(GPT2(config), tmp_path)
    assert load_model(tmp_path).config == config


# Finding the folder.


def test_a_run_is_its_newest_finished_checkpoint(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        checkpoint = tmp_path / "checkpoints" / f"step-{step:08d}"
        with stage(checkpoint, kind="checkpoint", config={}, inputs={}) as made_folder:
            save_checkpoint_model(made(seed=step), checkpoint)
            made_folder.commit(counts={})
    save_checkpoint_model(made(), tmp_path / "checkpoints" / "step-00000011")  # not finished
    assert resolve(tmp_path).name == "step-00000010"
    assert torch.equal(load_model(tmp_path).wte.weight, made(seed=10).wte.weight)


def test_what_is_no_folder_with_a_model_is_named(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere does not exist")
    refused(tmp_path, "holds neither config.json nor a finished checkpoint")
    refused(folder / WEIGHTS, "is a safetensors file, expected a folder")
    refused(folder / CONFIG, "expected a folder")


# Damage that a manifest shows.


def test_a_flipped_bit_is_found_by_its_hash(tmp_path: Path) -> None:
    with stage(tmp_path / "m", kind="checkpoint", config={}, inputs={}) as made_folder:
        save_checkpoint_model(made(), made_folder.folder)
        (tmp_path / "m" / "optimizer.safetensors").write_bytes(b"moments")
        made_folder.commit(counts={})
    load_model(tmp_path / "m")
    (tmp_path / "m" / "optimizer.safetensors").write_bytes(b"changed")
    load_model(tmp_path / "m")  # not read to score or sample
    for name in (WEIGHTS, CONFIG):
        path = tmp_path / "m" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        refused(tmp_path / "m", rf"{name} \({len(whole):,} bytes\) does not match its SHA-256")
        path.write_bytes(whole)
    (tmp_path / "m" / MANIFEST).write_text("{}")
    refused(tmp_path / "m", "is not a gptwo manifest")


# Files that are no weights.


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


def huge_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 60) + b'{"a": 1}' * 9)


def header_over_the_limit(path: Path) -> None:
    """A header as large as its file says, and larger than any honest one."""
    with path.open("wb") as handle:
        handle.write(struct.pack("<Q", 200_000_000) + b"{")
        handle.truncate(200_000_100)


def absurd_tensor(path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 4]}
    header = json.dumps({"transformer.wte.weight": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


@pytest.mark.parametrize(
    "write, said",
    [
        (lambda path: path.write_bytes(b""), r"\(0 bytes\) is an empty file, not safetensors"),
        (lambda path: path.write_text("<!DOCTYPE html><p>Sign in</p>"), "is a web page"),
        (lambda path: path.write_text("\n <html>"), "is a web page"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha"),
            "is a Git LFS pointer",
        ),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=2)), "is a pickle"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, protocol=5)), "is a pickle"),
        (zipped, "is a pickle"),
        (lambda path: path.write_bytes(b"abc"), "is too short for any weights"),
        (lambda path: path.write_bytes(b"GGUF" * 99), "is of no known kind"),
        (huge_header, "truncated or forged safetensors"),
        (header_over_the_limit, "truncated or forged safetensors"),
        (absurd_tensor, "is damaged: "),
    ],
)
def test_files_of_another_kind_are_named(
    folder: Path, write: Callable[[Path], object], said: str
) -> None:
    (folder / WEIGHTS).unlink()
    write(folder / WEIGHTS)
    assert WEIGHTS in refused(folder, said)


@pytest.mark.parametrize("kept", [7, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(folder: Path, kept: float) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    length = int(kept if kept > 1 else kept * len(whole))
    (folder / WEIGHTS).write_bytes(whole[:length])
    refused(folder, "damaged|truncated|too short")


def test_a_broken_header_is_refused(folder: Path) -> None:
    whole = bytearray((folder / WEIGHTS).read_bytes())
    whole[20] = 0
    (folder / WEIGHTS).write_bytes(whole)
    refused(folder, "is damaged: ")


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", WEIGHTS])
def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert name in refused(folder, "pickle")
    assert not (tmp_path / "sprung").exists()
    pickle.loads((folder / name).read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    refused(folder, r"model\.safetensors is missing; found none")


# Weights of another shape.


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)


def test_every_wrong_shape_is_listed(folder: Path) -> None:
    rewrite(
        folder,
        lambda t: (
            t.update(
                {
                    "transformer.h.0.attn.c_attn.weight": torch.zeros(96, 32),
                    "transformer.h.1.mlp.c_fc.bias": torch.zeros(5),
                    "transformer.extra": torch.zeros(2),
                }
            )
            or t.pop("transformer.ln_f.bias")
        ),
    )
    message = refused(folder, r"does not fit config\.json")
    assert "h.0.attn.c_attn.weight: (96, 32) in the file, (32, 96) expected" in message
    assert "h.1.mlp.c_fc.bias: (5,) in the file, (128,) expected" in message
    assert "extra: (2,) in the file, None expected" in message
    assert "ln_f.bias: missing in the file, (32,) expected" in message


def test_a_long_list_is_cut(folder: Path) -> None:
    rewrite(folder, lambda t: [t.pop(name) for name in list(t) if ".bias" in name])
    assert refused(folder, "does not fit").endswith("(and 8 more)")


def test_an_output_head_that_would_be_lost_is_refused(folder: Path) -> None:
    rewrite(folder, lambda t: t.update({"lm_head.weight": torch.zeros(61, 32)}))
    refused(folder, r"has an output head of its own, but by its settings the embedding is")


@pytest.mark.parametrize("activation", ["gelu_new", "gelu"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_the_head_and_the_activation_come_back(
    tmp_path: Path, activation: str, tied_head: bool
) -> None:
    config = replace(TINY, activation=activation, tied_head=tied_head)
    model = made(config)
    save_checkpoint_model(model, tmp_path)
    assert ("lm_head.weight" in load_file(tmp_path / WEIGHTS)) != tied_head
    loaded, ids = load_model(tmp_path), random_ids(config)
    assert loaded.config == config
    with torch.no_grad():
        assert torch.equal(loaded(ids), model(ids))


def test_quantised_weights_are_refused(folder: Path) -> None:
    rewrite(
        folder, lambda t: t.update({"transformer.ln_f.bias": torch.zeros(32, dtype=torch.int8)})
    )
    refused(folder, r"ln_f\.bias holds torch\.int8, expected floating-point")


# Configs.


def configure(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / CONFIG).read_text())
    values.update(changes)
    kept = {name: value for name, value in values.items() if value != "removed"}
    (folder / CONFIG).write_text(json.dumps(kept))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"n_layer": 10**9}, "n_layer: 2 in the file, 1000000000 expected"),
        ({"n_layer": 10**400}, "n_layer: 2 in the file"),
        ({"n_layer": 3}, "n_layer: 2 in the file, 3 expected"),
        ({"vocab_size": 10**15}, r"vocab_size, n_embd: \(61, 32\) in the file, \(1000000000000000"),
        ({"n_embd": 2 * 10**9}, r"n_embd: \(61, 32\) in the file, \(61, 2000000000\) expected"),
        ({"n_positions": 10**12}, r"n_ctx, n_embd: \(24, 32\) in the file"),
        ({"n_head": 10**9}, "n_embd 32 is not a multiple of n_head 1000000000"),
        ({"n_layer": -1}, "n_layer must be at least 1, found -1"),
        ({"n_embd": float("inf")}, "has no GPT-2 shape"),
        ({"n_embd": "wide"}, "has no GPT-2 shape: invalid literal"),
        ({"n_embd": None}, "has no GPT-2 shape"),
        ({"n_embd": "removed"}, "has no GPT-2 shape: n_embd is missing"),
        ({"n_positions": "removed", "n_ctx": "removed"}, "n_ctx is missing"),
        ({"resid_pdrop": float("nan")}, "has no GPT-2 shape: dropout"),
        ({"n_inner": 99}, "has no GPT-2 shape: n_inner is 99"),
        ({"model_type": "llama"}, "model_type is 'llama', expected 'gpt2'"),
        ({"model_type": []}, r"model_type is \[\], expected 'gpt2'"),
        ({"activation_function": "relu"}, "activation_function is 'relu', expected 'gelu_new'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight: missing in the file, \(61, 32\)"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    """The absurd ones before anything of their size is made."""
    configure(folder, **changes)
    assert CONFIG in refused(folder, said)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is not JSON"),
        ("<html>", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"model_type": "gpt2"}', "vocab_size is missing"),
        (" " * 1_000_001, "is too large to be a config"),
    ],
)
def test_files_that_are_no_config_are_named(folder: Path, text: str, said: str) -> None:
    (folder / CONFIG).write_text(text)
    refused(folder, said)


def test_both_names_of_the_context_are_read(folder: Path) -> None:
    configure(folder, n_positions="removed")
    assert read_config(folder).n_ctx == 24
    configure(folder, n_positions=24, n_ctx="removed", activation_function="gelu_pytorch_tanh")
    assert read_config(folder) == TINY


def test_kinds_are_told_by_the_first_bytes(folder: Path) -> None:
    assert what_is(folder / WEIGHTS) == "a safetensors file"
    assert what_is(folder / CONFIG) == "of no known kind"
