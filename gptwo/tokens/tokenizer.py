"""The tokenizer everyone uses: GPT-2's files in and out, the fast path inside."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptwo.artifacts import MANIFEST, damage, read_manifest, write_json
from gptwo.artifacts import atomic_write as write
from gptwo.errors import ModelError
from gptwo.tokens.bpe import BYTE_TO_CHAR, CHAR_TO_BYTE, END_OF_TEXT, PIECES, ReferenceBPE
from gptwo.tokens.fast import FastBPE

if TYPE_CHECKING:
    import pyarrow as pa

VOCAB, MERGES, HF = "encoder.json", "vocab.bpe", "tokenizer.json"
HEADER = "#version: 0.2"
MAX_BYTES = 100_000_000


class Tokenizer:
    """Byte-level BPE with GPT-2's id layout: bytes, merges in order, `<|endoftext|>` last.

    >>> Tokenizer([(b"h", b"i")]).encode("hi")
    [256]
    """

    def __init__(self, merges: Sequence[tuple[bytes, bytes]]) -> None:
        self.reference = ReferenceBPE(merges)
        self.vocab_size = len(self.reference.tokens) + 1
        self.eot = self.reference.eot
        self._fast = FastBPE(self.reference)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the merges in order: two tokenizers with the same one give the same ids."""
        lines = "\n".join(f"{a.hex()} {b.hex()}" for a, b in self.reference.merges)
        return hashlib.sha256(f"{lines}\n{END_OF_TEXT}".encode()).hexdigest()

    def encode(self, text: str | bytes) -> list[int]:
        """Text -> ids. A literal `<|endoftext|>` in the text is text, never the special id."""
        return self._fast.encode(text)

    def encode_documents(
        self, texts: "pa.Array", *, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """An Arrow array of strings -> the ids of eot, text, eot, text, ... and each text's share.

        Ids are uint16 up to 65,536 tokens of vocabulary, else uint32; lengths int64, eot included.
        """
        parts = [[self.eot, *self.encode(text.as_buffer().to_pybytes())] for text in texts]
        kind = np.uint16 if self.vocab_size <= 65_536 else np.uint32
        lengths = np.array([len(part) for part in parts], np.int64)
        return np.fromiter(chain.from_iterable(parts), kind, int(lengths.sum())), lengths

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> bytes, exactly. Raises ModelError for an id outside the vocabulary."""
        ids = list(ids)
        if ids and not 0 <= min(ids) <= max(ids) < self.vocab_size:
            wrong = next(i for i in ids if not 0 <= i < self.vocab_size)
            raise ModelError(
                f"token id {wrong} is outside the vocabulary of {self.vocab_size}",
                remedy="use the tokenizer these ids were made with",
            )
        return self.reference.decode_bytes(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; bytes that are not UTF-8 show as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """The bytes one id stands for."""
        return self.decode_bytes([token])

    def save(self, folder: Path) -> None:
        """Write encoder.json and vocab.bpe (OpenAI's files) and tokenizer.json (Hugging Face's)."""
        vocabulary = _vocabulary(self.reference)
        pairs = [f"{shown(a)} {shown(b)}" for a, b in self.reference.merges]
        with write(folder / VOCAB, "w") as handle:
            json.dump(vocabulary, handle, ensure_ascii=True)
        with write(folder / MERGES, "w") as handle:
            handle.write("\n".join([HEADER, *pairs]) + "\n")
        write_json(folder / HF, _hf_tokenizer(vocabulary, pairs, self.eot))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From vocab.bpe with encoder.json, or from tokenizer.json; hashes checked where known.

        Raises ModelError (exit code 4) naming the file that is missing, damaged or not GPT-2's.
        """
        _check_hashes(folder)
        if (folder / MERGES).exists():
            tokenizer = cls(parse_merges(_read(folder / MERGES), folder / MERGES))
            if (folder / VOCAB).exists():
                _check_vocabulary(tokenizer, folder / VOCAB)
            return tokenizer
        if (folder / HF).exists():
            return cls(_hf_merges(folder / HF))
        raise ModelError(
            f"{folder} holds neither {MERGES} nor {HF}", remedy="name a tokenizer or model folder"
        )


def shown(token: bytes) -> str:
    """A token in the printable alphabet of the files: `shown(b" a") == "Ġa"`."""
    return "".join(BYTE_TO_CHAR[byte] for byte in token)


def _vocabulary(reference: ReferenceBPE) -> dict[str, int]:
    """Spelling -> id, as in encoder.json; of two merges that spell the same the first counts."""
    return {shown(token): i for token, i in reference.ids.items()} | {END_OF_TEXT: reference.eot}


def _check_hashes(folder: Path) -> None:
    """The tokenizer's own files only: beside them may lie gigabytes of weights."""
    if not (folder / MANIFEST).exists():
        return
    manifest = read_manifest(folder, error=ModelError)
    problems = damage(folder, manifest, names=(VOCAB, MERGES, HF))
    if problems:
        raise ModelError(problems[0], remedy="restore the file or make the folder again")


def parse_merges(text: str, path: Path) -> list[tuple[bytes, bytes]]:
    """The lines of vocab.bpe -> pairs of bytes."""
    lines = text.split("\n")
    if not lines[0].startswith("#version"):
        raise ModelError(
            f"{path} starts with {lines[0][:40]!r}, expected {HEADER!r}", remedy="restore the file"
        )
    if lines[-1]:
        raise ModelError(f"{path} is truncated: its last line has no end", remedy="restore it")
    return [_pair(line, path) for line in lines[1:-1]]


def _pair(line: str, path: Path) -> tuple[bytes, bytes]:
    parts = line.split(" ")
    try:
        a, b = (bytes(CHAR_TO_BYTE[char] for char in part) for part in parts)
    except (KeyError, ValueError):
        raise ModelError(f"{path} has a merge {line[:60]!r}", remedy="restore the file") from None
    if not a or not b:
        raise ModelError(f"{path} has a merge {line[:60]!r}", remedy="restore the file")
    return a, b


def _read(path: Path) -> str:
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


def _check_vocabulary(tokenizer: Tokenizer, path: Path) -> None:
    known = _read_object(path)
    expected = _vocabulary(tokenizer.reference)
    if known != expected:
        differing = [k for k in {*known, *expected} if known.get(k) != expected.get(k)]
        raise ModelError(
            f"{path} and {MERGES} disagree on {len(differing)} of {len(expected)} tokens",
            remedy="use the two files that belong together",
        )


def _hf_merges(path: Path) -> list[tuple[bytes, bytes]]:
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
    lines = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    merges = [_pair(line, path) for line in lines]
    added = {token["content"]: token["id"] for token in value.get("added_tokens", [])}
    known = model.get("vocab", {}) | added
    ids = _vocabulary(ReferenceBPE(merges))
    wrong = [token for token, i in ids.items() if known.get(token) != i]
    if wrong:
        raise ModelError(
            f"{path} numbers {len(wrong)} tokens unlike GPT-2 ({wrong[0]!r} first)",
            remedy="use a tokenizer with GPT-2's order of bytes and merges",
        )
    return merges


def _hf_tokenizer(vocabulary: dict[str, int], pairs: list[str], eot: int) -> dict[str, Any]:
    """tokenizer.json as the tokenizers library reads it."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    special = {
        "id": eot,
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
        "vocab": vocabulary,
        "merges": pairs,
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


__all__ = ["PIECES", "Tokenizer", "parse_merges", "shown"]
