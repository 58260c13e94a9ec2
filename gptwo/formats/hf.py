"""Hugging Face folders: config.json with model.safetensors or, read only, pytorch_model.bin."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gptwo.artifacts import write_json
from gptwo.errors import ModelError, ResourceError
from gptwo.formats import pickles
from gptwo.formats.weights import Weights, checked
from gptwo.model.weights import (
    BUFFERS,
    CONFIG,
    HEAD,
    PREFIX,
    WEIGHTS,
    drop_copy_of_embedding,
    hf_config,
    load_model,
    read_config,
)

DTYPES = {
    "f32": (torch.float32, "float32"),
    "f16": (torch.float16, "float16"),
    "bf16": (torch.bfloat16, "bfloat16"),
}


def read(folder: Path) -> Weights:
    """A checkpoint of ours or of the transformers library, in one safetensors file or several."""
    model = load_model(folder)
    return checked(Weights(model.config, model.state_dict()), folder)


def read_pickle(folder: Path) -> Weights:
    """config.json with pytorch_model.bin, or with its pytorch_model-00001-of-00002.bin."""
    config = read_config(folder)
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("pytorch_model*.bin")):
        tensors |= pickles.load(path).tensors
    named = {
        name.removeprefix(PREFIX): value
        for name, value in tensors.items()
        if not BUFFERS.search(name)
    }
    if config.tied_head:
        drop_copy_of_embedding(named, folder)
    return checked(Weights(config, named), folder)


def write(weights: Weights, out: Path, dtype: str) -> list[str]:
    """config.json and model.safetensors, as transformers and `gptwo.load` open them."""
    kind, called = DTYPES[dtype]
    config: dict[str, Any] = hf_config(weights.config) | {"torch_dtype": called}
    tensors = {
        name if name == HEAD else PREFIX + name: _rounded(value, kind, name)
        for name, value in weights.tensors.items()
    }
    write_json(out / CONFIG, config)
    try:
        save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # it keeps the system's words, not its error number
        raise ResourceError(f"cannot write {out / WEIGHTS}: {error}", remedy="make room") from error
    return []


def _rounded(value: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """`value` in fewer bits. Raises ModelError for a number that float16 cannot hold."""
    smaller = value.to(dtype)
    if not torch.isfinite(smaller).all():
        raise ModelError(
            f"{name} holds {float(value.abs().max()):.4g}, more than float16's 65,504",
            remedy="write it as bf16 or f32",
        )
    return smaller
