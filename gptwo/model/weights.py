"""Weights in and out: a checkpoint folder is a Hugging Face GPT-2 folder.

Released names, released orientation, safetensors only, in one file or in shards with an index. A
pickle is never opened.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.overrides import TorchFunctionMode

from gptwo.artifacts import (
    MANIFEST,
    atomic_write,
    damage,
    read_json,
    read_manifest,
    write_json,
)
from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.tensor_file import TensorFile, tensor_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"  # which shard holds which tensor
CONFIG = "config.json"
PREFIX = "transformer."
HEAD = "lm_head.weight"
MAX_HEADER_BYTES = 10_000_000  # GPT-2 XL's has 58,000; a parsed one takes ten times its size
MAX_INDEX_BYTES = 10_000_000  # that of the largest GPT-2 has 50,000
SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")  # a file of this folder and no other
OTHER_CONFIG = "use the config.json that belongs to these weights"
# What a config.json may say beside the shape: the first is the default, other values make a
# model that loads and computes something else.
GPT2_ONLY: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True, False),
}
PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))  # how they start
BUFFERS = re.compile(r"\.attn\.(bias|masked_bias)$")  # causal masks that old files carry


def save_checkpoint_model(model: GPT2, folder: Path) -> None:
    """Write config.json and model.safetensors so that GPT-2 tools open `folder` as it is."""
    write_json(folder / CONFIG, hf_config(model.config))
    with atomic_write(folder / WEIGHTS) as handle:
        for piece in weights_file(model.state_dict()).pieces():
            handle.write(piece)


def weights_file(weights: Mapping[str, torch.Tensor]) -> TensorFile:
    """model.safetensors: the tensors of a model's `state_dict` under their released names."""
    named = {name if name == HEAD else PREFIX + name: value for name, value in weights.items()}
    return tensor_file(named, {"format": "pt"})


def hf_config(config: GPT2Config) -> dict[str, Any]:
    """The shape in Hugging Face's words. The end-of-text id is the last of the vocabulary."""
    end = config.vocab_size - 1
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        "activation_function": config.activation,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "bos_token_id": end,
        "eos_token_id": end,
        "tie_word_embeddings": config.tied_head,
        "torch_dtype": "float32",
    }


def resolve(model: Path) -> Path:
    """The folder that holds the weights: a run's newest committed checkpoint, or `model` itself."""
    if not model.exists():
        raise ModelError(f"{model} does not exist", remedy="name a run or a model folder")
    if model.is_file():
        raise ModelError(
            f"{model} is {what_is(model)}, expected a folder", remedy="name the folder it lies in"
        )
    if (model / CONFIG).exists():
        return model
    steps = sorted(path.parent for path in model.glob(f"checkpoints/step-*/{MANIFEST}"))
    if not steps:
        raise ModelError(
            f"{model} holds neither {CONFIG} nor a finished checkpoint",
            remedy="train first, or name a run, checkpoint or Hugging Face GPT-2 folder",
        )
    return steps[-1]


def load_model(folder: Path, device: str = "cpu") -> GPT2:
    """The model in `folder`, in evaluation mode; hashes are checked where a manifest has them.

    Numbers of 16 bits become float32, exactly. Raises ModelError for files that are damaged,
    foreign or of another shape.
    """
    folder = resolve(folder)
    _check_hashes(folder, (CONFIG, INDEX))
    files = weight_files(folder)
    _check_hashes(folder, [path.name for path in files])
    config = read_config(folder)
    tensors = read_tensors(folder)
    source = files[0] if len(files) == 1 else folder / INDEX
    if config.tied_head:
        drop_copy_of_embedding(tensors, source)
    _check_shape(config, tensors, source)
    with torch.device("meta"), _Undrawn():
        model = GPT2(config)
    _fit(model, tensors, source)
    model.load_state_dict(tensors, assign=True)
    return model.float().to(device).eval()


class _Undrawn(TorchFunctionMode):
    """Parameters are not drawn: without memory to draw into, torch would import its compiler."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _check_hashes(folder: Path, names: Collection[str]) -> None:
    """The model's own files only: the optimiser's are twice as large and not read here."""
    if not (folder / MANIFEST).exists():
        return
    manifest = read_manifest(folder, error=ModelError)
    problems = damage(folder, manifest, names=names)
    if problems:
        raise ModelError(
            problems[0], remedy="restore the file, or delete this checkpoint to fall back"
        )


def weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that its index names.

    Raises ModelError for an index that is damaged, leads out of the folder or names no files.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    shards = sorted(set(_weight_map(folder / INDEX).values()))
    missing = [name for name in shards if not (folder / name).exists()]
    if missing:
        raise ModelError(
            f"{folder / INDEX} names {len(shards)} files; missing: {_first(missing)}",
            remedy="download all of them",
        )
    return [folder / name for name in shards]


def _weight_map(path: Path) -> dict[str, str]:
    """name of each tensor -> name of the shard that holds it, from the index."""
    if path.stat().st_size > MAX_INDEX_BYTES:
        raise ModelError(f"{path} is too large to be an index", remedy="restore the file")
    index = read_json(path, error=ModelError)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not shard_of:
        raise ModelError(f"{path} has no weight_map", remedy="restore the file")
    for name, shard in shard_of.items():
        if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
            raise ModelError(
                f"{path}: {name} is in {shard!r}, expected a .safetensors file of its folder",
                remedy="restore the file; do not trust where it came from",
            )
    return shard_of


def read_config(folder: Path) -> GPT2Config:
    """config.json -> the shape; refuses what is not GPT-2."""
    path = folder / CONFIG
    if path.exists() and path.stat().st_size > 1_000_000:
        raise ModelError(f"{path} is too large to be a config", remedy="restore the file")
    values = read_json(path, error=ModelError)
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no JSON object", remedy="restore the file")
    for name, wanted in GPT2_ONLY.items():
        if values.get(name, wanted[0]) not in wanted:
            raise ModelError(
                f"{path}: {name} is {values[name]!r}, expected {wanted[0]!r}",
                remedy="use a GPT-2 model",
            )
    try:
        config = GPT2Config(
            vocab_size=int(values["vocab_size"]),
            n_ctx=int(values.get("n_positions") or values["n_ctx"]),
            n_layer=int(values["n_layer"]),
            n_head=int(values["n_head"]),
            n_embd=int(values["n_embd"]),
            dropout=float(values.get("resid_pdrop") or 0.0),
            activation="gelu" if values.get("activation_function") == "gelu" else "gelu_new",
            tied_head=bool(values.get("tie_word_embeddings", True)),
        )
        inner = values.get("n_inner")
        if inner not in (None, 4 * config.n_embd):
            raise ValueError(f"n_inner is {inner!r}, expected 4 n_embd")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise ModelError(f"{path} has no GPT-2 shape: {what}", remedy="restore the file") from error
    return config


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors by released name, without `transformer.` and mask buffers."""
    named: dict[str, torch.Tensor] = {}
    found: dict[str, str] = {}  # name as stored -> the file
    home: dict[str, str] = {}  # released name -> the file
    for path in weight_files(folder):
        for name, value in _read_file(path).items():
            short = name.removeprefix(PREFIX)
            if short in home:
                raise ModelError(
                    f"{path}: {short} comes a second time, the first is in {home[short]}",
                    remedy="use the files as their tool wrote them",
                )
            found[name] = home[short] = path.name
            if BUFFERS.search(name):
                continue
            if not value.is_floating_point():
                raise ModelError(
                    f"{path}: {short} holds {value.dtype}, expected floating-point numbers",
                    remedy="use weights that are not quantised",
                )
            named[short] = value
    if not (folder / WEIGHTS).exists():
        shard_of = _weight_map(folder / INDEX)
        wrong = [name for name in {**shard_of, **found} if shard_of.get(name) != found.get(name)]
        if wrong:
            places = [
                f"{name} is in {found.get(name, 'no file')}, listed in {shard_of.get(name, 'none')}"
                for name in wrong
            ]
            raise ModelError(
                f"{folder / INDEX} does not fit its files: {_first(places)}",
                remedy="use the files as their tool wrote them",
            )
    return named


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        others = [p.name for p in path.parent.glob("*.bin")] + [
            p.name for p in path.parent.glob("*.pt")
        ]
        found = f"only {', '.join(others)}, pickles that are never opened" if others else "none"
        raise ModelError(
            f"{path} is missing; found {found}",
            remedy="make it safetensors with `gptwo convert`" if others else "download the weights",
        )
    kind = what_is(path)
    if kind != "a safetensors file":
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) is {kind}, not safetensors weights",
            remedy="download or save the weights again",
        )
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}", remedy="restore the file") from error


def _first(lines: list[str]) -> str:
    """The first five of a list, and how many more there are."""
    return "; ".join(lines[:5]) + (f" (and {len(lines) - 5} more)" if lines[5:] else "")


def drop_copy_of_embedding(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Files often repeat a tied embedding as the head; another head would silently be lost."""
    head, embedding = tensors.pop(HEAD, None), tensors.get("wte.weight")
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        raise ModelError(
            f"{path} has an output head of its own, but by its settings the embedding is it",
            remedy="use the file as its tool wrote it; for a trained head config.json must say "
            "tie_word_embeddings: false",
        )


def what_is(path: Path) -> str:
    """A file's kind by its first bytes, in words for an error message."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        head = handle.read(512)
    start = head.lstrip().lower()
    if size == 0:
        return "an empty file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself"
    if head.startswith((b"PK\x03\x04", *PICKLES)):
        return "a pickle (it could run code, so it is never opened)"
    if size < 10:
        return "too short for any weights"
    header = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{":
        return "of no known kind"
    if header > min(size - 8, MAX_HEADER_BYTES):
        return "a truncated or forged safetensors file"
    return "a safetensors file"


def _check_shape(config: GPT2Config, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Hold the config to the file before a model of that shape is built, however absurd it is."""
    blocks = {name.split(".")[1] for name in tensors if name.startswith("h.")}
    sizes = {
        name: tuple(tensors[name].shape) for name in ("wte.weight", "wpe.weight") & tensors.keys()
    }
    stated = {
        "n_layer": (config.n_layer, len(blocks)),
        "vocab_size, n_embd": ((config.vocab_size, config.n_embd), sizes.get("wte.weight")),
        "n_ctx, n_embd": ((config.n_ctx, config.n_embd), sizes.get("wpe.weight")),
    }
    wrong = [
        f"{name}: {found if found is not None else 'missing'} in the file, {said} expected"
        for name, (said, found) in stated.items()
        if said != found
    ]
    if wrong:
        raise ModelError(f"{path} does not fit {CONFIG}: {'; '.join(wrong)}", remedy=OTHER_CONFIG)


def _fit(model: GPT2, tensors: dict[str, torch.Tensor], path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    wrong = [
        f"{name}: {found.get(name, 'missing')} in the file, {expected.get(name)} expected"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    if wrong:
        raise ModelError(f"{path} does not fit {CONFIG}: {_first(wrong)}", remedy=OTHER_CONFIG)
