"""minGPT's weights as JSON: {"config": ..., name: {"shape", "dtype", "data": base64}}.

Linear maps are stored [out, in], the head is one of its own, the GELU is the tanh form.
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwo.artifacts import read_json
from gptwo.errors import ModelError
from gptwo.formats.weights import Weights, checked, stated_shape, transposed
from gptwo.model.weights import BUFFERS, PREFIX

MAX_BYTES = 300_000_000
DTYPE = "torch.float32"
SHAPE = {"n_ctx": "block_size"} | {
    name: name for name in ("vocab_size", "n_layer", "n_head", "n_embd")
}


def read(path: Path) -> Weights:
    """The file -> weights without a vocabulary. Raises ModelError for what is not as stated."""
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(
            f"{path} has {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,} of JSON",
            remedy="save a model of this size as safetensors",
        )
    values = read_json(path, error=ModelError)
    stated = values.pop("config", None) if isinstance(values, dict) else None
    if not isinstance(stated, dict):
        raise ModelError(f'{path} has no "config" of minGPT', remedy="use the file as it was")
    config = stated_shape(stated, SHAPE, path, tied_head=False)
    tensors = {
        name.removeprefix(PREFIX): _tensor(value, name, path)
        for name, value in values.items()
        if not BUFFERS.search(name)
    }
    return checked(Weights(config, transposed(tensors)), path)


def _tensor(value: Any, name: str, path: Path) -> Tensor:
    """One entry, little-endian float32."""
    try:
        shape, data = [int(side) for side in value["shape"]], value["data"]
        numbers = bytearray(base64.b64decode(data, validate=True))
        if value["dtype"] != DTYPE or min(shape, default=0) < 0:
            raise ValueError(f"{value['dtype']} of shape {shape}, expected {DTYPE}")
        if len(numbers) != 4 * math.prod(shape):
            raise ValueError(f"{len(numbers):,} bytes for shape {shape}")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ModelError(f"{path}: {name}: {error}", remedy="use the file as it was") from error
    return torch.frombuffer(numbers, dtype=torch.float32).view(shape)
