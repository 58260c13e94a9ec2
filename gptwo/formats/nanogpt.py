"""nanoGPT's ckpt.pt: a pickled state dict with the arguments of its model.

Its linear maps are stored [out, in], its head repeats the embedding, and its GELU is the exact one,
by the error function: also for released weights, which were trained with the tanh form.
"""

from dataclasses import replace
from pathlib import Path

import torch

from gptwo.artifacts import atomic_write
from gptwo.errors import ModelError
from gptwo.formats import pickles
from gptwo.formats.weights import (
    Weights,
    checked,
    sample_logits,
    shapes,
    stated_shape,
    transposed,
)
from gptwo.model.weights import HEAD, PREFIX, drop_copy_of_embedding

FILE = "ckpt.pt"
COMPILED = "_orig_mod."  # what torch.compile puts before every name
SHAPE = {
    "vocab_size": "vocab_size",
    "n_ctx": "block_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
NOTED = "gptwo_activation"  # in the checkpoint's free `config`: which GELU the weights are for


def read(path: Path) -> Weights:
    """ckpt.pt -> weights; a model without biases gets zeros, which compute the same."""
    found = pickles.load(path)
    arguments = found.facts.get("model_args")
    if not isinstance(arguments, dict):
        raise ModelError(
            f"{path} is a pickle without model_args, expected a checkpoint of nanoGPT",
            remedy="for a file of the transformers library, name a folder with pytorch_model.bin "
            "and its config.json",
        )
    settings = found.facts.get("config")
    noted = settings.get(NOTED) if isinstance(settings, dict) else None
    config = stated_shape(arguments, SHAPE, path, activation=noted or "gelu")
    tensors = {
        name.removeprefix(COMPILED).removeprefix(PREFIX): value
        for name, value in found.tensors.items()
        if not name.endswith(".attn.bias")  # causal mask of old versions
    }
    drop_copy_of_embedding(tensors, path)
    if arguments.get("bias") is False:
        for name, shape in shapes(replace(config, n_layer=min(config.n_layer, len(tensors)))):
            if name.endswith(".bias"):
                tensors.setdefault(name, torch.zeros(shape))
    return checked(Weights(config, transposed(tensors)), path)


def write(weights: Weights, out: Path, dtype: str) -> list[str]:
    """ckpt.pt as nanoGPT's sample.py opens it; to train on, it lacks an optimiser's state."""
    refuse_untied(weights, "nanoGPT")
    config = weights.config
    tensors = transposed(weights.tensors)
    state = {PREFIX + name: value for name, value in tensors.items()}
    state[HEAD] = state[f"{PREFIX}wte.weight"]  # one tensor under two names, stored once
    checkpoint = {
        "model": state,
        "model_args": {
            **{name: getattr(config, ours) for ours, name in SHAPE.items()},
            "bias": True,
            "dropout": config.dropout,
        },
        "iter_num": 0,
        "best_val_loss": 1e9,
        "config": {NOTED: config.activation},
    }
    with atomic_write(out / FILE) as handle:
        torch.save(checkpoint, handle)
    if config.activation == "gelu":
        return []
    exact = replace(weights, config=replace(config, activation="gelu"))
    difference = float((sample_logits(weights) - sample_logits(exact)).abs().max())
    return [
        "nanoGPT computes the exact GELU, this model was trained with the tanh form: on a fixed "
        f"random input its logits there differ by up to {difference:.2g}"
    ]


def refuse_untied(weights: Weights, tool: str) -> None:
    """Tools whose head is the embedding would drop one of the two."""
    if not weights.config.tied_head:
        raise ModelError(
            f"the model has an output head of its own, {tool} uses the embedding",
            remedy="write it as hf, gguf or onnx",
        )
