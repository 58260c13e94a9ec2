"""OpenAI's released checkpoints: TensorFlow variables beside hparams.json and the vocabulary.

    hparams.json  encoder.json  vocab.bpe  checkpoint  model.ckpt.index  model.ckpt.data-*

A variable is called model/h0/attn/c_attn/w and is already [in, out], after an axis of length 1.
"""

import re
from pathlib import Path

from torch import Tensor

from gptwo.artifacts import read_json
from gptwo.errors import ModelError
from gptwo.formats.tensor_bundle import Bundle
from gptwo.formats.weights import Weights, checked, stated_shape

HPARAMS = "hparams.json"
SHAPE = {"vocab_size": "n_vocab"} | {
    name: name for name in ("n_ctx", "n_embd", "n_head", "n_layer")
}
NAME = re.compile(r"model/(?:h(\d+)/)?([a-z0-9_]+(?:/c_[a-z]+)?)(?:/([wbg]))?")
PARTS = {"w": ".weight", "g": ".weight", "b": ".bias", None: ".weight"}
POINTER = re.compile(r'^model_checkpoint_path: "(?:[^"]*/)?([^"/]+)"', re.MULTILINE)


def read(folder: Path) -> Weights:
    """The folder as OpenAI's download script leaves it -> weights."""
    config = stated_shape(read_json(folder / HPARAMS, error=ModelError), SHAPE, folder / HPARAMS)
    bundle = Bundle(_index(folder))
    tensors: dict[str, Tensor] = {}
    for variable in bundle.entries:
        name = released_name(variable)
        if name is None:
            continue  # what a trainer kept beside the model: moments, the step
        value = bundle.tensor(variable)
        tensors[name] = value.squeeze(0) if value.dim() == 3 else value
    rows = tensors["wte.weight"].size(0) if "wte.weight" in tensors else config.vocab_size
    if rows != config.vocab_size:
        raise ModelError(
            f"{folder / HPARAMS} says n_vocab {config.vocab_size:,}, the checkpoint has {rows:,} "
            "rows of embeddings",
            remedy=f"use the {HPARAMS} that belongs to this checkpoint",
        )
    return checked(Weights(config, tensors), folder)


def released_name(variable: str) -> str | None:
    """`released_name("model/h0/attn/c_attn/w") == "h.0.attn.c_attn.weight"`; None: not GPT-2's."""
    match = NAME.fullmatch(variable)
    if match is None:
        return None
    layer, name, part = match.groups()
    return (f"h.{layer}." if layer else "") + name.replace("/", ".") + PARTS[part]


def _index(folder: Path) -> Path:
    """The index of the checkpoint that `checkpoint` points to, or the only one there."""
    pointer = folder / "checkpoint"
    found = sorted(folder.glob("*.index"))
    if pointer.exists() and pointer.stat().st_size < 100_000:
        match = POINTER.search(pointer.read_text(encoding="utf-8", errors="replace"))
        if match:
            found = [folder / f"{match[1]}.index"]
    if len(found) != 1 or not found[0].exists():
        names = ", ".join(path.name for path in found) or "no .index file"
        raise ModelError(
            f"{folder} holds {names}, expected one checkpoint", remedy="keep the one to read"
        )
    return found[0]
