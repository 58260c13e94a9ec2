"""Many texts at once: a row of keys and values for each, new ones join between tokens.

A step reads one position of every running text. Texts are of different lengths; each looks at its
own positions alone, so what it says does not depend on its neighbours. (Its logits do in their last
bits, because products of other sizes are summed in another order.)
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gptwo.errors import ModelError, UsageError
from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.text.config import SampleConfig
from gptwo.text.sample import log_probabilities, next_id


@dataclass(kw_only=True, eq=False)
class Text:
    """A text that is being written. `finish` tells why it ended: "stop" or "length"."""

    prompt: list[int]
    config: SampleConfig
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)  # what was drawn, without the end of the document
    logprobs: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    finish: str = ""
    window: list[int] = field(default_factory=list)  # what the model reads for the next token


class _Decoding:
    """The cache of the first rows while each appends one position at an end of its own."""

    def __init__(self, cache: KeyValueCache, lengths: list[int]) -> None:
        self.cache, self.rows = cache, len(lengths)
        self.length, self.capacity = max(lengths), cache.capacity
        device = cache.keys[0].device
        self.lengths = torch.tensor(lengths, device=device)
        self.places = torch.arange(self.rows, device=device), self.lengths

    @property
    def mask(self) -> Tensor:
        """(B, 1, 1, S): each row sees what it has filled, and the position it appends."""
        seen = torch.arange(self.length + 1, device=self.lengths.device)
        return (seen <= self.lengths[:, None])[:, None, None]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        rows, ends = self.places
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[rows, :, ends] = k[:, :, 0]
        values[rows, :, ends] = v[:, :, 0]
        end = self.length + 1
        return keys[: self.rows, :, :end], values[: self.rows, :, :end]  # (B, H, S, D)


class Engine:
    """Continues up to `rows` texts together; further ones wait their turn.

    `eot` is the last id of the vocabulary: rows of the model past it are padding, never drawn.
    `length` positions are kept for each text, all that the model reads if it is not given.
    """

    def __init__(self, model: GPT2, *, eot: int, rows: int, length: int = 0) -> None:
        self.model, self.eot, self.rows = model, eot, rows
        weight = model.wte.weight
        self.length = min(length or model.config.n_ctx, model.config.n_ctx)
        self.cache = KeyValueCache(model.config, rows, self.length, weight.device, weight.dtype)
        self.running: list[Text] = []  # text i holds row i
        self.filled: list[int] = []  # positions of each row
        self.waiting: deque[Text] = deque()

    def submit(self, ids: Sequence[int], config: SampleConfig) -> Text:
        """A text that continues `ids`; an empty prompt starts a document.

        Raises `UsageError` for what does not fit the model.
        """
        check_prompt(ids, config, self.model.config.n_ctx, self.eot)
        generator = torch.Generator().manual_seed(config.seed)
        text = Text(prompt=list(ids), config=config, generator=generator)
        text.window = list(ids) or [self.eot]
        self.waiting.append(text)
        return text

    def cancel(self, text: Text) -> None:
        """Give up a text, waiting or running."""
        if text in self.waiting:
            self.waiting.remove(text)
        elif text in self.running:
            self._leave(self.running.index(text))

    @torch.inference_mode()
    def step(self) -> list[Text]:
        """Draw a token of every running text; returns them, the finished ones for the last time."""
        while self.waiting and len(self.running) < self.rows:
            self._join(self.waiting.popleft())
        if not self.running:
            return []
        decoding = _Decoding(self.cache, self.filled)
        device = decoding.lengths.device
        hidden = self.model.hidden(
            torch.tensor([[text.window[-1]] for text in self.running], device=device),
            cache=decoding,  # type: ignore[arg-type]
            positions=decoding.lengths[:, None],
            mask=decoding.mask,
        )  # (B, 1, C)
        logits = self.model.logits(hidden[:, -1])[:, : self.eot + 1].float().cpu()  # (B, V)
        if not torch.isfinite(logits).all():
            raise ModelError(
                "the model's scores are not finite numbers", remedy="check the checkpoint"
            )
        advanced = list(self.running)
        for row in reversed(range(len(advanced))):  # a row that leaves is filled by the last one
            self.filled[row] += 1
            self._draw(row, logits[row])
        return advanced

    def _draw(self, row: int, logits: Tensor) -> None:
        text = self.running[row]
        config = text.config
        seen = [*text.prompt, *text.ids] if config.repetition_penalty != 1.0 else ()
        token = next_id(logits, config, text.generator, seen)
        if token == self.eot and not config.openai_compat:
            text.finish = "stop"
            return self._leave(row)
        text.ids.append(token)
        if config.logprobs:
            text.logprobs.append(log_probabilities(logits, token, config.logprobs))
        if len(text.ids) == config.max_tokens:
            text.finish = "length"
            return self._leave(row)
        text.window.append(token)
        if len(text.window) > self.model.config.n_ctx:  # the newest half is read again
            text.window = text.window[-max(self.model.config.n_ctx // 2, 1) :]
            self._read(row, text, 0)

    def _join(self, text: Text) -> None:
        """Read all but the last id, which the next step reads; what another row has is copied."""
        row = len(self.running)
        best, shared = -1, 0
        for other, running in enumerate(self.running):
            common = _common(running.window, text.window, self.filled[other])
            if common > shared:
                best, shared = other, common
        if shared:
            self._copy(best, row, shared)
        self.running.append(text)
        self.filled.append(shared)
        self._read(row, text, shared)

    def _read(self, row: int, text: Text, start: int) -> None:
        """Keys and values of the window from `start` on, its last id left out."""
        ids = text.window[start:-1]
        if ids:
            device = self.cache.keys[0].device
            self.model.hidden(torch.tensor([ids], device=device), cache=self.cache.row(row, start))
        self.filled[row] = len(text.window) - 1

    def _leave(self, row: int) -> None:
        """The last row takes the place of one that is done, so that running rows stay together."""
        last = len(self.running) - 1
        if row != last:
            self._copy(last, row, self.filled[last])
            self.running[row], self.filled[row] = self.running[last], self.filled[last]
        self.running.pop()
        self.filled.pop()

    def _copy(self, source: int, target: int, length: int) -> None:
        for tensor in (*self.cache.keys, *self.cache.values):
            tensor[target, :, :length] = tensor[source, :, :length]


def _common(a: list[int], b: list[int], filled: int) -> int:
    """How many first positions of `b` row `a` has read; the last of `b` is to be read anyway."""
    most = min(filled, len(a), len(b) - 1)
    return next((i for i in range(most) if a[i] != b[i]), most)


def check_prompt(ids: Sequence[int], config: SampleConfig, n_ctx: int, eot: int) -> None:
    """Refuse what the model cannot read or `config` does not allow; raises `UsageError`."""
    if len(ids) > n_ctx:
        raise UsageError(
            f"the prompt has {len(ids):,} tokens, the model reads {n_ctx:,}",
            remedy="shorten the prompt",
        )
    if config.when_full == "refuse" and len(ids or [eot]) + config.max_tokens > n_ctx:
        raise UsageError(
            f"the prompt's {len(ids):,} tokens and max_tokens = {config.max_tokens:,} are more "
            f"than the {n_ctx:,} that the model reads",
            remedy="ask for fewer tokens, or let the context slide with --when-full slide",
        )
    wrong = [i for i in (*ids, *(token for token, _ in config.logit_bias)) if not 0 <= i <= eot]
    if wrong:
        raise UsageError(
            f"token {wrong[0]} is not in the vocabulary of {eot + 1:,}",
            remedy="use ids of the model's own tokenizer",
        )
