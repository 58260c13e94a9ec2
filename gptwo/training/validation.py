"""The held-out loss, on the same windows every time."""

from dataclasses import replace

import torch

from gptwo.progress import Bar
from gptwo.training import forward
from gptwo.training.checkpoints.checkpoint import State
from gptwo.training.data.batches import held_out_windows, read_windows
from gptwo.training.processes.parallel import add_up, apart, own_share
from gptwo.training.processes.sharding import readable
from gptwo.training.run import Run


@torch.no_grad()  # not inference_mode: sharded weights are gathered into tensors that stay
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
    with apart(run):
        for some, counted in own_share(starts, run.config.micro_batch, run.world):
            run.reporter.check()
            x, y = (part.to(run.device) for part in read_windows(run.held_out, some, width))
            total += forward.loss(run.model, x, y, run.config).item() * counted
    loss = add_up(run.world, total)[0] / len(starts)
    with readable(run.model, run.world) as model:
        if model is not None:
            run.at_validation(model, state.step)
    run.model.train()
    run.metrics.write({"step": state.step, "tokens": state.tokens, "valid_loss": loss})
    bar.fields["valid"] = f"{loss:.3f}"
    best, best_step = state.best_valid_loss, state.best_step
    if best is None or loss < best:
        best, best_step = loss, state.step
    state = replace(state, valid_loss=loss, valid_step=state.step)
    return replace(state, best_valid_loss=best, best_step=best_step)
