"""The held-out loss, on the same windows every time."""

from dataclasses import replace

import torch

from gptwo.progress import Bar
from gptwo.training.batches import held_out_windows, read_windows
from gptwo.training.checkpoint import State
from gptwo.training.run import Run


@torch.inference_mode()
def validate(run: Run, state: State, bar: Bar) -> State:
    """Measure the loss on the same windows of the validation split every time.

    A stop leaves no trace of it: the run that goes on from there measures again.
    """
    starts, width = held_out_windows(
        run.held_out,
        n_ctx=run.batches.n_ctx,
        most_tokens=run.config.validation_tokens,
        mix=run.config.mix,
    )
    run.model.eval()
    total = 0.0
    for first in range(0, len(starts), run.config.micro_batch):
        run.reporter.check()
        some = starts[first : first + run.config.micro_batch]
        x, y = (part.to(run.device) for part in read_windows(run.held_out, some, width))
        total += run.model.loss(x, y).item() * len(some)
    loss = total / len(starts)
    run.at_validation(run.model, state.step)
    run.model.train()
    run.metrics.write({"step": state.step, "tokens": state.tokens, "valid_loss": loss})
    bar.fields["valid"] = f"{loss:.3f}"
    best, best_step = state.best_valid_loss, state.best_step
    if best is None or loss < best:
        best, best_step = loss, state.step
    state = replace(state, valid_loss=loss, valid_step=state.step)
    return replace(state, best_valid_loss=best, best_step=best_step)
