"""A model between two formats: its shape, its tensors under the released names, its vocabulary."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import HEAD
from gptwo.tokens.tokenizer import Tokenizer

MAPS = re.compile(r"\.(c_attn|c_proj|c_fc)\.weight$")  # stored [in, out] here, [out, in] elsewhere


@dataclass(frozen=True)
class Weights:
    """What a reader returns and a writer takes.

    `tensors`: released names without `transformer.`, maps [in, out], float32, on the CPU;
    `lm_head.weight` only where the head is not the embedding (`config.tied_head` is False).
    `tokenizer`: None where the source brings none.
    """

    config: GPT2Config
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer | None = None


def shapes(config: GPT2Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every released name with its shape; a name at a time, for n_layer may be absurd."""
    C, inner = config.n_embd, 4 * config.n_embd
    yield "wte.weight", (config.vocab_size, C)
    yield "wpe.weight", (config.n_ctx, C)
    for layer in range(config.n_layer):
        block = f"h.{layer}."
        for norm in ("ln_1", "ln_2"):
            yield f"{block}{norm}.weight", (C,)
            yield f"{block}{norm}.bias", (C,)
        for name, n_in, n_out in (
            ("attn.c_attn", C, 3 * C),
            ("attn.c_proj", C, C),
            ("mlp.c_fc", C, inner),
            ("mlp.c_proj", inner, C),
        ):
            yield f"{block}{name}.weight", (n_in, n_out)
            yield f"{block}{name}.bias", (n_out,)
    yield "ln_f.weight", (C,)
    yield "ln_f.bias", (C,)
    if not config.tied_head:
        yield HEAD, (config.vocab_size, C)


def stated_shape(
    values: Any,
    words: Mapping[str, str],
    source: Path,
    *,
    activation: str = "gelu_new",
    tied_head: bool = True,
) -> GPT2Config:
    """The shape as a file states it; `words`: what it calls vocab_size, n_ctx and the rest.

    Raises ModelError for what is missing, not a whole number or no shape of a GPT-2.
    """
    try:
        sides = {ours: values[word] for ours, word in words.items()}
        wrong = [words[name] for name, side in sides.items() if type(side) is not int]
        if wrong:
            raise ValueError(f"{', '.join(wrong)}: expected whole numbers")
        return GPT2Config(activation=activation, tied_head=tied_head, **sides)
    except (LookupError, TypeError, ValueError) as error:
        what = f"{error} is missing" if isinstance(error, LookupError) else error
        raise ModelError(
            f"{source} states no GPT-2 shape: {what}", remedy="use the file as its tool wrote it"
        ) from error


def checked(weights: Weights, source: Path) -> Weights:
    """`weights` whose tensors are exactly those of its shape, float32, contiguous and finite.

    Raises ModelError that names what `source` lacks, has too much or holds in another shape.
    """
    left = dict(weights.tensors)
    wrong = []
    for name, shape in shapes(weights.config):
        found = left.pop(name, None)
        if found is None or tuple(found.shape) != shape:
            said = "missing" if found is None else tuple(found.shape)
            wrong.append(f"{name}: {said} in the file, {shape} expected")
        if len(wrong) == 5:
            break
    else:
        wrong += [f"{name}: unexpected" for name in sorted(left)[: 5 - len(wrong)]]
    if wrong:
        raise ModelError(
            f"{source} is no GPT-2 of its stated shape: {'; '.join(wrong)}",
            remedy="use the file as its tool wrote it, with the settings that belong to it",
        )
    tensors = {
        name: _checked_numbers(value, name, source) for name, value in weights.tensors.items()
    }
    return replace(weights, tensors=tensors)


def _checked_numbers(value: Tensor, name: str, source: Path) -> Tensor:
    if not value.is_floating_point():
        raise ModelError(
            f"{source}: {name} holds {value.dtype}, expected floating-point numbers",
            remedy="use weights that are not quantised",
        )
    value = value.detach().float().contiguous()
    if not torch.isfinite(value).all():
        raise ModelError(
            f"{source}: {name} holds numbers that are not finite", remedy="restore the file"
        )
    return value


def transposed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps [in, out] <-> [out, in]; embeddings, gains and biases as they are."""
    return {
        name: value.t().contiguous() if MAPS.search(name) and value.dim() == 2 else value
        for name, value in tensors.items()
    }


def fitted(weights: Weights, source: Path) -> tuple[Weights, list[str]]:
    """Cut rows that pad the vocabulary past the tokenizer's last id, and say so.

    Logits of real ids stay what they were. A tokenizer with more ids than rows is a ModelError.
    """
    rows = weights.config.vocab_size
    if weights.tokenizer is None:
        return weights, [f"no tokenizer known: all {rows:,} rows of embeddings are kept"]
    if weights.tokenizer.vocab_size == rows:
        return weights, []
    known = weights.tokenizer.vocab_size
    if known > rows:
        raise ModelError(
            f"the tokenizer has {known:,} tokens, {source} {rows:,} rows of embeddings",
            remedy="give the tokenizer this model was trained with",
        )
    tensors = {
        name: value[:known].clone() if name in ("wte.weight", HEAD) else value
        for name, value in weights.tensors.items()
    }
    config = replace(weights.config, vocab_size=known)
    note = f"{rows - known:,} rows of padding cut: {rows:,} rows, {known:,} tokens"
    return replace(weights, config=config, tensors=tensors), [note]


def model_of(weights: Weights) -> GPT2:
    """The model itself, in evaluation mode; it shares memory with `weights`."""
    with torch.device("meta"):
        model = GPT2(weights.config)
    model.load_state_dict(weights.tensors, assign=True)
    return model.eval()


@torch.no_grad()
def sample_logits(weights: Weights) -> Tensor:
    """Logits (2, T, V) on fixed random ids: what a faithful copy of the model must repeat."""
    source = torch.Generator().manual_seed(0)
    length = min(weights.config.n_ctx, 32)
    ids = torch.randint(weights.config.vocab_size, (2, length), generator=source)
    return model_of(weights)(ids)
