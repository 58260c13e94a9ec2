"""Byte-level byte-pair encoding, written to be read (paper section 2.2; openai/gpt-2 encoder.py).

The idea in one paragraph. Text is bytes, and 256 symbols can spell anything: no text is ever out of
vocabulary. Spelling everything in bytes is long, so frequent neighbours are merged into one symbol,
again and again: the list of merges, most frequent first, is the whole tokenizer. To keep merges
from wasting the vocabulary on "dog.", "dog!", "dog?", text is first cut into pieces (words with
their leading space, numbers, runs of punctuation, white space) and merges never cross a cut.

This module is the reference; `fast.py` does the same work quickly and is tested to agree.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import regex

END_OF_TEXT = "<|endoftext|>"

# The cut. In order: English contractions (lower case only, a quirk kept for compatibility), an
# optional space with letters, with numbers, with anything else, and white space. A white-space run
# before a word leaves its last space to the word: that is what (?!\S) is for.
PIECES = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
_pieces = regex.compile(PIECES)
_SURROGATE = regex.compile("[\ud800-\udfff]")
_ESCAPED = regex.compile("([\udc80-\udcff]+)")


def byte_alphabet() -> dict[int, str]:
    """byte -> the printable character that stands for it in vocabulary files.

    Bytes that print as themselves come first and keep their character; the other 68 are shown as
    U+0100 onwards. The order of this dictionary is the order of ids 0..255: "!" is 0.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(256 + k) for k, byte in enumerate(rest)
    }


BYTE_TO_CHAR = byte_alphabet()
CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}
BYTE_ORDER = list(BYTE_TO_CHAR)  # id -> byte, for the first 256 ids


def cut(text: str) -> list[str]:
    """Text -> pieces; joined again they are the text.

    >>> cut("Hello  world's 2")
    ['Hello', ' ', ' world', "'s", ' 2']
    """
    return _pieces.findall(text)


def stretches(data: str | bytes) -> list[str | bytes]:
    """Cut input into stretches of valid text and runs of bytes that are not UTF-8.

    Any bytes can be encoded: a run of invalid ones is a piece of its own. Lone surrogates cannot
    be written as UTF-8 and become U+FFFD.
    """
    if isinstance(data, str):
        return [_SURROGATE.sub("\ufffd", data)] if data else []
    text = data.decode("utf-8", "surrogateescape")  # invalid bytes become lone surrogates
    parts = _ESCAPED.split(text)
    return [
        part.encode("utf-8", "surrogateescape") if _SURROGATE.match(part) else part
        for part in parts
        if part
    ]


class ReferenceBPE:
    """Encode and decode by a list of merges.

    Id 0..255 are the bytes in `byte_alphabet` order, id 256 + i is what merge i makes, and the last
    id is `<|endoftext|>`, which no text ever encodes to.
    """

    def __init__(self, merges: Sequence[tuple[bytes, bytes]]) -> None:
        self.merges = list(merges)
        # Of a pair named twice the later merge counts.
        self.rank = {pair: i for i, pair in enumerate(self.merges)}
        self.tokens = [bytes([byte]) for byte in BYTE_ORDER] + [a + b for a, b in self.merges]
        # Two merges may spell the same bytes; the first owns them.
        self.ids: dict[bytes, int] = {}
        for i, token in enumerate(self.tokens):
            self.ids.setdefault(token, i)
        self.eot = len(self.tokens)

    def encode(self, data: str | bytes) -> list[int]:
        """Text or bytes -> ids."""
        ids: list[int] = []
        for stretch in stretches(data):
            pieces = cut(stretch) if isinstance(stretch, str) else [stretch]
            for piece in pieces:
                raw = piece.encode("utf-8") if isinstance(piece, str) else piece
                ids += [self.ids[symbol] for symbol in self.merge(raw)]
        return ids

    def merge(self, piece: bytes) -> list[bytes]:
        """One piece -> its symbols: apply the earliest learned merge until none applies."""
        symbols = [piece[i : i + 1] for i in range(len(piece))]
        never = len(self.merges)
        while len(symbols) > 1:
            best = min(self.rank.get(pair, never) for pair in pairwise(symbols))
            if best == never:
                break
            symbols = _merge_all(symbols, self.merges[best])
        return symbols

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Ids -> the exact bytes they stand for; `<|endoftext|>` is shown as its text."""
        shown = END_OF_TEXT.encode()
        return b"".join(shown if i == self.eot else self.tokens[i] for i in ids)


def _merge_all(symbols: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Replace every occurrence of `pair`, from the left."""
    merged, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged
