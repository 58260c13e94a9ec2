"""The fast encoder: tiktoken over our merges, held to the reference.

tiktoken merges by the rank of the bytes a pair makes, the reference by the rank of the pair. Both
agree when every token is made by exactly one merge and no byte spelling repeats; other vocabularies
are encoded by the reference, with a cache per piece.
"""

import secrets

import regex
import tiktoken

from gptwo.errors import ModelError
from gptwo.tokens.bpe import ReferenceBPE, cut, stretches

# The cut of `bpe.PIECES` for an engine that keeps its way back on a stack: possessive runs, and
# white space at the end of a text taken at once.
PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# A few lines with every kind of piece; encoded both ways when a tokenizer is loaded.
SAMPLE = (
    "The state of the Union's finances, in 1862, wasn't what we'd hoped: $1,250,000!\n\n"
    "  naïve café 日本語 😀 \t's\n'll \u00a0'd  <|endoftext|>\r\n x\u3000y ½ ⅷ ____ ... ----\n\n\n"
)
ENDLESS = 100_000  # characters of white space in one run
_ENDLESS = regex.compile(rf"\s{{{ENDLESS}}}")


class FastBPE:
    """`encode` equal to `ReferenceBPE.encode`, several megabytes a second."""

    def __init__(self, reference: ReferenceBPE) -> None:
        self._reference = reference
        self._cache: dict[str, list[int]] = {}
        self._library: tiktoken.Encoding | None = None
        if len(reference.ids) == len(reference.tokens):
            self._library = tiktoken.Encoding(
                f"gptwo-{secrets.token_hex(4)}",
                pat_str=PIECES,
                mergeable_ranks=reference.ids,
                special_tokens={},
            )
            if self._library.encode_ordinary(SAMPLE) != reference.encode(SAMPLE):
                raise ModelError(
                    "the tiktoken library and the reference disagree on a sample text",
                    remedy="install the version named in constraints.txt",
                )

    def encode(self, data: str | bytes) -> list[int]:
        """Text or bytes -> ids."""
        ids: list[int] = []
        for stretch in stretches(data):
            if isinstance(stretch, bytes):
                ids += self._reference.encode(stretch)
            elif self._library is not None:
                # An endless run of white space overflows the library's stack: cut it here.
                endless = len(stretch) > ENDLESS and _ENDLESS.search(stretch)
                for part in cut(stretch) if endless else [stretch]:
                    ids += self._library.encode_ordinary(part)
            else:
                for piece in cut(stretch):
                    ids += self._piece(piece)
        return ids

    def _piece(self, piece: str) -> list[int]:
        known = self._cache.get(piece)
        if known is None:
            known = self._reference.encode(piece)
            if len(self._cache) < 1_000_000:
                self._cache[piece] = known
        return known
