"""GGUF files as the official reader sees them: tensors, how they are rounded, the vocabulary."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import TokenType
from random_weights import SMALLEST, random_weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from gptwo.errors import ModelError
from gptwo.formats.gguf import write
from gptwo.formats.weights import HEAD, MAPS, Weights, model_of, sample_logits
from gptwo.tokens.tokenizer import Tokenizer

PLACES = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "output_norm": "ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


def opened(weights: Weights, folder: Path, dtype: str) -> gguf.GGUFReader:
    assert write(weights, folder, dtype) == []
    return gguf.GGUFReader(folder / f"model-{dtype}.gguf")


def fields(reader: gguf.GGUFReader) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def released_name(name: str) -> str:
    """`blk.1.attn_qkv.bias` -> `h.1.attn.c_attn.bias`"""
    *layer, place, kind = name.split(".")
    return ".".join(["h", *layer[1:], PLACES[place], kind] if layer else [PLACES[place], kind])


def tensors(reader: gguf.GGUFReader) -> dict[str, torch.Tensor]:
    """Released names and orientation, float32: what a reader of the file computes with."""
    found = {}
    for tensor in reader.tensors:
        name = released_name(tensor.name)
        value = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        found[name] = value.t().contiguous() if MAPS.search(name) else value
    return found


def kinds(reader: gguf.GGUFReader) -> dict[str, Kind]:
    return {released_name(tensor.name): tensor.tensor_type for tensor in reader.tensors}


@pytest.mark.parametrize("tied", [True, False])
def test_f32_holds_every_tensor_bit_for_bit(tied: bool, tmp_path: Path) -> None:
    """The head only where it is not the embedding."""
    weights = random_weights(tied_head=tied)
    reader = opened(weights, tmp_path, "f32")
    found = tensors(reader)
    assert found.keys() == weights.tensors.keys() and (HEAD in found) is not tied
    for name, value in weights.tensors.items():
        assert torch.equal(found[name], value), name
    assert set(kinds(reader).values()) == {Kind.F32}
    back = replace(weights, tensors=found)
    assert torch.equal(sample_logits(back), sample_logits(weights))


def test_f16_rounds_matrices_alone(tmp_path: Path) -> None:
    weights = random_weights()
    reader = opened(weights, tmp_path, "f16")
    found = tensors(reader)
    for name, value in weights.tensors.items():
        rounded = value.dim() == 2 and name != "wpe.weight"
        assert kinds(reader)[name] == (Kind.F16 if rounded else Kind.F32)
        assert torch.equal(found[name], value.half().float() if rounded else value), name
    back = replace(weights, tensors=found)
    assert 0 < (sample_logits(back) - sample_logits(weights)).abs().max() < 0.02


def test_q8_0_is_within_half_a_step_of_each_block(tmp_path: Path) -> None:
    weights = random_weights()
    reader = opened(weights, tmp_path, "q8_0")
    found = tensors(reader)
    for name, value in weights.tensors.items():
        if value.dim() == 1 or name == "wpe.weight":
            assert kinds(reader)[name] == Kind.F32 and torch.equal(found[name], value)
            continue
        assert kinds(reader)[name] == Kind.Q8_0
        rows, near = (x.t() if MAPS.search(name) else x for x in (value, found[name]))
        blocks, error = rows.reshape(-1, 32), (near - rows).reshape(-1, 32).abs()
        largest = blocks.abs().amax(1, keepdim=True)
        # half a step of largest / 127, and the scale itself is rounded to 11 bits
        assert (error <= largest * (0.5 / 127 + 2**-11) * 1.001).all(), name
        assert error.max() > 0
    back = replace(weights, tensors=found)
    assert 0 < (sample_logits(back) - sample_logits(weights)).abs().max() < 0.3


def test_rows_that_do_not_divide_into_blocks_stay_in_f16(tmp_path: Path) -> None:
    reader = opened(
        random_weights(n_embd=40), tmp_path, "q8_0"
    )  # c_proj of the MLP has rows of 160
    found = {name: kind for name, kind in kinds(reader).items() if MAPS.search(name)}
    assert {kind for name, kind in found.items() if "mlp.c_proj" in name} == {Kind.Q8_0}
    assert {kind for name, kind in found.items() if "mlp.c_proj" not in name} == {Kind.F16}


@pytest.mark.parametrize(("dtype", "largest"), [("f16", 65_504), ("q8_0", 127 * 65_504)])
def test_a_number_that_a_kind_cannot_hold_is_named(
    dtype: str, largest: float, tmp_path: Path
) -> None:
    weights = random_weights()
    weights.tensors["h.1.mlp.c_fc.weight"][3, 4] = largest
    assert torch.isfinite(tensors(opened(weights, tmp_path, dtype))["h.1.mlp.c_fc.weight"]).all()
    weights.tensors["h.1.mlp.c_fc.weight"][3, 4] = 1.01 * largest
    with pytest.raises(ModelError, match=r"h\.1\.mlp\.c_fc\.weight holds .* more than the"):
        write(weights, tmp_path, dtype)


def test_the_shape_is_described_in_llama_cpps_words(tmp_path: Path) -> None:
    found = fields(opened(random_weights(), tmp_path, "q8_0"))
    assert found["general.architecture"] == "gpt2"
    assert found["general.type"] == "model"
    assert found["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert found["general.quantization_version"] == 2
    assert found["general.name"] == "GPT-2 34K" and found["general.size_label"] == "34K"
    shape = {name.removeprefix("gpt2."): x for name, x in found.items() if name[:5] == "gpt2."}
    epsilon = shape.pop("attention.layer_norm_epsilon")
    assert epsilon == pytest.approx(1e-5)
    assert shape == {
        "block_count": 2,
        "context_length": 24,
        "embedding_length": 32,
        "feed_forward_length": 128,
        "attention.head_count": 2,
    }


def test_a_vocabulary_of_our_own(tmp_path: Path) -> None:
    """Merge 3 spells what merge 1 does: it keeps its id under a name that no text has."""
    merges = [(b" ", b"t"), (b" t", b"h"), (b"t", b"h"), (b" ", b"th"), ("é".encode(), b"\n")]
    tokenizer = Tokenizer([(b"\xc3", b"\xa9"), *merges])
    found = fields(opened(random_weights(tokenizer, vocab_size=263), tmp_path, "f32"))
    assert found["tokenizer.ggml.model"] == "gpt2" and found["tokenizer.ggml.pre"] == "gpt-2"
    tokens = found["tokenizer.ggml.tokens"]
    assert tokens[:3] == ["!", '"', "#"] and tokens[220] == "Ġ" and tokens[198] == "Ċ"
    assert tokens[256:] == ["Ã©", "Ġt", "Ġth", "th", "<|unused 260|>", "Ã©Ċ", "<|endoftext|>"]
    assert found["tokenizer.ggml.merges"] == ["Ã ©", "Ġ t", "Ġt h", "t h", "Ġ th", "Ã© Ċ"]
    types = found["tokenizer.ggml.token_type"]
    assert set(types[:260]) == {TokenType.NORMAL} and len(types) == len(set(tokens)) == 263
    assert types[260:] == [TokenType.UNUSED, TokenType.NORMAL, TokenType.CONTROL]
    assert found["tokenizer.ggml.bos_token_id"] == found["tokenizer.ggml.eos_token_id"] == 262
    assert found["tokenizer.ggml.add_bos_token"] is False


def test_the_released_vocabulary(data_dir: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(data_dir / "bpe")
    weights = random_weights(tokenizer, vocab_size=50257, n_embd=2, n_head=1, n_layer=1)
    found = fields(opened(weights, tmp_path, "f16"))
    ids = json.loads((data_dir / "bpe" / "encoder.json").read_text(encoding="utf-8"))
    assert found["tokenizer.ggml.tokens"] == sorted(ids, key=ids.__getitem__)
    lines = (data_dir / "bpe" / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    assert found["tokenizer.ggml.merges"] == lines[1:-1]
    assert set(found["tokenizer.ggml.token_type"][:-1]) == {TokenType.NORMAL}


@pytest.mark.parametrize(
    ("weights", "message", "remedy"),
    [
        (random_weights(None), "came without one", "--tokenizer"),
        (random_weights(SMALLEST, activation="gelu"), "tanh form of GELU", "hf, onnx"),
    ],
)
def test_what_the_file_could_not_say_is_refused(
    weights: Weights, message: str, remedy: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        write(weights, tmp_path, "f32")
    assert remedy in raised.value.remedy and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8_0"])
def test_transformers_reads_it_as_we_meant_it(dtype: str, tmp_path: Path) -> None:
    """Its reader takes every GPT-2 to have 1024 positions, as the released ones have."""
    weights = random_weights(n_ctx=1024, tied_head=dtype == "f16")
    reader = opened(weights, tmp_path, dtype)
    file = f"model-{dtype}.gguf"
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file).eval()
    ids = torch.randint(258, (2, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = model_of(replace(weights, tensors=tensors(reader)))(ids)
        assert (model(ids).logits - ours).abs().max() < 1e-5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file)
    text = " the thing, there\n'll 日本"
    assert tokenizer.encode(text) == SMALLEST.encode(text) and tokenizer.eos_token_id == 257
