"""The fast encoder: the first engine that is at hand, held to the reference.

Our own kernel (`native/encode.c`) encodes any list of merges as the reference does. Where it could
not be built a library serves. Libraries know tokens by their bytes or merge by their ids: they are
trusted with vocabularies where that is the same, where every token, spelt in bytes, merges back
into itself and no spelling repeats. So it is with every learned vocabulary, GPT-2's included. What
remains (vocabularies written by hand, pruned) the reference encodes, with a cache of pieces.
"""

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import regex

from gptwo.errors import DataError, ModelError
from gptwo.tokens.bpe import ReferenceBPE, cut, stretches
from gptwo.tokens.files import hf_tokenizer

if TYPE_CHECKING:
    import pyarrow as pa

# The cut of `bpe.PIECES` for an engine that keeps its way back on a stack: possessive runs, and
# white space at the end of a text taken at once.
PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# A few lines with every kind of piece; encoded both ways when a tokenizer is loaded.
SAMPLE = (
    "The state of the Union's finances, in 1862, wasn't what we'd hoped: $1,250,000!\n\n"
    "  naïve café 日本語 😀 \t's\n'll \u00a0'd  <|endoftext|>\r\n x\u3000y ½ ⅷ ____ ... ----\n\n\n"
)
ENDLESS = 100_000  # characters of white space in one run; tiktoken's stack takes 900,000
_ENDLESS = regex.compile(rf"(?<!\s)\s{{{ENDLESS},}}+(?=\S)")
_PAST_LAST = 2  # ids that the kernel may write past the last
_NATIVE_MOST = (1 << 21) - 1  # tokens: the kernel packs two ids and a rank into 64 bits


class Engine(Protocol):
    """Anything that turns text, as UTF-8 or any bytes, into the reference's ids."""

    def encode(self, text: bytes, /) -> list[int]: ...


def native(reference: ReferenceBPE) -> Engine | None:
    """The C kernel, where it was built."""
    try:
        from gptwo.native._encode import Encoder  # type: ignore[import-not-found]
    except ImportError:
        return None
    if len(reference.tokens) > _NATIVE_MOST:
        return None
    return Encoder(reference.tokens, reference.merges, reference.ids)


class Tiktoken:
    """The tiktoken library over our merges."""

    def __init__(self, reference: ReferenceBPE) -> None:
        import tiktoken

        self._library = tiktoken.Encoding(
            f"gptwo-{secrets.token_hex(4)}",
            pat_str=PIECES,
            mergeable_ranks=reference.ids,
            special_tokens={},
        )

    def encode(self, text: bytes, /) -> list[int]:
        ids: list[int] = []
        for stretch in stretches(text):
            if isinstance(stretch, bytes):
                ids += self.encode_piece(stretch)
            else:
                for part in endless_runs_cut(stretch):
                    ids += self._library.encode_ordinary(part)
        return ids

    def encode_piece(self, piece: bytes) -> list[int]:
        """Bytes that are not cut."""
        return self._library._encode_single_piece(piece)


class Snaptokens:
    """The snaptokens library over our merges; it takes no bytes that are not text."""

    def __init__(self, reference: ReferenceBPE) -> None:
        from snaptokens import Tokenizer  # type: ignore[import-not-found]

        self._reference = reference
        # Without special tokens the text "<|endoftext|>" stays text.
        description = hf_tokenizer(reference) | {"added_tokens": []}
        self._library = Tokenizer.from_json_str(json.dumps(description))

    @cached_property
    def _pieces(self) -> Tiktoken:
        return Tiktoken(self._reference)

    def encode(self, text: bytes, /) -> list[int]:
        ids: list[int] = []
        for stretch in stretches(text):
            if isinstance(stretch, bytes):
                ids += self._pieces.encode_piece(stretch)
            else:
                ids += self._library.encode(stretch).ids
        return ids


class Cached:
    """The reference, which encodes each piece once."""

    def __init__(self, reference: ReferenceBPE) -> None:
        self._reference = reference
        self._known: dict[str | bytes, list[int]] = {}

    def encode(self, text: bytes, /) -> list[int]:
        ids: list[int] = []
        for stretch in stretches(text):
            for piece in [stretch] if isinstance(stretch, bytes) else cut(stretch):
                ids += self._piece(piece)
        return ids

    def _piece(self, piece: str | bytes) -> list[int]:
        known = self._known.get(piece)
        if known is None:
            known = self._reference.encode(piece)
            if len(self._known) < 1_000_000:
                self._known[piece] = known
        return known


def library(kind: Callable[[ReferenceBPE], Engine]) -> Callable[[ReferenceBPE], Engine | None]:
    """A library, where it is installed and knows the vocabulary as the reference does."""

    def engine(reference: ReferenceBPE) -> Engine | None:
        if not merges_back(reference):
            return None
        try:
            return kind(reference)
        except ImportError:
            return None

    return engine


# The fastest first, by benchmarks/encode.py.
ENGINES = (native, library(Snaptokens), library(Tiktoken), Cached)


class FastBPE:
    """`encode` equal to `ReferenceBPE.encode`, by the first of `engines` that can."""

    def __init__(
        self,
        reference: ReferenceBPE,
        engines: tuple[Callable[[ReferenceBPE], Engine | None], ...] = ENGINES,
    ) -> None:
        made = (engine(reference) for engine in engines)
        self.engine: Engine = next(engine for engine in made if engine is not None)
        self._eot = reference.eot
        if self.engine.encode(SAMPLE.encode()) != reference.encode(SAMPLE):
            raise ModelError(
                f"{type(self.engine).__name__} and the reference disagree on a sample text",
                remedy="install the versions named in constraints.txt",
            )

    def encode(self, data: str | bytes) -> list[int]:
        """Text or bytes -> ids."""
        return self.engine.encode(data if isinstance(data, bytes) else as_bytes(data))

    def encode_documents(
        self, texts: "pa.Array", vocab_size: int, threads: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Tokenizer.encode_documents`: each thread takes neighbours of about as many bytes."""
        if texts.null_count:
            raise DataError(
                f"{texts.null_count} of {len(texts)} texts are null", remedy="drop them first"
            )
        kind = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        encode = self._documents if hasattr(self.engine, "encode_documents") else self._plain
        if threads == 1 or len(texts) < 2:
            return encode(texts, kind)
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda part: encode(part, kind), shares(texts, threads)))
        ids, lengths = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(lengths)

    def _documents(self, texts: "pa.Array", kind: type) -> tuple[np.ndarray, np.ndarray]:
        data, starts = buffers(texts)
        # No text has more ids than bytes; what is not written takes no memory.
        ids = np.empty(int(starts[-1] - starts[0]) + len(texts) + _PAST_LAST, kind)
        lengths = np.empty(len(texts), np.int64)
        count = self.engine.encode_documents(data, starts, ids, lengths)  # type: ignore[attr-defined]
        return ids[:count], lengths

    def _plain(self, texts: "pa.Array", kind: type) -> tuple[np.ndarray, np.ndarray]:
        ids: list[int] = []
        lengths = np.empty(len(texts), np.int64)
        for i, text in enumerate(texts):
            before = len(ids)
            ids += [self._eot, *self.engine.encode(text.as_buffer().to_pybytes())]
            lengths[i] = len(ids) - before
        return np.array(ids, kind), lengths


def as_bytes(text: str) -> bytes:
    """Text as UTF-8; lone surrogates cannot be written so and become U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return stretches(text)[0].encode()  # type: ignore[union-attr]


def buffers(texts: "pa.Array") -> tuple["pa.Buffer | bytes", np.ndarray]:
    """The bytes of an Arrow array of strings, and int64 places where each begins, and the end."""
    _, starts, data = texts.buffers()
    width = {"string": np.int32, "large_string": np.int64}[str(texts.type)]
    if starts is None or not len(texts):
        return b"", np.zeros(1, np.int64)
    places = np.frombuffer(starts, width)[texts.offset : texts.offset + len(texts) + 1]
    return data or b"", places.astype(np.int64)


def shares(texts: "pa.Array", count: int) -> Iterator["pa.Array"]:
    """An array cut into `count` slices of about as many bytes."""
    places = buffers(texts)[1]
    wanted = np.linspace(places[0], places[-1], count + 1)[1:-1]
    marks = [0, *np.searchsorted(places, wanted).tolist(), len(texts)]
    return (texts.slice(a, b - a) for a, b in pairwise(marks))


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

    tiktoken finds that place by going back, and its stack overflows on an endless run.
    """
    if len(text) <= ENDLESS:
        return [text]
    cuts = [run.end() - 1 for run in _ENDLESS.finditer(text)]
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]
