"""Is a model what it says? Hashes, shapes, numbers, and golden outputs where there are some.

Golden outputs are what the released 124M weights gave elsewhere for five prompts: the logits of the
last position, and the attention scores of every layer and head. They find what hashes cannot: that
the arithmetic here is not GPT-2's.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from gptwo import artifacts
from gptwo.artifacts import MANIFEST, read_json, read_manifest
from gptwo.errors import DataError, GptwoError, ModelError
from gptwo.language_model import LanguageModel, find_model, load, released_name
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import CONFIG, WEIGHTS
from gptwo.progress import Reporter
from gptwo.tokens.tokenizer import Tokenizer

GOLDEN = "gpt2_golden"
OUTPUTS, PROMPTS = "gpt2_124M_reference_outputs.npz", "gpt2_124M_reference_prompts.json"
GPT2_FINGERPRINT = "f0a9def168a061eeb8b587f7b1e2651ca243519dc9d09c9e8982290a24322780"
# What rounding of float32 may do: scores reach 250, where one step is 1.5e-5, and twelve layers of
# sums in another order lie between two implementations. A random model of this shape with scores
# up to 157 is 3e-4 off its float64 self; another form of the GELU moves its scores by 5e-2.
TOLERANCES = {
    "logits": 1e-2,
    "top10": 2e-2,
    "attn": 1e-2,
    "attn_scaled": 1e-2,
    "attn_softmax": 1e-3,
}
SAID = {
    "logits": "logits",
    "top10": "ten likeliest tokens",
    "attn": "attention scores",
    "attn_scaled": "scaled attention scores",
    "attn_softmax": "attention weights",
}


def verify(model: Path, *, data: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Check a run, a model folder or a released name; returns what was found.

    Every hash that is known, then, where there is a model: its shape, its tokenizer, its numbers,
    and golden outputs from `data`/gpt2_golden. Raises ModelError or DataError for what is wrong.
    """
    folder = find_model(model, reporter)
    error = ModelError if (folder / CONFIG).exists() else DataError
    has_model = _has_model(folder, error)
    report: dict[str, Any] = {"path": str(folder)}
    if has_model and not any(folder.rglob(MANIFEST)):
        report["hashes"] = f"no {MANIFEST} to compare the files with"
    else:
        report |= artifacts.verify(folder, error=error)
    if not has_model:
        return report
    loaded = load(folder, reporter=reporter)
    report["model"] = _describe(loaded)
    report["golden_outputs"] = _golden_outputs(loaded, data, reporter)
    return report


def _has_model(folder: Path, error: type[GptwoError]) -> bool:
    """Whether there is a model to load. A folder's manifest knows: ONNX has a config.json too."""
    if (folder / MANIFEST).exists():
        files = read_manifest(folder, error=error).files
        return any(name.startswith(WEIGHTS) for name in files)
    return (folder / CONFIG).exists() or any(folder.glob(f"checkpoints/step-*/{MANIFEST}"))


def _describe(loaded: LanguageModel) -> dict[str, Any]:
    """What a model is; refuses numbers that are not finite."""
    for name, weight in loaded.model.named_parameters():
        bad = int((~torch.isfinite(weight)).sum())
        if bad:
            raise ModelError(
                f"{loaded.path / WEIGHTS}: {name} has {bad:,} of {weight.numel():,} numbers that "
                "are not finite",
                remedy="restore the file, or go back to a checkpoint before it",
            )
    sha256, vocab_size = loaded.description["weights_sha256"], loaded.model.config.vocab_size
    return {
        "folder": str(loaded.path),
        "parameters": loaded.description["parameters"],
        **loaded.description["shape"],
        "padding_rows": vocab_size - loaded.tokenizer.vocab_size,
        "tokenizer_fingerprint": loaded.tokenizer.fingerprint,
        "weights_sha256": sha256,
        "released_as": released_name(sha256) or "none of the pinned models",
    }


def _golden_outputs(
    loaded: LanguageModel, data: Path | None, reporter: Reporter
) -> dict[str, Any] | str:
    """The comparison, or why there is none."""
    shape, small = loaded.model.config, GPT2Config()
    same = all(
        getattr(shape, name) == getattr(small, name)
        for name in ("n_layer", "n_head", "n_embd", "n_ctx", "tied_head")
    )
    if loaded.tokenizer.fingerprint != GPT2_FINGERPRINT or not same:
        return "not checked, there are none for this vocabulary and shape"
    if data is None or not (data / GOLDEN / OUTPUTS).exists():
        return "not checked, no data"
    return check_golden(loaded.model, loaded.tokenizer, data / GOLDEN, reporter)


@dataclass(frozen=True)
class Golden:
    """What a prompt gave elsewhere, by kind.

    logits (V); top10, ids (10); attn, attn_scaled (not masked), attn_softmax (L, H, T, T).
    """

    prompt: str
    ids: list[int]
    outputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """The largest difference of one kind of output from the golden one."""

    kind: str
    value: float  # inf where the outputs are not numbers or of another shape
    prompt: int
    layer: int | None = None
    head: int | None = None

    @property
    def share(self) -> float:
        """Of the tolerance: above 1 is a failure."""
        return self.value / TOLERANCES[self.kind]

    def __str__(self) -> str:
        where = "" if self.layer is None else f" of layer {self.layer} head {self.head}"
        return f"prompt {self.prompt}, {SAID[self.kind]}{where}: {self.value:.4g} off"


def read_golden(folder: Path) -> list[Golden]:
    """The prompts in `folder` with their outputs; raises DataError for what does not fit."""
    prompts = read_json(folder / PROMPTS)
    try:
        with (
            (folder / OUTPUTS).open("rb") as handle,
            np.load(handle, allow_pickle=False) as stored,
        ):
            return [
                Golden(
                    entry["prompt"],
                    list(entry["token_ids"]),
                    {"top10": np.array([token["id"] for token in entry["top10"]])}
                    | {k: stored[f"{k}_{number}"] for k in TOLERANCES if k != "top10"},
                )
                for number, entry in enumerate(prompts)
            ]
    except (OSError, ValueError, LookupError, TypeError, BadZipFile) as error:
        raise DataError(
            f"{folder} holds no golden outputs: {error}", remedy="restore the folder"
        ) from error


def check_golden(
    model: GPT2, tokenizer: Tokenizer, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Hold a model to the golden outputs in `folder`; returns the largest difference of each kind.

    They may come from an implementation with the exact GELU in the place of the tanh form that
    GPT-2 was trained with, so both are tried, and the one that fits better is named. Raises
    ModelError that names its worst difference, and the first layer that differs.
    """
    golden = read_golden(folder)
    for number, one in enumerate(golden):
        ids = tokenizer.encode(one.prompt)
        if ids != one.ids:
            raise ModelError(
                f"golden prompt {number} {one.prompt!r} becomes tokens {ids}, expected {one.ids}",
                remedy="use GPT-2's own tokenizer files",
            )
    tried: dict[str, list[Difference]] = {}
    for activation in ("gelu_new", "gelu"):
        with reporter.bar(f"golden outputs, {activation}", len(golden), "prompts") as bar:
            tried[activation] = []
            for number, one in enumerate(golden):
                reporter.check()
                found = outputs_of(_with_activation(model, activation), one.ids)
                tried[activation] += _compare(number, one, found)
                bar.advance()
    activation = min(tried, key=lambda name: max(d.share for d in tried[name]))
    differences = tried[activation]
    worst = max(differences, key=lambda d: d.share)
    if worst.share > 1:
        failing = [d for d in differences if d.share > 1]
        first = min(failing, key=lambda d: math.inf if d.layer is None else d.layer)
        raise ModelError(
            f"golden outputs differ: {worst}, {TOLERANCES[worst.kind]:g} allowed; first {first}",
            remedy="these are not the released weights, or they were damaged or changed on a way "
            "that knows no hashes",
        )
    return {
        "prompts": len(golden),
        "token_ids": "equal",
        "activation": activation,
        **{
            SAID[kind].replace(" ", "_"): {
                "worst_difference": max(d.value for d in differences if d.kind == kind),
                "tolerance": tolerance,
            }
            for kind, tolerance in TOLERANCES.items()
        },
    }


def _with_activation(model: GPT2, activation: str) -> GPT2:
    """The same weights, not copied, under another form of the GELU."""
    if activation == model.config.activation:
        return model
    with torch.device("meta"):
        other = GPT2(replace(model.config, activation=activation))
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()


@torch.inference_mode()
def outputs_of(model: GPT2, ids: list[int]) -> dict[str, np.ndarray]:
    """The outputs of `Golden` for a prompt; scores are computed from what c_attn gives."""
    maps: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, given, made: maps.append(made[0]))
        for name, module in model.named_modules()
        if name.endswith(".attn.c_attn")
    ]
    try:
        logits = model(torch.tensor([ids], device=model.wte.weight.device))[0, -1]  # (V)
    finally:
        for hook in hooks:
            hook.remove()
    T, H, D = len(ids), model.config.n_head, model.config.n_embd // model.config.n_head
    q, k, _ = torch.stack(maps).view(-1, T, 3, H, D).permute(2, 0, 3, 1, 4)  # (L, H, T, D)
    attn = q @ k.transpose(-1, -2)  # (L, H, T, T)
    scaled = attn / math.sqrt(D)
    future = torch.ones(T, T, dtype=torch.bool, device=attn.device).triu(1)
    softmax = scaled.masked_fill(future, -math.inf).softmax(-1)
    found = {"logits": logits, "attn": attn, "attn_scaled": scaled, "attn_softmax": softmax}
    return {kind: value.float().cpu().numpy() for kind, value in found.items()}


def _compare(number: int, golden: Golden, found: dict[str, np.ndarray]) -> list[Difference]:
    """The largest differences of prompt `number`: of each layer, and of the logits."""
    differences = []
    for kind in ("attn", "attn_scaled", "attn_softmax"):
        distance = _distance(golden.outputs[kind], found[kind])  # (L, H, T, T)
        for layer, of_layer in enumerate(distance):
            heads = of_layer.max(axis=(-1, -2))  # (H)
            head = int(heads.argmax())
            differences.append(Difference(kind, float(heads[head]), number, layer, head))
    wanted, logits = golden.outputs["logits"], found["logits"]
    differences.append(Difference("logits", float(_distance(wanted, logits).max()), number))
    # Near-ties may change places: what counts is how far apart the golden logits of two tokens of
    # the same rank are.
    top = golden.outputs["top10"]
    ours = np.argsort(-logits[: len(wanted)], kind="stable")[: len(top)]
    gap = float(_distance(wanted[top], wanted[ours]).max())
    return [*differences, Difference("top10", gap, number)]


def _distance(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """|found - wanted|, infinite where it is no number; logits past the golden ones are padding."""
    if wanted.ndim == 1:
        found = found[: len(wanted)]
    if wanted.shape != found.shape:
        raise DataError(
            f"golden outputs have the shape {wanted.shape}, the model's {found.shape}",
            remedy="use the golden outputs of a model of this shape",
        )
    return np.nan_to_num(np.abs(found - wanted), nan=np.inf)
