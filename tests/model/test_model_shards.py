"""Weights in several files with an index, as large models are published."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_model import TINY, made, random_ids, theirs
from safetensors.torch import load_file, save_file
from transformers import GPT2LMHeadModel

import gptwo
from gptwo.artifacts import stage
from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.model.weights import (
    INDEX,
    PREFIX,
    WEIGHTS,
    load_model,
    save_checkpoint_model,
    weight_files,
)
from gptwo.tokens.tokenizer import Tokenizer

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def shard(folder: Path, model: GPT2, prefix: str = PREFIX) -> None:
    """`model` as two shards, every second tensor in each."""
    save_checkpoint_model(model, folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    named = {prefix + name.removeprefix(PREFIX): value for name, value in tensors.items()}
    shard_of = {name: SHARDS[number % 2] for number, name in enumerate(sorted(named))}
    for file in SHARDS:
        save_file({name: named[name] for name in named if shard_of[name] == file}, folder / file)
    write_index(folder, shard_of)


def write_index(folder: Path, shard_of: Any) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": shard_of}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    shard(tmp_path / "model", made())
    return tmp_path / "model"


def refused(folder: Path, said: str) -> str:
    with pytest.raises(ModelError, match=said) as error:
        load_model(folder)
    assert error.value.exit_code == 4 and error.value.remedy
    assert "\n" not in error.value.message
    return error.value.message


@pytest.mark.parametrize("prefix", [PREFIX, ""])
def test_shards_are_one_model(tmp_path: Path, prefix: str) -> None:
    shard(tmp_path, made(), prefix)
    assert [path.name for path in weight_files(tmp_path)] == list(SHARDS)
    ids = random_ids(TINY)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids), made()(ids))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied_head", [True, False])
def test_the_shards_that_transformers_writes_are_read(
    tmp_path: Path, dtype: torch.dtype, tied_head: bool
) -> None:
    """Every number as stored: float32 holds those of 16 bits exactly."""
    config = replace(TINY, tied_head=tied_head, dropout=0.1)
    other = theirs(config).to(dtype)
    other.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) >= 2
    model = load_model(tmp_path)
    assert model.config == config
    stored = other.state_dict()
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[name if "lm_head" in name else PREFIX + name].float())
    reopened = GPT2LMHeadModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = random_ids(config)
    with torch.no_grad():
        assert float((model(ids) - reopened(ids).logits).abs().max()) <= 1e-5


def test_a_language_model_knows_the_hash_of_its_shards(tmp_path: Path) -> None:
    """Not of a model.safetensors that is not there; another model has another."""
    hashes = set()
    for seed in (0, 0, 1):
        shard(tmp_path, made(replace(TINY, vocab_size=257), seed=seed))
        Tokenizer([]).save(tmp_path)
        hashes.add(gptwo.load(tmp_path, device="cpu").description["weights_sha256"])
    assert len(hashes) == 2 and {len(value) for value in hashes} == {64}


def test_one_file_goes_before_an_index(folder: Path) -> None:
    """As in transformers."""
    save_checkpoint_model(made(seed=7), folder)
    assert [path.name for path in weight_files(folder)] == [WEIGHTS]
    assert torch.equal(load_model(folder).wte.weight, made(seed=7).wte.weight)


def test_missing_shards_are_named(folder: Path) -> None:
    (folder / SHARDS[1]).unlink()
    refused(folder, rf"index\.json names 2 files; missing: {SHARDS[1]}$")


@pytest.mark.parametrize(
    "name",
    ["../model-00001.safetensors", "/etc/model.safetensors", "..", "", "a/b.safetensors",
     "model.bin", "a\\b.safetensors", "a.safetensors\n", "a\0.safetensors", 3, None, ["x"]],
)  # fmt: skip
def test_an_index_leads_nowhere_else(folder: Path, name: object) -> None:
    shard_of = json.loads((folder / INDEX).read_text())["weight_map"]
    write_index(folder, {**shard_of, "transformer.ln_f.bias": name})
    refused(folder, r"index\.json: transformer\.ln_f\.bias is in .*, expected a \.safetensors file")


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is not JSON"),
        ("<html>", "is not JSON"),
        ("[]", "has no weight_map"),
        ('{"metadata": {}}', "has no weight_map"),
        ('{"weight_map": {}}', "has no weight_map"),
        ('{"weight_map": ["a"]}', "has no weight_map"),
        (" " * 10_000_001, "is too large to be an index"),
    ],
)
def test_files_that_are_no_index_are_named(folder: Path, text: str, said: str) -> None:
    (folder / INDEX).write_text(text)
    assert INDEX in refused(folder, said)


def edit(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def test_what_the_files_lack_is_named(folder: Path) -> None:
    name = sorted(load_file(folder / SHARDS[0]))[0]
    edit(folder, SHARDS[0], lambda tensors: tensors.pop(name))
    refused(folder, f"does not fit its files: {name} is in no file, listed in {SHARDS[0]}$")


def test_what_the_index_lacks_is_named(folder: Path) -> None:
    edit(folder, SHARDS[0], lambda tensors: tensors.update(extra=torch.zeros(2)))
    refused(folder, f"does not fit its files: extra is in {SHARDS[0]}, listed in none$")


def test_a_tensor_in_two_shards_is_named(folder: Path) -> None:
    bias = torch.zeros(32)
    for name in ("transformer.ln_f.bias", "ln_f.bias"):  # the same parameter in either spelling
        home = next(f for f in SHARDS if "transformer.ln_f.bias" in load_file(folder / f))
        away = SHARDS[1 - SHARDS.index(home)]
        edit(folder, away, lambda tensors, name=name: tensors.update({name: bias}))
        refused(folder, r"ln_f\.bias comes a second time, the first is in model-0000\d-of-00002")
        edit(folder, away, lambda tensors, name=name: tensors.pop(name))
    load_model(folder)


def test_a_damaged_shard_is_named(folder: Path) -> None:
    whole = (folder / SHARDS[0]).read_bytes()
    (folder / SHARDS[0]).write_bytes(whole[:-9])
    assert SHARDS[0] in refused(folder, "is damaged: ")
    (folder / SHARDS[0]).write_text("<!doctype html>")
    assert SHARDS[0] in refused(folder, "is a web page")


def test_a_flipped_bit_in_any_shard_or_the_index_is_found(tmp_path: Path) -> None:
    with stage(tmp_path / "m", kind="checkpoint", config={}, inputs={}) as made_folder:
        shard(made_folder.folder, made())
        made_folder.commit(counts={})
    load_model(tmp_path / "m")
    for name in (*SHARDS, INDEX):
        path = tmp_path / "m" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        refused(tmp_path / "m", rf"{name} \({len(whole):,} bytes\) does not match its SHA-256")
        path.write_bytes(whole)
