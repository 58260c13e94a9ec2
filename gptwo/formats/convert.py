"""Any format in, any format out, and the same logits in both.

What `convert` makes is always a folder with a manifest: the weights under the name their tool
expects, and the vocabulary's files beside them where there is one.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from gptwo.artifacts import Manifest, fingerprint_inputs, stage
from gptwo.errors import DataError, ModelError, ResourceError, UsageError
from gptwo.formats import hf, llmc, mingpt, nanogpt, openai
from gptwo.formats.extras import extra_for
from gptwo.formats.recognise import locate, recognise
from gptwo.formats.weights import Weights, fitted, sample_logits
from gptwo.progress import SILENT, Reporter
from gptwo.tokens.files import HF, HF_MERGES, MERGES
from gptwo.tokens.tokenizer import Tokenizer

BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 2}  # of a number, at most
SHAPE = ("vocab_size", "n_ctx", "n_layer", "n_head", "n_embd", "activation", "tied_head")
VOCABULARIES = (MERGES, HF_MERGES, HF)  # any of these lets a tokenizer be read
# Each takes the path that `locate` gives, and leaves the vocabulary to `read`.
READERS: dict[str, Callable[[Path], Weights]] = {
    "hf": hf.read,
    "pytorch": hf.read_pickle,
    "nanogpt": nanogpt.read,
    "llmc": llmc.read,
    "openai": openai.read,
    "mingpt": mingpt.read,
}


def _gguf(weights: Weights, out: Path, dtype: str) -> list[str]:
    with extra_for("gguf"):
        from gptwo.formats import gguf

    return gguf.write(weights, out, dtype)


def _onnx(weights: Weights, out: Path, dtype: str) -> list[str]:
    with extra_for("onnx"):
        from gptwo.formats import onnx

    return onnx.write(weights, out, dtype)


# Each writes its files into the folder `out`, which exists, and returns notes: what the user must
# know about them, often nothing. The vocabulary's own files are written by `convert`.
WRITERS: dict[str, Callable[[Weights, Path, str], list[str]]] = {
    "hf": hf.write,
    "nanogpt": nanogpt.write,
    "llmc": llmc.write,
    "gguf": _gguf,
    "onnx": _onnx,
}
DTYPES = {
    "hf": ("f32", "f16", "bf16"),
    "nanogpt": ("f32",),
    "llmc": ("f32", "bf16"),
    "gguf": ("f32", "f16", "q8_0"),
    "onnx": ("f32",),
}


def read(path: Path, tokenizer: Path | None = None) -> tuple[Weights, list[str]]:
    """A model in any format, and notes about what was left out.

    The vocabulary is `tokenizer`'s or, without one, that of the files beside the weights.
    """
    kind, file = locate(path)
    known = _tokenizer(file, tokenizer)
    return fitted(replace(READERS[kind](file), tokenizer=known), path)


def _tokenizer(file: Path, given: Path | None) -> Tokenizer | None:
    beside = file if file.is_dir() else file.parent
    if given is None and any((beside / name).exists() for name in VOCABULARIES):
        given = beside
    return None if given is None else Tokenizer.load(given)


def convert(
    source: Path,
    out: Path,
    *,
    to: str,
    dtype: str = "f32",
    tokenizer: Path | None = None,
    reporter: Reporter = SILENT,
) -> dict[str, Any]:
    """Write the model in `source` as the format `to` into the folder `out`.

    Returns what was read (format, shape, parameters), what was written (files, sizes, SHA-256),
    notes, and the largest difference between the logits of both where `to` can be read back.
    """
    if dtype not in DTYPES.get(to, ()):
        can = "; ".join(f"{name}: {', '.join(dtypes)}" for name, dtypes in DTYPES.items())
        raise UsageError(
            f"cannot write {dtype} {to}", remedy=f"formats and their numbers are {can}"
        )
    kind, file = locate(source)
    known = _tokenizer(file, tokenizer)
    fingerprint = known.fingerprint if known is not None else None
    inputs = _identity(file) | {"tokenizer": fingerprint or "none"}
    with stage(out, kind="model", config={"to": to, "dtype": dtype}, inputs=inputs) as made:
        if made.done is not None:
            return _result(made.done, out)
        reporter.say(f"convert: reading {file} ({kind})")
        weights, notes = fitted(replace(READERS[kind](file), tokenizer=known), source)
        shape, expected = weights.config, sample_logits(weights)
        reporter.check()
        _check_space(out, shape.parameters() * BYTES[dtype])
        reporter.say(f"convert: writing {to} to {out}")
        with TemporaryDirectory(dir=made.work) as name:
            draft = Path(name)
            notes += WRITERS[to](weights, draft, dtype)
            if known is not None:
                known.save(draft)
            del weights  # what is read back need not lie beside it in memory
            reporter.check()
            difference = _difference(expected, draft, dtype) if to in READERS else None
            for path in draft.iterdir():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
                path.rename(out / path.name)
        manifest = made.commit(
            counts={"parameters": shape.parameters()},
            details={
                "read": {"format": kind, "shape": {name: getattr(shape, name) for name in SHAPE}},
                "notes": notes,
                "largest_logit_difference": difference,
                "tokenizer_fingerprint": fingerprint,
            },
        )
    return _result(manifest, out)


def _identity(file: Path) -> dict[str, str]:
    try:
        return fingerprint_inputs([file])
    except DataError as error:  # a manifest that is damaged: here it is a model's
        raise ModelError(error.message, remedy=error.remedy) from error


def _check_space(out: Path, needed: int) -> None:
    """Before the first byte: not every tool's writer says that the disk is full when it is."""
    needed += needed // 20 + 8_000_000  # the vocabulary, names, padding
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ResourceError(
            f"the result takes {needed / 1e6:,.0f} MB and {out} has {free / 1e6:,.0f} MB",
            remedy="make room, or choose another folder",
        )


def _difference(expected: Tensor, out: Path, dtype: str) -> float:
    """How far the logits of what was written are from the source's; none at all in f32."""
    kind, file = locate(out)
    difference = float((expected - sample_logits(READERS[kind](file))).abs().max())
    if dtype == "f32" and difference:
        raise ModelError(
            f"what was written gives logits up to {difference:.2g} from the source's, expected "
            "the same bits; it is not kept",
            remedy="try again, on another disk if it happens again",
        )
    return difference


def _result(manifest: Manifest, out: Path) -> dict[str, Any]:
    details = manifest.details
    return {
        "out": str(out),
        "read": {**details["read"], "parameters": manifest.counts["parameters"]},
        "wrote": {**manifest.config, "files": manifest.files},
        "tokenizer": details["tokenizer_fingerprint"],
        "largest_logit_difference": details["largest_logit_difference"],
        "notes": details["notes"],
    }


__all__ = ["DTYPES", "READERS", "WRITERS", "convert", "read", "recognise"]
