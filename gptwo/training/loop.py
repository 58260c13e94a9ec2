"""Training: the loop that turns token shards into a model (paper section 2.3).

Set the rate, gather gradients over micro-batches, clip, step, log; every so often measure the
held-out loss and commit a checkpoint. Everything a step does is a function of the settings, the
tokens and the step's number, so a run that was stopped, however it was stopped, goes on from its
last checkpoint to the same bits as one that was left alone.
"""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from gptwo.artifacts import lock, read_manifest, write_json
from gptwo.errors import DivergedError, Interrupted
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.shards import open_mix
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.training import checkpoint
from gptwo.training.batches import batches
from gptwo.training.checkpoint import State, is_due
from gptwo.training.config import TrainingConfig
from gptwo.training.metrics import Lines
from gptwo.training.optim import clip_gradients, make_optimizer, set_rate
from gptwo.training.pace import PACE, Pace
from gptwo.training.plan import PLAN, check_plan, check_tokenizer, make_plan, refuse_foreign
from gptwo.training.run import Run
from gptwo.training.schedule import learning_rate
from gptwo.training.speed import flops_per_token, keep_freed_memory, matrix_rate, peak_memory_mb
from gptwo.training.step import gather_gradients
from gptwo.training.validation import validate
from gptwo.world import World, here

METRICS = "metrics.jsonl"  # the same bytes on every run
TIMINGS = "timings.jsonl"  # never the same twice


def train(
    config: TrainingConfig,
    model: GPT2Config,
    *,
    tokens: Path | Sequence[Path],
    tokenizer: Path,
    out: Path,
    world: World | None = None,
    accept_changes: tuple[str, ...] = (),
    seconds: float = 0.0,
    reporter: Reporter = SILENT,
) -> Path:
    """Train to `config.steps`, going on from the last checkpoint under `out` if there is one.

    Several folders of `tokens` are read in the shares of `config.mix`, or as one without it.
    Returns the final checkpoint's folder, at once when the run is finished. The model's vocabulary
    is the tokenizer's. `accept_changes` names settings that may differ from those the run was begun
    with, such as "training.steps". With `seconds` the steps become as many as fit into that time.
    Raises `DivergedError` when a loss or gradient is not finite, and `Interrupted`, with a
    checkpoint committed, when the reporter was asked to stop.
    """
    world = world or here()
    torch.set_num_threads(world.threads)  # sums are cut among threads: part of the result
    with lock(out), torch.random.fork_rng(), ExitStack() as files:
        # What is this run, and is it the one that was begun here?
        refuse_foreign(out)
        vocabulary = Tokenizer.load(tokenizer)
        model = replace(model, vocab_size=vocabulary.vocab_size)
        folders = (tokens,) if isinstance(tokens, Path) else tuple(tokens)
        data = "+".join(read_manifest(folder).fingerprint for folder in folders)
        plan = make_plan(config, model, data, vocabulary.fingerprint, world)
        checkpoints = out / "checkpoints"
        checkpoint.remove_unfinished(checkpoints)
        last = checkpoint.newest(checkpoints)
        pace = Pace(out / PACE, config.steps, seconds)
        if last:
            check_plan(plan, out / PLAN, accept_changes, reporter)
            if checkpoint.read_state(last, hashes=False).step >= pace.steps():
                return last

        # Open everything before the first step: what cannot work fails now.
        shards, held_out = open_mix(folders, "train"), open_mix(folders, "valid")
        check_tokenizer(shards, vocabulary)
        reads = batches(
            shards,
            n_ctx=model.n_ctx,
            batch_tokens=config.batch_tokens,
            seed=config.seed,
            mix=config.mix,
            world=world,
        )
        keep_freed_memory()
        if last:
            module, optimizer, state = checkpoint.load(last, model, config, world.device)
        else:
            torch.manual_seed(config.seed)
            module, state = GPT2(model).to(world.device), State()
            optimizer = make_optimizer(module, config)
        write_json(out / PLAN, plan)
        pace.resume(out / TIMINGS, state.step)
        config = replace(config, steps=pace.steps(state.step - 1))  # as decided until here
        logged = state.step if last else -1  # lines beyond are of steps that will be made again
        run = Run(
            config=config,
            model=module,
            optimizer=optimizer,
            batches=reads,
            held_out=held_out,
            tokenizer=tokenizer,
            plan=plan,
            pace=pace,
            checkpoints=checkpoints,
            metrics=files.enter_context(closing(Lines(out / METRICS, logged))),
            timings=files.enter_context(closing(Lines(out / TIMINGS, logged))),
            device=world.device,
            reporter=reporter,
        )
        return _run_to_the_end(run, state)


def _run_to_the_end(run: Run, state: State) -> Path:
    """The loop. `state` is always that of the model's weights: it can be committed at any point."""
    config, speed = run.config, matrix_rate(run.device)
    run.reporter.say(_summary(run, state, speed))
    with run.reporter.bar("train", config.steps - state.step, "steps") as bar:
        try:
            if state.step == 0 and config.validation_interval:
                state = validate(run, state, bar)
            while state.step < run.config.steps:
                run = _on_time(run, state, bar)
                state = _update(run, state, bar, speed)
                if _validation_is_due(run.config, state.step):
                    state = validate(run, state, bar)
                if is_due(state.step, config.checkpoint_interval, run.config.steps):
                    _commit(run, state)
        except Interrupted:
            if state.step:
                _commit(run, state)
            raise
    return _commit(run, state)


def _on_time(run: Run, state: State, bar: Bar) -> Run:
    """The run with as many steps as fit into its time."""
    steps = run.pace.check(state.step, run.reporter)
    if steps != run.config.steps:
        bar.total = bar.done + steps - state.step
        run = replace(run, config=replace(run.config, steps=steps))
    return run


def _update(run: Run, state: State, bar: Bar, speed: float) -> State:
    """One step: the model moves along the gradient of one batch. Returns the state after it."""
    started = time.perf_counter()
    config, step = run.config, state.step
    rate = learning_rate(step, config)
    set_rate(run.optimizer, rate)
    loss = gather_gradients(run, step)
    norm = clip_gradients(run.model, config.clip)
    state = replace(state, step=step + 1, tokens=state.tokens + config.batch_tokens)
    line: dict[str, Any] = {"step": state.step, "tokens": state.tokens}
    if not (math.isfinite(loss) and math.isfinite(norm)):
        _stop_diverged(run, step, line, loss, norm)
    run.optimizer.step()
    run.optimizer.zero_grad()

    run.metrics.write(line | {"loss": loss, "lr": rate, "grad_norm": norm})
    seconds = time.perf_counter() - started
    pace = config.batch_tokens / seconds
    share = pace * flops_per_token(run.model.config) / speed
    run.timings.write(
        {
            "step": state.step,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(pace, 1),
            "mfu": round(share, 4),
            "memory_mb": peak_memory_mb(run.device),
        }
    )
    bar.fields["loss"] = f"{loss:.3f}"
    bar.fields["tokens/s"] = f"{pace:,.0f}"
    bar.advance(mfu=f"{share:.0%}")
    return state


def _stop_diverged(run: Run, step: int, line: dict[str, Any], loss: float, norm: float) -> None:
    """Leave the weights as they are and name the batch that did it (`line` starts the record)."""
    run.optimizer.zero_grad()
    windows = run.batches.windows(step).tolist()
    found = {"loss": str(loss), "grad_norm": str(norm), "windows": windows}
    run.metrics.write(line | {"diverged": found})
    run.metrics.sync()
    shown = ", ".join(str(start) for start in windows[:8]) + (", ..." if windows[8:] else "")
    raise DivergedError(
        f"step {line['step']}: loss {loss}, gradient norm {norm}, not applied; "
        f"the batch is the windows at tokens {shown} ({run.metrics.path} names all)",
        remedy="the last checkpoint is intact; go on with a lower rate "
        "(--set training.lr=... --accept-change training.lr) or look at that text",
    )


def _validation_is_due(config: TrainingConfig, step: int) -> bool:
    every = config.validation_interval
    return every > 0 and is_due(step, every, config.steps)


def _commit(run: Run, state: State) -> Path:
    """Put a checkpoint on disk; the log reaches at least as far as it does."""
    run.metrics.sync()
    state = replace(state, finished=state.step == run.config.steps)
    saved = checkpoint.save(
        run.checkpoints, state, run.model, run.optimizer, tokenizer=run.tokenizer, plan=run.plan
    )
    checkpoint.prune(run.checkpoints, run.config)
    return saved


def _summary(run: Run, state: State, speed: float) -> str:
    tokens = run.config.steps * run.config.batch_tokens
    return (
        f"train: {run.plan['parameters']:,} parameters, {run.config.steps:,} steps of "
        f"{run.config.batch_tokens:,} tokens = {tokens / len(run.batches.tokens):.2f} epochs of "
        f"{len(run.batches.tokens):,}; matrix rate {speed / 1e9:,.0f} GFLOP/s"
        + (f"; going on from step {state.step:,}" if state.step else "")
    )
