"""Which model to train in a given time: measured on this machine, not guessed.

The rule (Hoffmann et al. 2022, and Muennighoff et al. 2023 for repeated text): the largest model
that sees 20 tokens per parameter in the time, reading the corpus at most `MOST_EPOCHS` times.
"""

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from gptwo.errors import DataError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.progress import SILENT, Reporter, duration
from gptwo.training.config import TrainingConfig
from gptwo.training.optim import adamw
from gptwo.training.speed import flops_per_token, keep_freed_memory
from gptwo.world import World

TOKENS_PER_PARAMETER = 20
MOST_EPOCHS = 6  # beyond about four, reading the same text again teaches little
SHARE_FOR_STEPS = 0.9  # of the budget; held-out losses and checkpoints take the rest
MEASURING_SECONDS = 15.0
STEPS_AIMED_AT = 1_500
VALIDATIONS = 20
SHARE_FOR_VALIDATION = 0.05  # of the budget; a token read costs a third of a token learned
BYTES_PER_PARAMETER = 32  # weight, gradient, two moments, and as much again for activations


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model and its training for a budget, with the measurements and a sentence on why."""

    size: str
    model: GPT2Config
    training: TrainingConfig
    measured: dict[str, Any]
    sentence: str


def choose(
    budget_seconds: float,
    vocab_size: int,
    corpus_tokens: int,
    world: World,
    reporter: Reporter = SILENT,
    *,
    size: str = "",
) -> Choice:
    """The largest size worth training for `budget_seconds` on `corpus_tokens` tokens.

    Climbs from the smallest size, timing a few real steps of each (20 seconds in all), until one
    would see too few tokens. With `size` it is that one, for as many tokens as the time allows.
    """
    if budget_seconds <= 0:
        raise UsageError(f"a budget of {budget_seconds:g} s is no time", remedy="name one as 10m")
    if corpus_tokens < 1:
        raise DataError("the training split has no tokens", remedy="give more text")
    keep_freed_memory()
    seconds = budget_seconds * SHARE_FOR_STEPS
    deadline = time.monotonic() + MEASURING_SECONDS
    rates: dict[str, float] = {}
    best, flops = "", 0.0
    ladder = {size: replace(SIZES[size], vocab_size=vocab_size)} if size else _ladder(vocab_size)
    for name, shape in ladder.items():
        reporter.check()
        work = flops_per_token(shape) * micro_batch(shape, world) * shape.n_ctx
        if flops and time.monotonic() + 3 * work / flops > deadline:
            rates[name] = flops / flops_per_token(shape)  # too slow to try: by arithmetic
        else:
            rates[name] = measure(shape, world, min(deadline - time.monotonic(), 3.0))
            flops = rates[name] * flops_per_token(shape)
        tokens = min(rates[name] * seconds, MOST_EPOCHS * corpus_tokens)
        if best and tokens < TOKENS_PER_PARAMETER * shape.parameters():
            break
        best = name
    model = ladder[best]
    training = settings(model, rates[best] * seconds, corpus_tokens, world)
    seen = training.steps * training.batch_tokens
    needed = seen / rates[best] / SHARE_FOR_STEPS
    sentence = (
        f"budget {duration(budget_seconds)}: this machine trains size {best} "
        f"({model.parameters() / 1e6:.1f}M parameters) on {rates[best]:,.0f} tokens per second; "
        f"{training.steps:,} steps = {seen / 1e6:.1f}M tokens, {seen / model.parameters():.0f} per "
        f"parameter, {seen / corpus_tokens:.1f} readings of the corpus, about {duration(needed)}"
    )
    reporter.say(sentence)
    measured = {"tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()}}
    return Choice(size=best, model=model, training=training, measured=measured, sentence=sentence)


def settings(model: GPT2Config, tokens: float, corpus_tokens: int, world: World) -> TrainingConfig:
    """Training settings for a model that may see `tokens` tokens, by rule of thumb.

    batch_tokens: a power of two times n_ctx that makes about 1,500 steps. lr: see `rate_for`.
    """
    tokens = max(min(tokens, MOST_EPOCHS * corpus_tokens), model.n_ctx)
    rows = 2 ** max(round(math.log2(tokens / STEPS_AIMED_AT / model.n_ctx)), 0)
    batch_tokens = min(rows * model.n_ctx, 524_288)  # the paper's 512 x 1024 at most
    steps = max(int(tokens / batch_tokens), 1)
    validated = int(3 * SHARE_FOR_VALIDATION * steps * batch_tokens / VALIDATIONS)
    return TrainingConfig(
        steps=steps,
        batch_tokens=batch_tokens,
        micro_batch=min(micro_batch(model, world), batch_tokens // model.n_ctx),
        lr=rate_for(model),
        warmup_steps=min(steps // 20, 2_000),
        validation_interval=max(-(-steps // VALIDATIONS), 1),
        validation_tokens=min(max(validated, model.n_ctx), 131_072),
        checkpoint_interval=max(steps // 5, 1),
    )


def rate_for(model: GPT2Config) -> float:
    """Peak rate: 6e-4 at 124M parameters, as the reproductions use, more for smaller models."""
    return float(f"{6e-4 * (124e6 / model.parameters()) ** 0.35:.1e}")


def micro_batch(model: GPT2Config, world: World) -> int:
    """Rows per forward pass: what keeps the processor busy and its caches warm."""
    return max((2_048 if world.device == "cpu" else 16_384) // model.n_ctx, 1)


def measure(shape: GPT2Config, world: World, seconds: float) -> float:
    """Tokens per second of real training steps on random tokens, the median of a few."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2(shape).to(world.device)
        rows = micro_batch(shape, world)
        ids = torch.randint(shape.vocab_size, (rows, shape.n_ctx + 1), device=world.device)
    optimizer = adamw(model, TrainingConfig())
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < ends and len(times) < 20):
        started = time.perf_counter()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if world.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    steady = sorted(times[1:])
    return rows * shape.n_ctx / steady[len(steady) // 2]


def _ladder(vocab_size: int) -> dict[str, GPT2Config]:
    """Every size that fits in half of memory, smallest first, with this vocabulary."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shapes = {name: replace(shape, vocab_size=vocab_size) for name, shape in SIZES.items()}
    distinct = {shape: name for name, shape in reversed(shapes.items())}  # first name of each
    ordered = sorted(distinct, key=lambda shape: shape.parameters())
    fitting = [s for s in ordered if s.parameters() * BYTES_PER_PARAMETER < memory / 2]
    return {distinct[shape]: shape for shape in fitting or ordered[:1]}
