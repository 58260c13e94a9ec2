"""GGUF: the file that llama.cpp and the tools built on it run.

Names, orientation and which tensors keep float32 follow llama.cpp's own converter: maps are stored
[out, in]; biases, gains and positions are never rounded; the head is written only when it is not
the embedding. llama.cpp computes GELU in its tanh form, whatever a file says.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGML_QUANT_VERSION, GGUFWriter, LlamaFileType, TokenType
from gguf import GGMLQuantizationType as Kind
from gguf.quants import quantize
from gguf.utility import size_label
from torch import Tensor

from gptwo.artifacts import atomic_write
from gptwo.errors import ModelError
from gptwo.formats.weights import MAPS, Weights
from gptwo.model.gpt2 import LAYER_NORM_EPSILON
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.bpe import END_OF_TEXT
from gptwo.tokens.files import shown
from gptwo.tokens.tokenizer import Tokenizer

KINDS = {
    "f32": (Kind.F32, LlamaFileType.ALL_F32),
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
LARGEST = {Kind.F32: float("inf"), Kind.F16: 65_504, Kind.Q8_0: 127 * 65_504}  # scales are f16
NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_f": "output_norm",
    "lm_head": "output",
}


def write(weights: Weights, out: Path, dtype: str) -> list[str]:
    """Write `model-DTYPE.gguf` into the folder `out`.

    q8_0 keeps 8 bits a weight and a scale for each 32 of a row; a matrix whose rows do not divide
    into 32 is kept in f16. Raises ModelError without a vocabulary or with another GELU.
    """
    config, tokenizer = weights.config, weights.tokenizer
    if tokenizer is None:
        raise ModelError(
            "a GGUF file holds its vocabulary, and this model came without one",
            remedy="name the folder of its tokenizer with --tokenizer",
        )
    if config.activation != "gelu_new":
        raise ModelError(
            "llama.cpp computes GPT-2 with the tanh form of GELU, this model uses the exact one",
            remedy="write another format (hf, onnx)",
        )
    with atomic_write(out / f"model-{dtype}.gguf") as handle:
        writer = GGUFWriter(handle.name, "gpt2")  # opens the temporary file once more
        _describe(writer, config, dtype)
        _add_vocabulary(writer, tokenizer)
        _add_tensors(writer, weights.tensors, KINDS[dtype][0])
        writer.close()
    return []


def _describe(writer: GGUFWriter, config: GPT2Config, dtype: str) -> None:
    parameters = config.parameters()
    label = size_label(parameters, parameters, 0, 0)
    writer.add_type("model")
    writer.add_name(f"GPT-2 {label}")
    writer.add_size_label(label)
    writer.add_file_type(KINDS[dtype][1])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)


def _add_vocabulary(writer: GGUFWriter, tokenizer: Tokenizer) -> None:
    """Tokens in the order of their ids, merges in theirs.

    Readers need every spelling once: a token that spells what an earlier one does is never the
    result of encoding, and goes by a name that no text has.
    """
    tokens = [shown(tokenizer.token_bytes(i)) for i in range(tokenizer.eot)]
    kinds = [TokenType.NORMAL] * tokenizer.eot
    seen = {END_OF_TEXT}
    for i, token in enumerate(tokens):
        if token in seen:
            tokens[i], kinds[i] = f"<|unused {i}|>", TokenType.UNUSED
        seen.add(token)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # how text is cut before merging
    writer.add_token_list([*tokens, END_OF_TEXT])
    writer.add_token_types([*kinds, TokenType.CONTROL])
    writer.add_token_merges([f"{shown(a)} {shown(b)}" for a, b in tokenizer.reference.merges])
    writer.add_bos_token_id(tokenizer.eot)
    writer.add_eos_token_id(tokenizer.eot)
    writer.add_add_bos_token(False)


def _add_tensors(writer: GGUFWriter, tensors: dict[str, Tensor], matrices: Kind) -> None:
    """All names, shapes and kinds first, as the file wants them, then one tensor after another."""
    kinds = {name: _kind(name, tensor, matrices) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        block, size = GGML_QUANT_SIZES[kinds[name]]
        shape = reversed(tensor.shape) if MAPS.search(name) else tensor.shape
        bytes_ = tensor.numel() // block * size
        writer.add_tensor_info(_name(name), [*shape], np.dtype("f4"), bytes_, kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        value = tensor.t() if MAPS.search(name) else tensor
        writer.write_tensor_data(quantize(value.contiguous().numpy(), kinds[name]))


def _kind(name: str, tensor: Tensor, matrices: Kind) -> Kind:
    """How a tensor's numbers are kept: only token embeddings, head and maps are rounded."""
    if tensor.dim() == 1 or name == "wpe.weight":
        return Kind.F32
    row = tensor.shape[0 if MAPS.search(name) else 1]
    kind = matrices if row % GGML_QUANT_SIZES[matrices][0] == 0 else Kind.F16
    largest = float(tensor.abs().max())
    if largest > LARGEST[kind]:
        raise ModelError(
            f"{name} holds {largest:.4g}, more than the {LARGEST[kind]:,.0f} of {kind.name}",
            remedy="write it as f32",
        )
    return kind


def _name(name: str) -> str:
    """`h.0.attn.c_attn.weight` -> `blk.0.attn_qkv.weight`"""
    place, kind = name.rsplit(".", 1)
    if not place.startswith("h."):
        return f"{NAMES[place]}.{kind}"
    _, layer, part = place.split(".", 2)
    return f"blk.{layer}.{NAMES[part]}.{kind}"
