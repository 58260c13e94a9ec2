"""Which model to train in a given time: measured on this machine, not guessed.

Each size, from the smallest up, is timed on a few real steps. What it would have read by the end of
the time, and the fitted law of `scaling`, tell its loss; the size with the lowest is trained.
`pace` then sees to it that it ends on time.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gptwo.artifacts import read_json, read_manifest, write_json
from gptwo.config import differences, from_dict, to_dict, with_settings
from gptwo.errors import DataError, ResourceError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.progress import SILENT, Reporter, duration
from gptwo.training import forward
from gptwo.training.budgets.pace import SHARE_FOR_STEPS
from gptwo.training.budgets.scaling import LAW
from gptwo.training.config import TrainingConfig, rate_for
from gptwo.training.optimizers.optim import make_optimizer
from gptwo.training.plan import refuse_foreign
from gptwo.training.speed import flops_per_token, keep_freed_memory
from gptwo.world import World

BUDGET = "budget.json"
MOST_EPOCHS = 8  # of the corpus; more teaches little (see scaling.worth) and small ones by heart
MEASURING_SECONDS = 15.0  # for all sizes together, and
SHARE_FOR_MEASURING = 0.08  # of the budget at most
STARTING_SECONDS = 2.0  # shards are hashed, the matrix rate measured, the first step is slow
STEPS_AIMED_AT = 1_500
VALIDATIONS = 20
SHARE_FOR_VALIDATION = 0.04  # of the budget; a token read costs a third of a token learned
BYTES_PER_PARAMETER = 32  # weight, gradient, two moments, and as much again for activations
MOST_BATCH_TOKENS = 512 * 1024  # the paper's
CHOSEN = {"training.steps": "the budget", "model.vocab_size": "the tokenizer"}


@dataclass(frozen=True, kw_only=True)
class Named:
    """What settings may name beside a budget: `model.n_layer=3`, `training.lr=3e-4`."""

    model: GPT2Config = GPT2Config()
    training: TrainingConfig = TrainingConfig()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A model and its training for a budget, with the measurements and a sentence on why."""

    size: str
    model: GPT2Config
    training: TrainingConfig
    seconds: float  # for `train`: what is left of the budget, less where the corpus is too small
    measured: dict[str, Any]
    sentence: str


def choose_once(
    out: Path,
    budget_seconds: float,
    *,
    tokens: Path | Sequence[Path],
    world: World,
    reporter: Reporter = SILENT,
    size: str = "",
    settings: tuple[str, ...] = (),
) -> Choice:
    """The choice for a run at `out`, made once and kept there in budget.json.

    Measuring again would choose other steps. A run begun with another budget, size, settings or
    tokens is a `UsageError`.
    """
    folders = (tokens,) if isinstance(tokens, Path) else tuple(tokens)
    manifests = [read_manifest(folder) for folder in folders]
    asked = {
        "seconds": budget_seconds,
        "size": size,
        "settings": sorted(settings),
        "tokens": "+".join(manifest.fingerprint for manifest in manifests),
    }
    path = out / BUDGET
    if path.exists():
        known = read_json(path)
        changes = differences(known["asked"], asked)
        if changes:
            raise UsageError(
                f"{out} was begun with another budget ({'; '.join(changes)})",
                remedy="give the same one, or choose another --out",
            )
        kept = known["choice"]
        both = from_dict(Named, {part: kept[part] for part in ("model", "training")})
        return Choice(**(kept | {"model": both.model, "training": both.training}))
    if out.exists():
        refuse_foreign(out)
    choice = choose(
        budget_seconds,
        manifests[0].details["vocab_size"],
        sum(manifest.counts["train"]["tokens"] for manifest in manifests),
        world,
        reporter,
        size=size,
        settings=settings,
    )
    write_json(path, {"asked": asked, "choice": to_dict(choice)})
    return choice


def choose(
    budget_seconds: float,
    vocab_size: int,
    corpus_tokens: int,
    world: World,
    reporter: Reporter = SILENT,
    *,
    size: str = "",
    settings: tuple[str, ...] = (),
) -> Choice:
    """The size that will have the lowest loss after `budget_seconds` on `corpus_tokens` tokens.

    Climbs from the smallest size, timing a few real steps of each, until the next would end higher.
    With `size` it is that one, for as many tokens as the time allows. `settings` are kept, and
    measured as they are.
    """
    started = time.monotonic()
    _check(budget_seconds, size, settings, world)
    keep_freed_memory()
    ladder = _ladder(vocab_size, corpus_tokens, size, settings)
    rates, losses = _compared(ladder, budget_seconds, corpus_tokens, world, reporter)
    best = min(losses, key=losses.__getitem__)
    model, rate = ladder[best], rates[best]
    left = budget_seconds - (time.monotonic() - started)
    reach = rate * _seconds_of_steps(left)
    tokens = min(reach, MOST_EPOCHS * corpus_tokens)
    named = with_settings(Named(model=model), settings).training
    training = recipe(model, tokens, world, named.optimizer)
    training = with_settings(Named(model=model, training=training), settings).training
    if tokens < training.batch_tokens:
        raise UsageError(
            f"a budget of {duration(budget_seconds)} is too short for one step: size {best} reads "
            f"{rate:,.0f} tokens per second here, a batch has {training.batch_tokens:,}",
            remedy="name a longer one, or a smaller training.batch_tokens",
        )
    training = replace(training, steps=int(tokens / training.batch_tokens))
    seen = training.steps * training.batch_tokens
    sentence = (
        f"budget {duration(budget_seconds)}: this machine trains size {best} "
        f"({model.parameters() / 1e6:.1f}M parameters) on {rate:,.0f} tokens per second; "
        f"{training.steps:,} steps = {seen / 1e6:.1f}M tokens, {seen / model.parameters():.0f} per "
        f"parameter, {seen / corpus_tokens:.1f} readings of the corpus"
    )
    if tokens < reach:  # the corpus ends before the time does
        left = STARTING_SECONDS + tokens / rate / SHARE_FOR_STEPS
        sentence += f", the most there is use for: about {duration(left)}"
    reporter.say(sentence)
    return Choice(
        size=best,
        model=model,
        training=training,
        seconds=round(left, 3),
        measured={
            "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "predicted_loss": {name: round(loss, 4) for name, loss in losses.items()},
        },
        sentence=sentence,
    )


def _compared(
    ladder: Mapping[str, GPT2Config],
    seconds: float,
    corpus_tokens: int,
    world: World,
    reporter: Reporter,
) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens per second and the loss foretold of each size, up to the first that ends higher."""
    deadline = time.monotonic() + min(MEASURING_SECONDS, SHARE_FOR_MEASURING * seconds)
    rates: dict[str, float] = {}
    losses: dict[str, float] = {}
    for name, model in ladder.items():
        reporter.check()
        rates[name] = _rate(model, world, deadline, rates, ladder)
        read = min(rates[name] * _seconds_of_steps(seconds), MOST_EPOCHS * corpus_tokens)
        losses[name] = LAW.loss(model.parameters(), max(read, 1.0), corpus_tokens)
        if losses[name] > min(losses.values()):
            break
    return rates, losses


def _seconds_of_steps(seconds: float) -> float:
    return SHARE_FOR_STEPS * max(seconds - STARTING_SECONDS, 0.0)


def _check(seconds: float, size: str, settings: tuple[str, ...], world: World) -> None:
    if not 0 < seconds < float("inf"):
        raise UsageError(f"a budget of {seconds:g} s is no time", remedy="name one as 10m")
    if size and size not in SIZES:
        raise UsageError(f"unknown size {size!r}", remedy=f"sizes are: {', '.join(SIZES)}")
    named = {line.partition("=")[0].strip() for line in settings}
    for name, chooser in CHOSEN.items():
        if name in named:
            raise UsageError(
                f"{name} is chosen by {chooser}, and given as a setting too",
                remedy="leave one of them out",
            )
    if world.size > 1:
        raise UsageError(
            f"a budget is kept by one process, there are {world.size}",
            remedy="name a size and training.steps instead",
        )


def recipe(
    model: GPT2Config, tokens: float, world: World, optimizer: str = TrainingConfig.optimizer
) -> TrainingConfig:
    """Training settings for a model that is to read `tokens` tokens, by rule of thumb.

    batch_tokens: a power of two times n_ctx that makes about 1,500 steps, at least one micro-batch,
    at most the paper's. lr: that of AdamW alone falls with size, see `rate_for`; beside Muon one
    rate serves all sizes.
    """
    rows = 2 ** max(round(math.log2(max(tokens, 1.0) / STEPS_AIMED_AT / model.n_ctx)), 0)
    rows = min(max(rows, micro_batch(model, world)), max(MOST_BATCH_TOKENS // model.n_ctx, 1))
    batch_tokens = rows * model.n_ctx
    steps = max(int(tokens / batch_tokens), 1)
    validated = int(3 * SHARE_FOR_VALIDATION * steps * batch_tokens / VALIDATIONS)
    return TrainingConfig(
        steps=steps,
        batch_tokens=batch_tokens,
        micro_batch=min(micro_batch(model, world), rows),
        optimizer=optimizer,
        lr=rate_for(model) if optimizer == "adamw" else TrainingConfig.lr,
        warmup_steps=min(steps // 20, 2_000),
        validation_interval=max(-(-steps // VALIDATIONS), 1),
        validation_tokens=min(max(validated, model.n_ctx), 131_072),
        checkpoint_interval=max(steps // 5, 1),
    )


def micro_batch(model: GPT2Config, world: World) -> int:
    """Rows per forward pass: what keeps the processor busy and its caches warm."""
    return max((2_048 if world.device == "cpu" else 16_384) // model.n_ctx, 1)


def _rate(
    model: GPT2Config,
    world: World,
    deadline: float,
    rates: Mapping[str, float],
    ladder: Mapping[str, GPT2Config],
) -> float:
    """Tokens per second, measured; by arithmetic from the last size when there is no time left."""
    work = flops_per_token(model)
    if not rates:
        return measure(model, world, max(deadline - time.monotonic(), 0.0) / 3)
    name, rate = list(rates.items())[-1]
    forecast = rate * flops_per_token(ladder[name]) / work
    seconds = 3 * micro_batch(model, world) * model.n_ctx / forecast
    left = deadline - time.monotonic()
    return forecast if seconds > left else measure(model, world, max(seconds, left / 3))


def measure(shape: GPT2Config, world: World, seconds: float) -> float:
    """Tokens per second of real training steps on random tokens, the median of a few."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2(shape).to(world.device)
        rows = micro_batch(shape, world)
        ids = torch.randint(shape.vocab_size, (rows, shape.n_ctx + 1), device=world.device)
    config = TrainingConfig()
    optimizer = make_optimizer(model, config)
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while len(times) < 2 or (time.perf_counter() < ends and len(times) < 20):
        started = time.perf_counter()
        forward.loss(model, ids[:, :-1], ids[:, 1:], config).backward()
        optimizer.step()
        optimizer.zero_grad()
        if world.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    steady = sorted(times[1:])
    return rows * shape.n_ctx / steady[len(steady) // 2]


def _ladder(
    vocab_size: int, corpus_tokens: int, size: str, settings: tuple[str, ...]
) -> dict[str, GPT2Config]:
    """The sizes to choose among, smallest first, with this vocabulary and these settings.

    Those that have no context of text or take more than half of memory are left out; when it is
    all of them, the error says which it was.
    """
    shapes: dict[str, GPT2Config] = {}
    for name in [size] if size else SIZES:
        named = Named(model=replace(SIZES[name], vocab_size=vocab_size))
        shapes[name] = with_settings(named, settings).model
    distinct = {shape: name for name, shape in reversed(shapes.items())}  # first name of each
    ordered = sorted(distinct, key=lambda shape: shape.parameters())
    read = [shape for shape in ordered if shape.n_ctx < corpus_tokens]
    if not read:
        raise DataError(
            f"the training split has {corpus_tokens:,} tokens; one context takes "
            f"{min(shape.n_ctx for shape in ordered) + 1:,}",
            remedy="give more text or set a smaller model.n_ctx",
        )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fitting = [shape for shape in read if shape.parameters() * BYTES_PER_PARAMETER < memory / 2]
    if not fitting:
        raise ResourceError(
            f"training {distinct[read[0]]} takes about "
            f"{read[0].parameters() * BYTES_PER_PARAMETER / 1e9:.1f} GB, more than half of "
            f"this machine's {memory / 1e9:.1f} GB",
            remedy="choose a smaller --size",
        )
    return {distinct[shape]: shape for shape in fitting}
