"""How a vocabulary lies in files: OpenAI's two, the same two under Hugging Face's names, and the
one file of its tokenizers library. Tokens are spelt in the printable alphabet of `bpe`."""

import json
from pathlib import Path
from typing import Any

from gptwo.errors import ModelError
from gptwo.tokens.bpe import BYTE_TO_CHAR, CHAR_TO_BYTE, END_OF_TEXT, ReferenceBPE

VOCAB, MERGES, HF = "encoder.json", "vocab.bpe", "tokenizer.json"
HF_VOCAB, HF_MERGES = "vocab.json", "merges.txt"  # the same content
FILES = (VOCAB, MERGES, HF_VOCAB, HF_MERGES, HF)
HEADER = "#version: 0.2"
MAX_BYTES = 100_000_000

Merge = tuple[bytes, bytes]


def shown(token: bytes) -> str:
    """A token in the printable alphabet of the files: `shown(b" a") == "Ġa"`."""
    return "".join([BYTE_TO_CHAR[byte] for byte in token])


def spellings(reference: ReferenceBPE) -> dict[bytes, str]:
    """Token -> how the files show it: `shown` for all, each put together from its halves."""
    known = {bytes([byte]): char for byte, char in BYTE_TO_CHAR.items()}
    for token, (a, b) in zip(reference.tokens[256:], reference.merges, strict=True):
        known[token] = (known.get(a) or shown(a)) + (known.get(b) or shown(b))
    return known


def merge_lines(reference: ReferenceBPE) -> list[str]:
    """The merges in order, "left right", as in vocab.bpe."""
    known = spellings(reference)
    return [f"{known.get(a) or shown(a)} {known.get(b) or shown(b)}" for a, b in reference.merges]


def vocabulary(reference: ReferenceBPE) -> dict[str, int]:
    """Spelling -> id, as in encoder.json; of two merges that spell the same the first counts."""
    known = spellings(reference)
    return {known[token]: i for token, i in reference.ids.items()} | {END_OF_TEXT: reference.eot}


def read_merges(path: Path) -> list[Merge]:
    """The pairs of a vocab.bpe or merges.txt."""
    return parse_merges(_read(path), path)


def parse_merges(text: str, path: Path) -> list[Merge]:
    """The lines of vocab.bpe or merges.txt -> pairs of bytes; the header may be missing."""
    lines = text.split("\n")
    headed = lines[0].startswith("#version")
    if not headed and lines[0].count(" ") != 1:
        raise ModelError(
            f"{path} starts with {lines[0][:40]!r}, expected {HEADER!r}", remedy="restore the file"
        )
    if lines[-1]:
        raise ModelError(f"{path} is truncated: its last line has no end", remedy="restore it")
    return _pairs(lines[headed:-1], path)


def _pairs(lines: list[str], path: Path) -> list[Merge]:
    """Spelt pairs -> pairs of bytes. A half is a token made before, nearly always."""
    known = {char: bytes([byte]) for char, byte in CHAR_TO_BYTE.items()}
    merges = []
    for line in lines:
        parts = line.split(" ")
        try:
            a, b = [
                known.get(part) or bytes([CHAR_TO_BYTE[char] for char in part]) for part in parts
            ]
        except (KeyError, ValueError):
            a = b = b""
        if not a or not b:
            raise ModelError(f"{path} has a merge {line[:60]!r}", remedy="restore the file")
        known[parts[0] + parts[1]] = a + b
        merges.append((a, b))
    return merges


def _read(path: Path) -> str:
    """A text file; line ends of other systems become newlines."""
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise ModelError(f"{path} has {size:,} bytes", remedy="restore the file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8: {error}", remedy="restore the file") from error
    kinds = {"<": "a web page", "version https://git-lfs": "a Git LFS pointer, not the file itself"}
    for start, kind in kinds.items():
        if text.lstrip().startswith(start):
            raise ModelError(f"{path} is {kind}", remedy="download the file again")
    return text


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON: {error}", remedy="restore the file") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", remedy="restore the file")
    return value


def check_vocabulary(reference: ReferenceBPE, path: Path, merges: Path) -> None:
    """That encoder.json or vocab.json numbers the tokens that the merges beside it make."""
    known, expected = _read_object(path), vocabulary(reference)
    if known != expected:
        differing = [k for k in {*known, *expected} if known.get(k) != expected.get(k)]
        raise ModelError(
            f"{path} and {merges.name} disagree on {len(differing)} of {len(expected)} tokens",
            remedy="use the two files that belong together",
        )


def read_hf_merges(path: Path) -> list[Merge]:
    """The merges of a tokenizer.json, if it cuts and numbers as GPT-2 does."""
    value = _read_object(path)
    model, cuts = value.get("model"), value.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(cuts, dict) or "merges" not in model:
        raise ModelError(f"{path} is not byte-level BPE", remedy="use a GPT-2 tokenizer")
    found = {
        "model type": (model.get("type", "BPE"), "BPE"),
        "pre_tokenizer": (cuts.get("type"), "ByteLevel"),  # others cut at other places
        "use_regex": (cuts.get("use_regex", True), True),
        "add_prefix_space": (cuts.get("add_prefix_space"), False),
        "normalizer": (value.get("normalizer"), None),
    }
    for name, (has, wanted) in found.items():
        if has != wanted:
            raise ModelError(
                f"{path}: {name} is {json.dumps(has)[:60]}, expected {json.dumps(wanted)}",
                remedy="use a GPT-2 tokenizer",
            )
    merges = _pairs([m if isinstance(m, str) else " ".join(m) for m in model["merges"]], path)
    added = {token["content"]: token["id"] for token in value.get("added_tokens", [])}
    known = model.get("vocab", {}) | added
    ids = vocabulary(ReferenceBPE(merges))
    wrong = [token for token, i in ids.items() if known.get(token) != i]
    if wrong:
        raise ModelError(
            f"{path} numbers {len(wrong)} tokens unlike GPT-2 ({wrong[0]!r} first)",
            remedy="use a tokenizer with GPT-2's order of bytes and merges",
        )
    return merges


def hf_tokenizer(reference: ReferenceBPE) -> dict[str, Any]:
    """tokenizer.json as the tokenizers library reads it."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    special = {
        "id": reference.eot,
        "content": END_OF_TEXT,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocabulary(reference),
        "merges": merge_lines(reference),
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": model,
    }
