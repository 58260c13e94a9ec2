"""The gradient of one batch, a micro-batch at a time."""

import torch

from gptwo.training import forward
from gptwo.training.run import Run


def gather_gradients(run: Run, step: int) -> float:
    """Add up the gradients of a batch, a micro-batch at a time. Returns the mean loss.

    The loss of each micro-batch counts by its share of the rows, so that the sum is the gradient
    of the mean over the whole batch. Dropout draws from the seed, the step and
    the process alone.
    """
    torch.manual_seed(run.config.seed * 1_000_003 + step + 1 + (run.world.rank << 56))
    inputs, targets = (part.to(run.device) for part in run.batches.at(step, run.world))
    total = torch.zeros((), device=run.device)
    for x, y in zip(
        inputs.split(run.config.micro_batch), targets.split(run.config.micro_batch), strict=True
    ):
        run.reporter.check()  # a step that was not finished leaves no trace
        share = len(x) / len(inputs)
        loss = forward.loss(run.model, x, y, run.config) * share
        loss.backward()
        total += loss.detach()
    return total.item()
