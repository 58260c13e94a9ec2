"""Continuing one text, token by token: the plain loop that `engine` is held to, and streaming."""

import codecs
from collections.abc import Iterable, Iterator

import torch

from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.text.config import SampleConfig
from gptwo.text.prompt import check_prompt
from gptwo.text.sample import next_id
from gptwo.tokens.tokenizer import Tokenizer


def generate(
    model: GPT2, ids: list[int], config: SampleConfig, *, eot: int, cached: bool = True
) -> Iterator[int]:
    """Ids that continue `ids`, until `max_tokens` or the end of the document.

    An empty prompt starts a document: it is conditioned on `eot`. When the window is full, the
    newest half of it becomes the context and is read again; a prompt must fit the window.
    `eot` is the last id of the vocabulary: rows of the model past it are padding, never drawn.
    `cached=False` reads the whole context for every token: slow, and the test of the cache.
    Raises UsageError at once, before the first id is asked for.
    """
    check_prompt(ids, config, model.config.n_ctx, eot)
    return _generate(model, ids, config, eot, cached)


@torch.inference_mode()
def _generate(
    model: GPT2, ids: list[int], config: SampleConfig, eot: int, cached: bool
) -> Iterator[int]:
    context = ids or [eot]
    n_ctx, device = model.config.n_ctx, model.wte.weight.device
    generator = torch.Generator().manual_seed(config.seed)
    said = list(ids)  # all of the text, for the repetition penalty; `eot` of no prompt is not
    window = fresh = context
    length = min(n_ctx, len(context) + config.max_tokens)
    cache = _new_cache(model, length) if cached else None
    for _ in range(config.max_tokens):
        if len(window) > n_ctx:
            window = fresh = window[-max(n_ctx // 2, 1) :]
            cache = _new_cache(model, length) if cached else None
        read = fresh if cached else window
        hidden = model.hidden(torch.tensor([read], device=device), cache=cache)  # (1, T, C)
        logits = model.logits(hidden[0, -1])[: eot + 1].float().cpu()  # (V)
        if not torch.isfinite(logits).all():
            raise ModelError(
                "the model's scores are not finite numbers", remedy="check the checkpoint"
            )
        token = next_id(logits, config, generator, said)
        if token == eot and not config.openai_compat:
            return
        yield token
        said.append(token)
        window, fresh = [*window, token], [token]


def _new_cache(model: GPT2, length: int) -> KeyValueCache:
    weight = model.wte.weight
    return KeyValueCache(model.config, 1, length, weight.device, weight.dtype)


def stream(model: GPT2, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> Iterator[str]:
    """Text as it becomes certain: bytes are held until they are whole characters, and characters
    until they cannot be the beginning of a stop text."""
    ids = generate(model, tokenizer.encode(prompt), config, eot=tokenizer.eot)
    return until(config.stop, (tokenizer.token_bytes(token) for token in ids))


def until(stops: tuple[str, ...], parts: Iterable[bytes]) -> Iterator[str]:
    """Bytes as they come -> whole characters, up to the first of `stops`."""
    held = Held(stops)
    for part in parts:
        if piece := held.push(part):
            yield piece
        if held.stopped:
            return
    if piece := held.end():
        yield piece


class Held:
    """Text that is not certain yet: half a character, or what may begin a stop text."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.stops, self.stopped = stops, False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""

    def push(self, part: bytes) -> str:
        """Take more bytes; returns what became certain."""
        text = self._text + self._decoder.decode(part)
        cut = min((text.find(stop) for stop in self.stops if stop in text), default=-1)
        if cut >= 0:
            self.stopped, self._text = True, ""
            return text[:cut]
        certain = len(text) - max((_overlap(text, stop) for stop in self.stops), default=0)
        self._text = text[certain:]
        return text[:certain]

    def end(self) -> str:
        """What is left when no more comes."""
        text, self._text = self._text + self._decoder.decode(b"", final=True), ""
        return text


def _overlap(text: str, stop: str) -> int:
    """How many last characters of `text` could be the beginning of `stop`."""
    return next(n for n in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:n]))
