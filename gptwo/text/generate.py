"""Continuing a text, token by token, with keys and values kept."""

import codecs
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch

from gptwo.artifacts import Manifest, atomic_write, stage
from gptwo.errors import ModelError, UsageError
from gptwo.model.gpt2 import GPT2, KeyValueCache
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
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
    n_ctx = model.config.n_ctx
    context = ids or [eot]
    if len(context) > n_ctx:
        raise UsageError(
            f"the prompt has {len(context):,} tokens, the model reads {n_ctx:,}",
            remedy="shorten the prompt",
        )
    return _generate(model, list(context), config, eot, cached)


@torch.inference_mode()
def _generate(
    model: GPT2, context: list[int], config: SampleConfig, eot: int, cached: bool
) -> Iterator[int]:
    n_ctx, device = model.config.n_ctx, model.wte.weight.device
    generator = torch.Generator().manual_seed(config.seed)
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
        token = next_id(logits, config, generator)
        if token == eot:
            return
        yield token
        window, fresh = [*window, token], [token]


def _new_cache(model: GPT2, length: int) -> KeyValueCache:
    weight = model.wte.weight
    return KeyValueCache(model.config, 1, length, weight.device, weight.dtype)


def stream(model: GPT2, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> Iterator[str]:
    """Text as it becomes certain: bytes are held until they are whole characters, and characters
    until they cannot be the beginning of a stop text."""
    ids = generate(model, tokenizer.encode(prompt), config, eot=tokenizer.eot)
    return until(config.stop, (tokenizer.token_bytes(token) for token in ids))


def until(stops: tuple[str, ...], parts: Iterator[bytes]) -> Iterator[str]:
    """Bytes as they come -> whole characters, up to the first of `stops`."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = ""
    for part in parts:
        held += decoder.decode(part)
        cut = min((held.find(s) for s in stops if s in held), default=-1)
        if cut >= 0:
            if cut:
                yield held[:cut]
            return
        keep = max((_overlap(held, s) for s in stops), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    held += decoder.decode(b"", final=True)
    if held:
        yield held


def _overlap(text: str, stop: str) -> int:
    """How many last characters of `text` could be the beginning of `stop`."""
    return next(n for n in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:n]))


def continuations(
    model: GPT2, tokenizer: Tokenizer, prompt: str, config: SampleConfig, n: int
) -> Iterator[tuple[SampleConfig, Iterator[str]]]:
    """`n` streams, each with a seed of its own: seed, seed + 1, ..."""
    for i in range(n):
        own = replace(config, seed=config.seed + i)
        yield own, stream(model, tokenizer, prompt, own)


def write_samples(
    model: GPT2,
    tokenizer: Tokenizer,
    prompts: list[str],
    out: Path,
    config: SampleConfig,
    *,
    n: int,
    inputs: dict[str, str],
    reporter: Reporter = SILENT,
) -> Manifest:
    """`n` continuations of each prompt into out/samples.jsonl; kind "samples"."""
    settings = {**asdict(config), "prompts": prompts, "n": n}
    with stage(out, kind="samples", config=settings, inputs=inputs) as made:
        if made.done:
            return made.done
        lines = []
        with reporter.bar("samples", len(prompts) * n, "texts") as bar:
            for prompt in prompts:
                for own, pieces in continuations(model, tokenizer, prompt, config, n):
                    reporter.check()
                    text = "".join(pieces)
                    count = len(tokenizer.encode(text))
                    lines.append(
                        {"prompt": prompt, "text": text, "seed": own.seed, "tokens": count}
                    )
                    bar.advance()
        with atomic_write(made.folder / "samples.jsonl", "w") as handle:
            handle.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        return made.commit(counts={"samples": len(lines)})


def print_samples(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    *,
    n: int,
    as_json: bool,
    reporter: Reporter,
) -> None:
    """Stream continuations to stdout; with `as_json` one object a line. Speed goes to stderr."""
    if n < 1:
        raise UsageError(f"n must be at least 1, found {n}", remedy="ask for one or more")
    prompt = tokenizer.decode(tokenizer.encode(prompt))  # as the model reads it: always printable
    started, tokens = time.monotonic(), 0
    for own, pieces in continuations(model, tokenizer, prompt, config, n):
        if as_json:
            text = "".join(_checked(pieces, reporter))
            line = {"prompt": prompt, "text": text, "seed": own.seed}
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            heading = f"=== seed {own.seed}\n" if n > 1 else ""
            text = _print_streaming(heading + prompt, _checked(pieces, reporter))
        sys.stdout.flush()
        tokens += len(tokenizer.encode(text))
    seconds = max(time.monotonic() - started, 1e-9)
    reporter.say(f"{tokens} tokens in {seconds:.1f}s, {tokens / seconds:,.0f} tokens/s")


def _checked(pieces: Iterator[str], reporter: Reporter) -> Iterator[str]:
    """`pieces`, until someone asks to stop."""
    for piece in pieces:
        reporter.check()
        yield piece


def _print_streaming(start: str, pieces: Iterator[str]) -> str:
    sys.stdout.write(start)
    text = ""
    for piece in pieces:
        text += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    return text
