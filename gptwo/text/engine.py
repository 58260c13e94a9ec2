"""Many texts at once: a row of keys and values for each, new ones join between tokens.

A step reads some of the prompts that have come, a part of each long one, and one position of every
text that is being written. Texts are of different lengths; each looks at its own positions alone,
so what it says does not depend on its neighbours. (Its logits do in their last bits, because
products of other sizes are summed in another order.)

What a prompt shares with the beginning of another one is read once: it is copied from the row of a
text that is still being written, or comes from the cache of prefixes.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor

from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.text.config import SampleConfig
from gptwo.text.prefixes import BLOCK, PrefixCache, Scores, joined, restore, score, unknown
from gptwo.text.prompt import check_prompt
from gptwo.text.rows import Rows
from gptwo.text.sample import log_probabilities, next_id
from gptwo.text.turns import Waiting

READ_TOKENS = 128  # of prompts between two tokens of the others
SCORED_ROWS = 64  # logits of a prompt at once


@dataclass(kw_only=True, eq=False)
class Text:
    """A text that is being written. `finish` tells why it ended: "stop" or "length"."""

    prompt: list[int]
    config: SampleConfig
    generator: torch.Generator
    owner: Hashable = None  # whose it is: owners share the rows fairly
    draws: bool = True  # False: the prompt is read, and that is all
    scored: bool = False  # whether the prompt's own log-probabilities are wanted
    number: int = 0  # order of arrival
    ids: list[int] = field(default_factory=list)  # what was drawn, without the end of the document
    logprobs: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    finish: str = ""
    window: list[int] = field(default_factory=list)  # what the model reads for the next token
    filled: int = 0  # how much of it is read
    reading: bool = True  # whether more than the last id of the window is to be read
    cached: int = 0  # how much of the prompt need not be read
    scores: list[Scores] = field(default_factory=list)  # of the prompt's tokens so far
    states: dict[int, Tensor] = field(default_factory=dict)  # hidden states (C) by position

    @property
    def prompt_scores(self) -> Scores:
        """Of all tokens of the prompt, once it is read; the first is not a number."""
        return joined(self.scores)


class Engine:
    """Continues up to `rows` texts together; further ones wait their turn.

    `eot` is the last id of the vocabulary: rows of the model past it are padding, never drawn.
    Memory for `length` positions of each text is taken at once, and more when a text needs it.
    `prefix_bytes` are kept of prompts that have been read. `between` is called before each layer
    of a long product; it may call `submit` and `hurry`, and nothing else.
    """

    def __init__(
        self,
        model: GPT2,
        *,
        eot: int,
        rows: int,
        length: int = 0,
        prefix_bytes: int = 0,
        between: Callable[[], None] | None = None,
    ) -> None:
        self.model, self.eot, self.rows = model, eot, rows
        self.n_ctx = model.config.n_ctx
        self.between = between
        self.running: list[Text] = []  # text i holds row i
        self.waiting: Waiting[Text] = Waiting(rows)
        self.prefixes = PrefixCache(prefix_bytes)
        self.cache = self._new_cache(min(length or self.n_ctx, self.n_ctx))
        self._numbers = count()
        self._outer = 0  # rows of the product that is under way: they must stay where they are
        self._advanced: list[Text] = []

    def submit(
        self,
        ids: Sequence[int],
        config: SampleConfig,
        *,
        owner: Hashable = None,
        draws: bool = True,
        scored: bool = False,
    ) -> Text:
        """A text that continues `ids`; an empty prompt starts a document.

        With `draws=False` the prompt is read and not continued, whatever `config.max_tokens` is;
        with `scored` the log-probabilities of its own tokens are kept.
        Raises `UsageError` for what does not fit the model.
        """
        check_prompt(ids, config, self.n_ctx, self.eot, draws=draws)
        text = Text(
            prompt=list(ids),
            config=config,
            generator=torch.Generator().manual_seed(config.seed),
            owner=owner,
            draws=draws,
            scored=scored and bool(len(ids)),
            number=next(self._numbers),
            window=list(ids) or [self.eot],
        )
        self.waiting.append(text)
        return text

    @torch.inference_mode()
    def cancel(self, text: Text) -> None:
        """Give up a text, waiting or running."""
        if text in self.running:
            self._leave(text)
        else:
            self.waiting.remove(text)

    def reset(self) -> None:
        """Give up all texts, and forget what was read."""
        self.running.clear()
        self.waiting = Waiting(self.rows)
        self.prefixes = PrefixCache(self.prefixes.max_bytes)
        self._outer, self._advanced = 0, []

    @torch.inference_mode()
    def step(self) -> list[Text]:
        """Read and draw; returns the texts with something new, the finished for the last time."""
        self._admit()
        self._read_short()
        self._read_long()
        self._decode()
        return self._take_advanced()

    @torch.inference_mode()
    def hurry(self) -> list[Text]:
        """In the middle of a step: read the short prompts that have just come, and draw for them.

        So the first token of a text waits for one layer of the others' products, not for all.
        """
        before = self._advanced
        self._advanced, first = [], self._outer
        self._admit()
        self._read_short(first)
        self._outer = first
        found, self._advanced = self._advanced, before
        return list(dict.fromkeys(found))

    def _take_advanced(self) -> list[Text]:
        found, self._advanced = self._advanced, []
        return list(dict.fromkeys(found))  # some were read and went on in the same step

    def _admit(self) -> None:
        while len(self.running) < self.rows and (text := self.waiting.next(self.running)):
            longest = len(text.window) + (text.config.max_tokens if text.draws else 0)
            if min(longest, self.n_ctx) > self.cache.capacity:
                if self._outer:  # the memory is in use
                    return
                self._grow(min(longest, self.n_ctx))
            self.waiting.remove(text)
            self.running.append(text)
            text.reading = text.scored or len(text.window) > 1
            if not text.draws and not text.scored:  # nothing is asked of the model
                self._finish(text, "length")

    def _read_short(self, first: int = 0) -> None:
        """Prompts that end within this turn, side by side, and the first token of each."""
        room = READ_TOKENS
        while group := self._side_by_side(first, room):
            counts = [len(text.window) - text.filled for text in group]
            self._read(group, counts)
            room -= len(group) * max(counts)

    def _side_by_side(self, first: int, room: int) -> list[Text]:
        """The oldest prompts that fit `room` tokens, padding included."""
        group: list[Text] = []
        width = 0
        for text in self._to_read(first):
            wider = max(width, len(text.window) - text.filled)
            if (len(group) + 1) * wider <= room:
                group.append(text)
                width = wider
        return group

    def _read_long(self) -> None:
        """A part of the long prompt that has waited longest."""
        long = [t for t in self._to_read(0) if len(t.window) - t.filled > READ_TOKENS]
        if long:
            text = min(long, key=lambda text: (text.filled, text.number))
            self._read([text], [READ_TOKENS])

    def _to_read(self, first: int) -> list[Text]:
        """Texts to be read, oldest first; not those whose beginning another one reads just now."""
        found: list[Text] = []
        reading = sorted((t for t in self.running if t.reading), key=lambda text: text.number)
        for text in reading:
            if self.running.index(text) < first:
                continue
            self._share(text)
            follows = any(self._leads(other, text) for other in found)
            if text.reading and not follows:
                found.append(text)
        return found

    def _leads(self, other: Text, text: Text) -> bool:
        """Whether `other`, once it is read, spares `text` a block that it has yet to read."""
        same = _common(other.window, text.window, min(len(other.window), len(text.window) - 1))
        if text.scored:  # scores come by whole blocks, from the cache of prefixes
            same -= same % BLOCK
            if not other.scored or not self.prefixes.max_bytes:
                return False
        return same - text.filled >= BLOCK

    def _share(self, text: Text) -> None:
        """Lay into the row what is known of the text's beginning; nothing of it is read yet."""
        if text.filled:
            return
        row = self.running.index(text)
        best, shared = -1, 0
        for other, running in enumerate(self.running if not text.scored else ()):
            most = min(running.filled, len(running.window), len(text.window) - 1)
            if other != row and (same := _common(running.window, text.window, most)) > shared:
                best, shared = other, same
        chain = self.prefixes.match(text.window, scored=text.scored)
        if len(chain) * BLOCK > shared:
            shared = restore(chain, self.cache, row)
            if text.scored:
                text.scores = [block.scores for block in chain if block.scores]
            text.states[shared - 1] = chain[-1].hidden
        elif shared:
            self._copy(best, row, shared)
        text.filled = text.cached = shared
        text.reading = text.scored or shared < len(text.window) - 1

    def _read(self, texts: list[Text], counts: list[int]) -> None:
        """The next `counts` ids of some windows; draws for those that are read to the end."""
        starts = [text.filled for text in texts]
        hidden = self._hidden(texts, counts)  # (B, T, C)
        ended: list[tuple[int, Text]] = []
        for place, text in enumerate(texts):
            own = hidden[place, : counts[place]]  # (T, C)
            text.filled += counts[place]
            self._keep(text, starts[place], own)
            if text.filled == len(text.window):
                text.reading = False
                ended.append((place, text))
        drawing = [(place, text) for place, text in ended if text.draws]
        if drawing:
            last = torch.stack([hidden[place, counts[place] - 1] for place, _ in drawing])
            logits = self._logits(last)
            for (_, text), own in zip(drawing, logits, strict=True):
                self._draw(text, own)
        for _, text in ended:
            if not text.draws:
                self._finish(text, "length")

    def _keep(self, text: Text, start: int, hidden: Tensor) -> None:
        """Scores of the tokens from `start` on, and what the cache of prefixes needs."""
        if text.scored:
            before = text.states.get(start - 1)
            states = hidden[:-1] if before is None else torch.cat([before[None], hidden[:-1]])
            if before is None:  # nothing comes before the first token
                text.scores.append(unknown(self.eot + 1))
            targets = text.window[start + (before is None) : text.filled]
            for first in range(0, len(targets), SCORED_ROWS):
                part = slice(first, first + SCORED_ROWS)
                text.scores.append(score(self._logits(states[part], copied=False), targets[part]))
            text.states[text.filled - 1] = hidden[-1].clone()  # for the part after this one
        if not self.prefixes.max_bytes or text.ids:
            return
        for position in range(start, text.filled):
            if (position + 1) % BLOCK == 0:
                text.states[position] = hidden[position - start].clone()
        if text.filled == len(text.window):
            scores = joined(text.scores) if text.scored else None
            row = self.running.index(text)
            self.prefixes.insert(text.window, self.cache, row, text.states, scores)
            text.states.clear()

    @torch.inference_mode()
    def _decode(self) -> None:
        """One position of every row. What a row says whose prompt is still read is not heard: it
        would cost more to leave it out, and what it keeps is written over."""
        if not any(not text.reading for text in self.running):
            return
        texts = list(self.running)
        hidden = self._hidden(texts, [1] * len(texts))  # (B, 1, C)
        drawing = [i for i, text in enumerate(texts) if not text.reading]
        logits = self._logits(hidden[drawing, -1])  # (B, V)
        for place in drawing:
            texts[place].filled += 1
        for place, own in zip(drawing, logits, strict=True):
            self._draw(texts[place], own)

    def _hidden(self, texts: list[Text], counts: list[int]) -> Tensor:
        """The stream (B, T, C) of the next ids of each window."""
        rows = [self.running.index(text) for text in texts]
        starts = [text.filled for text in texts]
        inner = bool(self._outer)  # a product in the middle of another one
        if not inner:
            self._outer = len(self.running)
        width = max(counts)
        ids = [
            text.window[start : start + n] + [0] * (width - n)
            for text, start, n in zip(texts, starts, counts, strict=True)
        ]
        kept = Rows(self.cache, rows, starts, counts, None if inner else self.between)
        try:
            return self.model.hidden(
                torch.tensor(ids, device=kept.device),
                cache=kept,  # type: ignore[arg-type]
                positions=kept.positions(self.n_ctx),
                mask=kept.mask(),
            )
        finally:
            if not inner:
                self._outer = 0

    def _logits(self, hidden: Tensor, *, copied: bool = True) -> Tensor:
        logits = self.model.logits(hidden)[:, : self.eot + 1].float()  # (B, V)
        if not torch.isfinite(logits).all():
            raise ModelError(
                "the model's scores are not finite numbers", remedy="check the checkpoint"
            )
        return logits.cpu() if copied else logits

    def _draw(self, text: Text, logits: Tensor) -> None:
        config = text.config
        seen = [*text.prompt, *text.ids] if config.repetition_penalty != 1.0 else ()
        token = next_id(logits, config, text.generator, seen)
        if token == self.eot and not config.openai_compat:
            return self._finish(text, "stop")
        text.ids.append(token)
        if config.logprobs:
            text.logprobs.append(log_probabilities(logits, token, config.logprobs))
        if len(text.ids) == config.max_tokens:
            return self._finish(text, "length")
        self._advanced.append(text)
        text.window.append(token)
        if len(text.window) > self.n_ctx:  # the newest half is read again
            text.window = text.window[-max(self.n_ctx // 2, 1) :]
            text.filled, text.reading = 0, len(text.window) > 1

    def _finish(self, text: Text, why: str) -> None:
        text.finish = why
        self._advanced.append(text)
        self._leave(text)

    def _leave(self, text: Text) -> None:
        """The last row takes the place of one that is done, so that running rows stay together."""
        row, last = self.running.index(text), len(self.running) - 1
        if row != last:
            self._copy(last, row, self.running[last].filled)
            self.running[row] = self.running[last]
        self.running.pop()

    def _copy(self, source: int, target: int, length: int) -> None:
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor[target, :, :length] = tensor[source, :, :length]

    def _new_cache(self, length: int) -> KeyValueCache:
        weight = self.model.wte.weight
        return KeyValueCache(self.model.config, self.rows, length, weight.device, weight.dtype)

    def _grow(self, length: int) -> None:
        """Room for longer texts: at least twice as much as before."""
        old, rows = self.cache, len(self.running)
        self.cache = self._new_cache(min(max(length, 2 * old.capacity), self.n_ctx))
        for name in ("keys", "values"):
            for new, before in zip(getattr(self.cache, name), getattr(old, name), strict=True):
                new[:rows, :, : old.capacity] = before[:rows]


def _common(a: list[int], b: list[int], most: int) -> int:
    """How many of the first `most` ids of two texts are the same."""
    if a[:most] == b[:most]:
        return most
    return next(i for i in range(most) if a[i] != b[i])
