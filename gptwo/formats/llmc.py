"""llm.c's files: gpt2.bin with the weights, gpt2_tokenizer.bin with the bytes of every token.

A header of 256 int32, then the tensors of each kind for all layers together, maps [out, in], the
embedding padded to a multiple of 128 rows. llm.c computes the tanh GELU and ties the head.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gptwo.artifacts import atomic_write
from gptwo.errors import ModelError
from gptwo.formats.nanogpt import refuse_untied
from gptwo.formats.weights import Weights, checked, stated_shape, transposed
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.tokenizer import Tokenizer

FILE, TOKENS_FILE = "gpt2.bin", "gpt2_tokenizer.bin"
MAGIC, TOKENS_MAGIC, TOKENS_VERSION = 20240326, 20240328, 2
HEADER_BYTES = 256 * 4
VERSIONS = {3: torch.float32, 5: torch.bfloat16}
FIELDS = ("n_ctx", "vocab_size", "n_layer", "n_head", "n_embd")  # header[2:7]; then padded rows
PAD_TO = 128
LAYER_KINDS = (  # the order in the file, gain or map before its bias
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
)


def read(path: Path) -> Weights:
    """gpt2.bin in float32 (version 3) or bfloat16 (version 5) -> weights without the padding."""
    with path.open("rb") as handle:
        header = struct.unpack("<256i", handle.read(HEADER_BYTES).ljust(HEADER_BYTES, b"\0"))
    magic, version, padded = header[0], header[1], header[7]
    if magic != MAGIC or version not in VERSIONS:
        raise ModelError(
            f"{path} starts with {magic}, version {version}; expected {MAGIC}, version "
            "3 (float32) or 5 (bfloat16)",
            remedy="use a model file that llm.c's train_gpt2.py or its trainer wrote",
        )
    stated = dict(zip(FIELDS, header[2:7], strict=True))
    config = stated_shape(stated, {name: name for name in FIELDS}, path)
    dtype = VERSIONS[version]
    padding = (padded - config.vocab_size) * config.n_embd
    expected = HEADER_BYTES + (config.parameters() + padding) * dtype.itemsize
    if padding < 0 or path.stat().st_size != expected:
        raise ModelError(
            f"{path} has {path.stat().st_size:,} bytes, its header says {expected:,}",
            remedy="copy the file again",
        )
    flat = torch.from_file(str(path), size=expected // dtype.itemsize, dtype=dtype)
    place, tensors = HEADER_BYTES // dtype.itemsize, {}
    for name, shape in layout(config, padded):
        count = int(np.prod(shape))
        tensors[name] = flat[place : place + count].view(shape).float()
        place += count
    tensors["wte.weight"] = tensors["wte.weight"][: config.vocab_size]
    return checked(Weights(config, transposed(tensors)), path)


def layout(config: GPT2Config, padded: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file, maps [out, in]."""
    C = config.n_embd
    sides = {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}
    sides |= {"mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}
    yield "wte.weight", (padded, C)
    yield "wpe.weight", (config.n_ctx, C)
    for kind in LAYER_KINDS:
        name, _, part = kind.rpartition(".")
        shape = sides.get(name, (C, C))
        for layer in range(config.n_layer):
            yield f"h.{layer}.{kind}", shape if name in sides and part == "weight" else shape[:1]
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)


def write(weights: Weights, out: Path, dtype: str) -> list[str]:
    """gpt2.bin and, where the vocabulary is known, gpt2_tokenizer.bin."""
    refuse_untied(weights, "llm.c")
    config = weights.config
    if config.activation != "gelu_new":
        raise ModelError(
            "the model was trained with the exact GELU, llm.c computes the tanh form",
            remedy="write it as hf, nanogpt or onnx",
        )
    version, kind = {"f32": (3, torch.float32), "bf16": (5, torch.bfloat16)}[dtype]
    padded = -(-config.vocab_size // PAD_TO) * PAD_TO
    header = [MAGIC, version, *(getattr(config, name) for name in FIELDS), padded]
    tensors = transposed(weights.tensors)
    with atomic_write(out / FILE) as handle:
        handle.write(struct.pack("<256i", *header, *[0] * (256 - len(header))))
        for name, _ in layout(config, padded):
            value = tensors[name].to(kind)
            handle.write(value.view(torch.uint8).numpy().tobytes())
            if name == "wte.weight":
                handle.write(bytes((padded - config.vocab_size) * config.n_embd * kind.itemsize))
    return _write_tokens(weights.tokenizer, out / TOKENS_FILE)


def _write_tokens(tokenizer: Tokenizer | None, path: Path) -> list[str]:
    """What llm.c prints text with: a length byte and the bytes of every token."""
    if tokenizer is None:
        return [f"no {TOKENS_FILE}: the vocabulary is not known, give --tokenizer"]
    end = b"<|endoftext|>"
    tokens = [*map(tokenizer.token_bytes, range(tokenizer.eot)), end]
    longest = max(tokens, key=len)
    if len(longest) > 255:
        return [f"no {TOKENS_FILE}: it holds tokens up to 255 bytes, one has {len(longest)}"]
    header = [TOKENS_MAGIC, TOKENS_VERSION, len(tokens), tokenizer.eot]
    with atomic_write(path) as handle:
        handle.write(struct.pack("<256i", *header, *[0] * (256 - len(header))))
        handle.writelines(bytes([len(token)]) + token for token in tokens)
    return []
