"""The likeliest next word: the end of a word is where the next piece begins with something else.

The likeliest next token is not always the beginning of the likeliest word, and a stop word can
only be told when it is whole (" the" may go on as " theatre"). So words are searched: of all
beginnings the likeliest is gone on with first, and a word is worth p(its tokens) times p(no token
that would go on with it). A beginning is worth at least each of its words, so the first whole word
that is worth more than every beginning left is the likeliest one.

A text's beginnings are the branches of one tree in the cache of its keys and values: going on with
one reads one token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot.words import GOES_ON, STARTS, WORD, is_stop_word

FIRST = 128  # beginnings taken from the context, the likeliest tokens
NEXT = 16  # ways taken to go on with a beginning
WIDTH = 4  # beginnings of one text gone on with together
READ = 64  # beginnings of one text gone on with at most
TOKEN_BUDGET = 4096  # positions whose keys and values are held


@dataclass(frozen=True, kw_only=True, slots=True)
class NextWord:
    """A question: the likeliest word after a context, with and without stop words."""

    context: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The likeliest word and the likeliest one that is no stop word; empty: none was found.

    `read` is how many beginnings were gone on with.
    """

    word: str
    content_word: str
    read: int


@dataclass(slots=True)
class _Beginning:
    logprob: float
    ids: tuple[int, ...]
    columns: tuple[int, ...]  # where its tokens but the last lie in the cache


@dataclass(slots=True)
class _Search:
    """One text: its length, the beginnings left, and the best whole words so far."""

    length: int
    left: list[_Beginning] = field(default_factory=list)
    best: dict[bool, tuple[float, str]] = field(default_factory=dict)  # stop words too? -> word
    read: int = 0

    def next(self) -> list[_Beginning]:
        """What to go on with: the likeliest beginnings that may still win."""
        worth = min(self.best.get(kind, (-math.inf, ""))[0] for kind in (True, False))
        self.left = sorted((b for b in self.left if b.logprob > worth), key=lambda b: -b.logprob)
        chosen, self.left = self.left[:WIDTH], self.left[WIDTH:]
        if self.read >= READ:
            return []
        self.read += len(chosen)
        return chosen

    def offer(self, word: str, logprob: float) -> None:
        if not WORD.search(word):
            return
        for with_stop_words in (True, False):
            allowed = with_stop_words or not is_stop_word(word)
            if allowed and logprob > self.best.get(with_stop_words, (-math.inf, ""))[0]:
                self.best[with_stop_words] = (logprob, word)

    def found(self) -> Found:
        words = [self.best.get(kind, (0.0, ""))[1] for kind in (True, False)]
        return Found(word=words[0], content_word=words[1], read=self.read)


class WordSearch:
    """Answers `NextWord`s with one model and its tokenizer."""

    def __init__(self, model: GPT2, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.device = next(model.parameters()).device
        starts, goes_on = _kinds(tokenizer)
        self.starts, self.goes_on = starts.to(self.device), goes_on.to(self.device)

    @torch.inference_mode()
    def answer(self, questions: Sequence[NextWord]) -> list[Found]:
        """One answer per question, in their order; the start of a long context is cut."""
        room = max(self.model.config.n_ctx - READ, 1)
        contexts = [list(question.context)[-room:] for question in questions]
        found: list[Found | None] = [None] * len(questions)
        for batch in _batches(contexts):
            for index, answer in zip(
                batch, self._answer([contexts[i] for i in batch]), strict=True
            ):
                found[index] = answer
        return [answer for answer in found if answer is not None]

    def _answer(self, contexts: list[list[int]]) -> list[Found]:
        B, T = len(contexts), max(map(len, contexts))
        cache = KeyValueCache(
            self.model.config, B, T + READ + WIDTH, self.device, self.model.wte.weight.dtype
        )
        searches = [_Search(len(context)) for context in contexts]
        ids = torch.tensor([context + [0] * (T - len(context)) for context in contexts])
        last = torch.tensor([len(context) - 1 for context in contexts], device=self.device)
        hidden = self.model.hidden(ids.to(self.device), cache=cache)  # B T C
        logprobs = self._logprobs(hidden[torch.arange(B, device=self.device), last])  # B V
        root = _Beginning(0.0, (), ())
        for search, (ways, _) in zip(
            searches, self._ways(logprobs, self.starts, FIRST), strict=True
        ):
            search.left = [_extended(root, *way, columns=()) for way in ways]
        while cache.length + WIDTH <= cache.capacity:
            chosen = [search.next() for search in searches]
            if not any(chosen):
                break
            self._go_on(cache, searches, chosen)
        return [search.found() for search in searches]

    def _go_on(
        self, cache: KeyValueCache, searches: list[_Search], chosen: list[list[_Beginning]]
    ) -> None:
        """Read the last token of each chosen beginning; offer it as a word, keep its ways on."""
        B, start = len(searches), cache.length
        ids, positions = (np.zeros((B, WIDTH), dtype=np.int64) for _ in range(2))
        mask = np.zeros((B, 1, WIDTH, start + WIDTH), dtype=bool)
        for b, (search, beginnings) in enumerate(zip(searches, chosen, strict=True)):
            mask[b, 0, :, : search.length] = True
            for slot, beginning in enumerate(beginnings):
                ids[b, slot] = beginning.ids[-1]
                positions[b, slot] = search.length + len(beginning.ids) - 1
                mask[b, 0, slot, [*beginning.columns, start + slot]] = True
        hidden = self.model.hidden(
            torch.from_numpy(ids).to(self.device),
            cache=cache,
            positions=torch.from_numpy(positions).to(self.device),
            mask=torch.from_numpy(mask).to(self.device),
        )
        flat = [(b, slot) for b, found in enumerate(chosen) for slot in range(len(found))]
        where = torch.tensor(flat, device=self.device).unbind(1)
        logprobs = self._logprobs(hidden[where[0], where[1]])  # N V
        followed = self._ways(logprobs, self.goes_on, NEXT)
        for (b, slot), (ways, going_on) in zip(flat, followed, strict=True):
            beginning = chosen[b][slot]
            columns = (*beginning.columns, start + slot)
            word = self.tokenizer.decode(list(beginning.ids)).strip()
            searches[b].offer(word, beginning.logprob + math.log(max(1 - going_on, 1e-12)))
            searches[b].left += [_extended(beginning, *way, columns=columns) for way in ways]

    def _logprobs(self, hidden: Tensor) -> Tensor:
        logits = self.model.logits(hidden)[:, : self.tokenizer.vocab_size].float()
        return logits.log_softmax(-1)

    def _ways(
        self, logprobs: Tensor, allowed: Tensor, most: int
    ) -> Iterator[tuple[list[tuple[int, float]], float]]:
        """For each row the likeliest allowed tokens, and the probability of all of them."""
        kept = logprobs.masked_fill(~allowed, -torch.inf)
        top = kept.topk(min(most, kept.size(1)), dim=-1)
        mass = kept.exp().sum(-1).tolist()
        for ids, values, total in zip(top.indices.tolist(), top.values.tolist(), mass, strict=True):
            ways = zip(ids, values, strict=True)
            yield [(token, value) for token, value in ways if value > -math.inf], total


@lru_cache(maxsize=1)
def _kinds(tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Which tokens begin a word, which go on with one: bool [V] each."""
    texts = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
    texts[tokenizer.eot] = ""  # the end of a document ends a word
    starts, goes_on = ([bool(kind.match(text)) for text in texts] for kind in (STARTS, GOES_ON))
    return torch.tensor(starts), torch.tensor(goes_on)


def _extended(
    beginning: _Beginning, token: int, logprob: float, *, columns: tuple[int, ...]
) -> _Beginning:
    return _Beginning(beginning.logprob + logprob, (*beginning.ids, token), columns)


def _batches(contexts: list[list[int]]) -> Iterator[list[int]]:
    """Indices of contexts of like length, as many as the budget holds."""
    batch: list[int] = []
    for index in sorted(range(len(contexts)), key=lambda i: (-len(contexts[i]), i)):
        longest = len(contexts[batch[0]]) if batch else 0
        if batch and (len(batch) + 1) * (longest + READ) > TOKEN_BUDGET:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
