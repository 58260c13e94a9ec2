"""What other tools make of these weights, written here from their formats alone.

`Peer` computes with torch's own Linear and LayerNorm under the names nanoGPT gives to its
parameters; the functions put its numbers into files in the order each tool expects.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class PeerBlock(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, gelu: str) -> None:
        super().__init__()
        self.heads, self.gelu = heads, gelu
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = nn.ModuleDict(
            {
                "c_attn": nn.Linear(width, 3 * width, bias=bias),
                "c_proj": nn.Linear(width, width, bias=bias),
            }
        )
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(width, 4 * width, bias=bias),
                "c_proj": nn.Linear(4 * width, width, bias=bias),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["c_attn"](self.ln_1(x)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(2, 3) / q.size(-1) ** 0.5
        later = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        mixed = scores.masked_fill(later, float("-inf")).softmax(-1) @ v
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).flatten(2))
        inner = nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate=self.gelu)
        return x + self.mlp["c_proj"](inner)


class Peer(nn.Module):
    """nanoGPT with `gelu="none"`, minGPT with an untied head, llm.c with "tanh"."""

    def __init__(self, arguments: dict[str, Any], gelu: str = "none", tied: bool = True) -> None:
        super().__init__()
        width, bias = arguments["n_embd"], arguments.get("bias", True)
        blocks = (
            PeerBlock(width, arguments["n_head"], bias, gelu) for _ in range(arguments["n_layer"])
        )
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(arguments["vocab_size"], width),
                "wpe": nn.Embedding(arguments["block_size"], width),
                "h": nn.ModuleList(blocks),
                "ln_f": nn.LayerNorm(width, bias=bias),
            }
        )
        self.lm_head = nn.Linear(width, arguments["vocab_size"], bias=False)
        if tied:
            self.lm_head.weight = self.transformer["wte"].weight
        source = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, value in self.named_parameters():
                value.copy_(torch.randn(value.shape, generator=source) * 0.3)
                if ".ln_" in name and name.endswith("weight"):
                    value.add_(1.0)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        parts = self.transformer
        x = parts["wte"](ids) + parts["wpe"](torch.arange(ids.size(1)))
        for block in parts["h"]:
            x = block(x)
        return self.lm_head(parts["ln_f"](x))


ARGUMENTS = {"n_layer": 2, "n_head": 2, "n_embd": 12, "block_size": 16, "vocab_size": 260}


def in_llmc_order(peer: Peer) -> Iterator[nn.Parameter]:
    """Each kind of tensor for all layers, then the next kind."""
    parts = peer.transformer
    yield parts["wte"].weight
    yield parts["wpe"].weight
    for path in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
        for part in ("weight", "bias"):
            for block in parts["h"]:
                yield block.get_parameter(f"{path}.{part}")
    yield parts["ln_f"].weight
    yield parts["ln_f"].bias


def write_llmc(peer: Peer, arguments: dict[str, Any], path: Path) -> None:
    """As llm.c's train_gpt2.py writes float32: the embedding padded to a multiple of 128 rows."""
    rows = arguments["vocab_size"]
    padded = -(-rows // 128) * 128
    names = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")
    header = [20240326, 3, *(arguments[name] for name in names), padded]
    with path.open("wb") as handle:
        handle.write(struct.pack("<256i", *header, *[0] * 248))
        for place, value in enumerate(in_llmc_order(peer)):
            numbers = value.detach().numpy()
            if place == 0:
                numbers = np.pad(numbers, ((0, padded - rows), (0, 0)))
            handle.write(numbers.astype("<f4").tobytes())


def open_llmc(path: Path) -> tuple[Peer, np.ndarray]:
    """The file as llm.c reads it: its header, then one stretch of numbers in order."""
    header = np.fromfile(path, "<i4", 256)
    kind = {3: "<f4", 5: "<u2"}[int(header[1])]
    flat = np.fromfile(path, kind, offset=1024)
    if kind == "<u2":  # bfloat16 is the upper half of a float32
        flat = (flat.astype("<u4") << 16).view("<f4")
    names = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")
    arguments = dict(zip(names, map(int, header[2:7]), strict=True))
    peer = Peer(arguments, gelu="tanh")
    place = 0
    with torch.no_grad():
        for order, value in enumerate(in_llmc_order(peer)):
            value.copy_(torch.from_numpy(flat[place : place + value.numel()]).view(value.shape))
            padding = (int(header[7]) - arguments["vocab_size"]) * arguments["n_embd"]
            place += value.numel() + (padding if order == 0 else 0)
    assert place == len(flat)
    return peer, header


def write_nanogpt(peer: Peer, arguments: dict[str, Any], path: Path) -> None:
    """As nanoGPT's train.py saves a compiled model, its optimiser beside it."""
    moment = {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}
    checkpoint = {
        "model": {f"_orig_mod.{name}": value for name, value in peer.state_dict().items()},
        "optimizer": {"state": {0: moment}, "param_groups": [{"lr": 6e-4, "params": [0]}]},
        "model_args": arguments,
        "iter_num": 7,
        "best_val_loss": torch.tensor(3.5),
        "config": {"dataset": "some", "learning_rate": 6e-4},
    }
    torch.save(checkpoint, path)


def open_nanogpt(path: Path) -> Peer:
    """As nanoGPT's sample.py does."""
    checkpoint = torch.load(path, weights_only=True)
    peer = Peer(checkpoint["model_args"])
    peer.load_state_dict(checkpoint["model"])
    return peer


def write_mingpt(peer: Peer, arguments: dict[str, Any], path: Path) -> None:
    """The JSON of a minGPT model."""
    values: dict[str, Any] = {"config": {"model_type": "gpt-nano", "resid_pdrop": 0.1} | arguments}
    for name, value in peer.state_dict().items():
        data = base64.b64encode(value.numpy().astype("<f4").tobytes()).decode()
        values[name] = {"shape": list(value.shape), "dtype": "torch.float32", "data": data}
    path.write_text(json.dumps(values, indent=1))
