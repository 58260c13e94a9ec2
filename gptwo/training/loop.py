"""Training: the loop that turns token shards into a model (paper section 2.3).

Set the rate, gather gradients over micro-batches, clip, look whether all is well, step, log; every
so often measure the held-out loss and commit a checkpoint. Everything a step does is a function of
the settings, the tokens, the step's number and what a checkpoint holds, so a run that was stopped,
however it was stopped, goes on from its last checkpoint to the same bits as one that was left
alone.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwo.artifacts import lock, read_manifest, write_json
from gptwo.errors import Interrupted
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.progress import SILENT, Bar, Reporter
from gptwo.tokens.shards import open_mix
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.training.budgets.pace import PACE, Pace
from gptwo.training.checkpoints import checkpoint
from gptwo.training.checkpoints.checkpoint import State, is_due
from gptwo.training.checkpoints.writer import Writer
from gptwo.training.config import TrainingConfig
from gptwo.training.data.batches import batches
from gptwo.training.guards.guard import Verdict, judge
from gptwo.training.guards.memory import check_memory, within_memory
from gptwo.training.guards.rollback import roll_back
from gptwo.training.metrics import Lines
from gptwo.training.optimizers.optim import clip_gradients, make_optimizer, set_rate, state_tensors
from gptwo.training.optimizers.schedule import learning_rate
from gptwo.training.plan import (
    PLAN,
    check_names,
    check_plan,
    check_tokenizer,
    make_plan,
    refuse_foreign,
)
from gptwo.training.processes import parallel
from gptwo.training.processes.meeting import joined
from gptwo.training.processes.sharding import spread, whole
from gptwo.training.run import Run, Sitting
from gptwo.training.speed import flops_per_token, keep_freed_memory, matrix_rate, peak_memory_mb
from gptwo.training.trackers import NO_TRACKERS
from gptwo.training.validation import validate
from gptwo.world import World, here

METRICS = "metrics.jsonl"  # the same bytes on every run
TIMINGS = "timings.jsonl"  # never the same twice
NAMED = 8  # windows of a batch that a message names; the metrics name all


def train(
    config: TrainingConfig,
    model: GPT2Config,
    *,
    tokens: Path | Sequence[Path],
    tokenizer: Path,
    out: Path,
    world: World | None = None,
    sitting: Sitting = Sitting(),  # noqa: B008 - frozen
    reporter: Reporter = SILENT,
) -> Path:
    """Train to `config.steps`, going on from the last checkpoint under `out` if there is one.

    Several folders of `tokens` are read in the shares of `config.mix`, or as one without it.
    Returns the final checkpoint's folder, at once when the run is finished. The model's vocabulary
    is the tokenizer's.

    Raises `DivergedError` when neither skipping bad batches nor going back to a good checkpoint
    helps, `ResourceError` where memory or disk are too small, and `Interrupted`, with a checkpoint
    committed, when the reporter was asked to stop.
    """
    world = world or here()
    torch.set_num_threads(world.threads)  # sums are cut among threads: part of the result
    with (
        joined(world, config, reporter) as reporter,
        parallel.place(world, out) as own,
        lock(own),
        torch.random.fork_rng(),
        ExitStack() as files,
    ):
        # What is this run, and is it the one that was begun here?
        with parallel.in_turn(world, reporter):
            refuse_foreign(out)
            vocabulary = Tokenizer.load(tokenizer)
            model = replace(model, vocab_size=vocabulary.vocab_size)
            folders = (tokens,) if isinstance(tokens, Path) else tuple(tokens)
            data = "+".join(read_manifest(folder).fingerprint for folder in folders)
            plan = make_plan(config, model, data, vocabulary.fingerprint, world)
            checkpoints = out / "checkpoints"
            checkpoint.remove_unfinished(checkpoints)
            last = checkpoint.newest(checkpoints)
            pace = Pace(out / PACE, config.steps, sitting.seconds)
            check_names(sitting.accept_changes, plan)
            if last and sitting.drop_damaged:
                last = checkpoint.drop_damaged(checkpoints, reporter)
            if last:
                plan = check_plan(plan, out / PLAN, last, sitting.accept_changes, reporter)
                checkpoint.settle(checkpoints, config)
                known = checkpoint.read_state(last, hashes=False)
                if known.finished and known.step >= pace.steps():
                    return last

        # Open everything before the first step: what cannot work fails now.
        check_memory(config, model, world)
        reporter.check()
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
        reporter.check()
        keep_freed_memory()
        if last:
            module, optimizer, state = checkpoint.load(last, model, config, world)
        else:
            torch.manual_seed(config.seed)
            module, state = GPT2(model).to(world.device), State()
            spread(module, config, world)
            optimizer = make_optimizer(module, config)
        write_json(own / PLAN, plan)
        pace.resume(out / TIMINGS, state.step)
        config = replace(config, steps=pace.steps(state.step - 1))  # as decided until here
        trackers = sitting.trackers if world.is_first else NO_TRACKERS
        trackers.open(out, plan, step=state.step, reporter=reporter)
        files.callback(trackers.close)
        logged = state.step if last else -1  # lines beyond are of steps that will be made again
        metrics = Lines(own / METRICS, logged, state.valid_step, trackers.line)
        timings = Lines(own / TIMINGS, logged, tell=trackers.line)
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
            metrics=files.enter_context(closing(metrics)),
            timings=files.enter_context(closing(timings)),
            writer=files.enter_context(
                closing(
                    Writer(
                        checkpoints,
                        config,
                        tokenizer=tokenizer,
                        plan=plan,
                        logs=(out / METRICS,),
                        writes=world.is_first,
                    )
                )
            ),
            device=world.device,
            world=world,
            reporter=reporter,
            at_validation=sitting.at_validation,
        )
        return _run_to_the_end(run, state)


def _run_to_the_end(run: Run, state: State) -> Path:
    """The loop. `state` is always that of the model's weights: it can be committed at any point."""
    speed = matrix_rate(run.device, run.config.precision) * run.world.size
    run.reporter.say(_summary(run, state, speed))
    if run.config.warmup_steps >= run.config.steps:
        run.reporter.say(
            f"train: warmup_steps={run.config.warmup_steps:,} is not over after all "
            f"{run.config.steps:,} steps: the rate never reaches its peak"
        )
    with run.reporter.bar("train", run.config.steps, "steps") as bar:
        bar.start_at(state.step)
        try:
            while True:
                # First what belongs to the weights as they are: a run that was stopped while it
                # measured them begins here again.
                if _validation_is_due(run.config, state):
                    run, state = within_memory(run, partial(validate, state=state, bar=bar))
                state = replace(state, finished=state.step >= run.config.steps)
                if state.finished:
                    return _commit(run, state)
                if _checkpoint_is_due(run.config, state):
                    run.writer.save(state, *_tensors(run))
                run.writer.check()
                run = _on_time(run, state, bar)
                run, state = _update(run, state, bar, speed)
        except Interrupted:
            if state.step:
                _commit(run, state)
            raise


def _on_time(run: Run, state: State, bar: Bar) -> Run:
    """The run with as many steps as fit into its time."""
    steps = parallel.from_first(run.world, partial(run.pace.check, state.step, run.reporter))
    if steps != run.config.steps:
        bar.total = steps
        run = replace(run, config=replace(run.config, steps=steps))
    return run


def _update(run: Run, state: State, bar: Bar, speed: float) -> tuple[Run, State]:
    """One step: the model moves along the gradient of one batch. Returns the state after it.

    The run is another one afterwards if its micro-batch did not fit into memory.
    """
    started = time.perf_counter()
    config, step = run.config, state.step
    rate = learning_rate(step, config)
    set_rate(run.optimizer, rate)
    run, loss = within_memory(run, partial(parallel.gather, step=step))
    norm = clip_gradients(run.model, config.clip)

    # Moving along the gradient of a bad batch would spoil the weights.
    verdict = judge(loss, norm, state.guard, config)
    if verdict.apply:
        run.optimizer.step()
    run.optimizer.zero_grad()
    tokens = state.tokens + config.batch_tokens
    state = replace(state, step=step + 1, tokens=tokens, guard=verdict.guard)
    line: dict[str, Any] = {"step": state.step, "tokens": tokens}
    applied = {"loss": loss, "lr": rate, "grad_norm": norm} if verdict.apply else {}
    run.metrics.write(line | applied | _what_went_wrong(run, step, verdict))

    # When one batch after the other is bad, it is the weights that are.
    if state.guard.bad_in_a_row > config.skip_limit:
        state = roll_back(run, state, verdict.why)
        run.metrics.write(line | {"rolled_back_to": state.guard.rolled_back_to})

    seconds = time.perf_counter() - started
    pace = config.batch_tokens / seconds
    share = pace * flops_per_token(run.model.config) / speed
    memory = peak_memory_mb(run.device)
    run.timings.write(
        {
            "step": state.step,
            "seconds": round(seconds, 4),
            "tokens_per_second": round(pace, 1),
            "mfu": round(share, 4),
            "memory_mb": memory,
        }
    )
    bar.fields["loss"], bar.fields["lr"] = f"{loss:.3f}", f"{rate:.3g}"
    bar.fields["tokens/s"], bar.fields["mfu"] = f"{pace:,.0f}", f"{share:.0%}"
    bar.advance(memory=f"{memory:,}MB")
    return run, state


def _what_went_wrong(run: Run, step: int, verdict: Verdict) -> dict[str, Any]:
    """Why the batch is a bad one and which it is, told at once and for the metrics; or nothing."""
    if not verdict.why:
        return {}
    windows = run.batches.windows(step).tolist()
    named = ", ".join(str(start) for start in windows[:NAMED])
    run.reporter.say(
        f"train: step {step + 1}: {verdict.why}; {'applied' if verdict.apply else 'not applied'}; "
        f"the batch is the windows at tokens {named}{', ...' if windows[NAMED:] else ''}"
    )
    return {"spike" if verdict.apply else "skipped": {"why": verdict.why, "windows": windows}}


def _validation_is_due(config: TrainingConfig, state: State) -> bool:
    every = config.validation_interval
    due = every > 0 and is_due(state.step, every, config.steps)
    return due and state.valid_step != state.step


def _checkpoint_is_due(config: TrainingConfig, state: State) -> bool:
    """At its interval, and for the best held-out loss.

    Between bad steps it is not: the weights are in doubt, and the one before may be needed.
    """
    regular = is_due(state.step, config.checkpoint_interval, config.steps)
    wanted = state.step > 0 and (regular or state.best_step == state.step)
    return wanted and not state.guard.bad_in_a_row


def _commit(run: Run, state: State) -> Path:
    """Put a checkpoint on disk; the log reaches at least as far as it does."""
    tensors = _tensors(run)
    with parallel.together(run.world, run.reporter):  # none leaves while the first one writes
        return run.writer.commit(state, *tensors)


def _tensors(run: Run) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    memory = state_tensors(run.model, run.optimizer)
    return whole(run.model.state_dict(), run.world), whole(memory, run.world)


def _summary(run: Run, state: State, speed: float) -> str:
    tokens = run.config.steps * run.config.batch_tokens
    return (
        f"train: {run.plan['parameters']:,} parameters, {run.config.steps:,} steps of "
        f"{run.config.batch_tokens:,} tokens = {tokens / len(run.batches.tokens):.2f} epochs of "
        f"{len(run.batches.tokens):,}; matrix rate {speed / 1e9:,.0f} GFLOP/s"
        + (f"; going on from step {state.step:,}" if state.step else "")
    )
