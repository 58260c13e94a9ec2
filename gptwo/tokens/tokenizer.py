"""The tokenizer everyone uses: GPT-2's files in and out, the fast path inside."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gptwo.artifacts import MANIFEST, damage, read_manifest, write_json
from gptwo.artifacts import atomic_write as write
from gptwo.errors import ModelError
from gptwo.tokens.bpe import END_OF_TEXT, ReferenceBPE
from gptwo.tokens.fast import FastBPE
from gptwo.tokens.files import (
    FILES,
    HEADER,
    HF,
    HF_MERGES,
    HF_VOCAB,
    MERGES,
    VOCAB,
    check_vocabulary,
    hf_tokenizer,
    merge_lines,
    read_hf_merges,
    read_merges,
    vocabulary,
)

if TYPE_CHECKING:
    import pyarrow as pa


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
        Raises DataError for a null.
        """
        return self._fast.encode_documents(texts, self.vocab_size, threads)

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
        with write(folder / VOCAB, "w") as handle:
            json.dump(vocabulary(self.reference), handle, ensure_ascii=True)
        with write(folder / MERGES, "w") as handle:
            handle.write("\n".join([HEADER, *merge_lines(self.reference)]) + "\n")
        write_json(folder / HF, hf_tokenizer(self.reference))

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """From vocab.bpe or merges.txt, or from tokenizer.json; hashes checked where known.

        Beside merges, encoder.json or vocab.json must number the same tokens. Raises ModelError
        (exit code 4) naming the file that is missing, damaged or not GPT-2's.
        """
        _check_hashes(folder)
        merges = next((folder / n for n in (MERGES, HF_MERGES) if (folder / n).exists()), None)
        if merges:
            tokenizer = cls(read_merges(merges))
            for name in (VOCAB, HF_VOCAB):
                if (folder / name).exists():
                    check_vocabulary(tokenizer.reference, folder / name, merges)
            return tokenizer
        if (folder / HF).exists():
            return cls(read_hf_merges(folder / HF))
        raise ModelError(
            f"{folder} holds neither {MERGES} nor {HF_MERGES} nor {HF}",
            remedy="name a tokenizer or model folder",
        )


def _check_hashes(folder: Path) -> None:
    """The tokenizer's own files only: beside them may lie gigabytes of weights."""
    if not (folder / MANIFEST).exists():
        return
    manifest = read_manifest(folder, error=ModelError)
    problems = damage(folder, manifest, names=FILES)
    if problems:
        raise ModelError(problems[0], remedy="restore the file or make the folder again")
