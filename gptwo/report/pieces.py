"""A stretch of packed text, token by token."""

import codecs
import re
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import read_json
from gptwo.errors import DataError

SHOWN = 160  # tokens
LOOKED_AT = 20_000  # from the front of the split, to find a document that is long enough


def packed_sample(run: Path, details: dict[str, Any]) -> list[dict[str, Any]]:
    """The first tokens of the first long document that was held out, `{"text", "ids"}` each.

    Tokens that only together spell a character are one piece of several ids. They are read from the
    shard as it is and spelled by the vocabulary's own file, so the page shows what the model sees.
    `details` is that of the tokens' manifest.
    """
    names = {index: name for name, index in read_json(run / "tokenizer/encoder.json").items()}
    ids = _first_tokens(run / "tokens", details["dtype"])
    alphabet = printable_bytes()
    found: list[dict[str, Any]] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text, together = "", list[str]()
    for index in _long_document(ids, details["eot"]):
        if int(index) not in names:
            raise DataError(
                f"{run / 'tokens'} holds token {index}, beyond the vocabulary of {len(names):,}",
                remedy="pack the corpus again",
            )
        name = names[int(index)]
        text += decoder.decode(bytes(alphabet[letter] for letter in name))
        together.append(str(index))
        if not decoder.getstate()[0]:  # no character is half spelt
            found.append({"text": text, "ids": " ".join(together)})
            text, together = "", []
    return found


def printable_bytes() -> dict[str, int]:
    """GPT-2's printable letter of each byte, reversed: letter -> byte (paper section 2.2).

    Bytes that print stand for themselves; the others took the letters from U+0100 on, in order.
    """
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(kept)]
    letters = {chr(byte): byte for byte in kept}
    return letters | {chr(256 + place): byte for place, byte in enumerate(moved)}


def _first_tokens(folder: Path, dtype: str) -> np.ndarray:
    files = [path for path in sorted(folder.glob("*.bin")) if re.match("(test|valid)-", path.name)]
    if not files:
        raise DataError(f"{folder} holds no test or valid shard", remedy="pack the corpus again")
    kind = np.dtype(dtype).newbyteorder("<")
    with files[0].open("rb") as handle:
        data = handle.read(LOOKED_AT * kind.itemsize)
    return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], dtype=kind)


def _long_document(ids: np.ndarray, eot: int) -> np.ndarray:
    """The first SHOWN tokens after an <|endoftext|> that has as many behind it."""
    ends = [*np.flatnonzero(ids == eot).tolist(), len(ids)]
    starts = [0, *(end + 1 for end in ends)]
    spans = [(a, b) for a, b in zip(starts, ends, strict=False) if b > a]
    if not spans:
        return ids[:0]
    long = [span for span in spans if span[1] - span[0] >= SHOWN]
    first, last = (long or [max(spans, key=lambda span: span[1] - span[0])])[0]
    return ids[first : min(last, first + SHOWN)]
