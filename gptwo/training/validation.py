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

    Not a place to stop: a checkpoint then always holds all that belongs to its step.
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
        some = starts[first : first + run.config.micro_batch]
        x, y = (part.to(run.device) for part in read_windows(run.held_out, some, width))
        total += run.model.loss(x, y).item() * len(some)
    run.model.train()
    loss = total / len(starts)
    run.metrics.write({"step": state.step, "tokens": state.tokens, "valid_loss": loss})
    bar.fields["valid"] = f"{loss:.3f}"
    best = loss if state.best_valid_loss is None else min(loss, state.best_valid_loss)
    return replace(state, valid_loss=loss, best_valid_loss=best)
