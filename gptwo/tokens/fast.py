"""The fast encoder: tiktoken over our merges, held to the reference.

tiktoken merges any two neighbours whose bytes together are a token, the reference only pairs that
are in its list. Both agree when every token, spelt in bytes, merges back into itself and no
spelling repeats: so it is with every learned vocabulary, GPT-2's included. Others (written by hand,
pruned) are encoded by the reference, with a cache per piece.
"""

import secrets
from itertools import pairwise

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
ENDLESS = 100_000  # characters of white space in one run; the library's stack takes 900,000
_ENDLESS = regex.compile(rf"(?<!\s)\s{{{ENDLESS},}}+(?=\S)")


class FastBPE:
    """`encode` equal to `ReferenceBPE.encode`, several megabytes a second."""

    def __init__(self, reference: ReferenceBPE) -> None:
        self._reference = reference
        self._cache: dict[str, list[int]] = {}
        self._library: tiktoken.Encoding | None = None
        if merges_back(reference):
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
                ids += self._raw(stretch)
            elif self._library is not None:
                for part in endless_runs_cut(stretch):
                    ids += self._library.encode_ordinary(part)
            else:
                for piece in cut(stretch):
                    ids += self._piece(piece)
        return ids

    def _raw(self, piece: bytes) -> list[int]:
        if self._library is None:
            return self._reference.encode(piece)
        return self._library._encode_single_piece(piece)

    def _piece(self, piece: str) -> list[int]:
        known = self._cache.get(piece)
        if known is None:
            known = self._reference.encode(piece)
            if len(self._cache) < 1_000_000:
                self._cache[piece] = known
        return known


def merges_back(reference: ReferenceBPE) -> bool:
    """Whether no two tokens are spelt alike and `reference.merge(token) == [token]` for each.

    Found without merging: go back from a token's two halves, taking apart whichever of the two
    symbols at the border was made last, and see that no pair across it was due before.
    """
    if len(reference.ids) < len(reference.tokens):
        return False
    made = {reference.tokens[i]: i - 256 for i in range(256)}  # when, bytes first
    for step, (x, y) in enumerate(reference.merges):
        if x not in made or y not in made:
            return False  # a pair that never comes up
        made[x + y] = step
        while made[x] >= 0 or made[y] >= 0:
            if made[x] > made[y]:
                due, x = made[x], reference.merges[made[x]][1]
            else:  # of equals the left is made first: "aaa" is "aa", "a"
                due, y = made[y] + 1, reference.merges[made[y]][0]
            if reference.rank.get((x, y), step) < due:
                return False
    return True


def endless_runs_cut(text: str) -> list[str]:
    """Cut where the reference does anyway: a run of white space leaves its last to the word.

    The library finds that place by going back, and its stack overflows on an endless run.
    """
    if len(text) <= ENDLESS:
        return [text]
    cuts = [run.end() - 1 for run in _ENDLESS.finditer(text)]
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
