"""Back to the last checkpoint whose weights were good, and on behind the batches that were not."""

from dataclasses import replace

from gptwo.errors import DivergedError
from gptwo.training.checkpoints import checkpoint
from gptwo.training.checkpoints.checkpoint import State, is_due
from gptwo.training.optimizers.optim import restore, state_tensors
from gptwo.training.processes.parallel import together
from gptwo.training.run import Run


def roll_back(run: Run, state: State, why: str) -> State:
    """Give model and optimiser what they were at the last good checkpoint.

    Step and tokens go on counting, so that the batches between are passed over; how many steps that
    undoes is counted with those that were skipped. Only checkpoints of the regular interval serve:
    where a run was stopped and continued has no influence. Raises `DivergedError` when there is
    none, or when the run went back to it before; `why` is what was wrong with the last batch.
    """
    with together(run.world, run.reporter):
        run.writer.wait()  # the newest checkpoint may be on its way to the disk
    good = _last_good(run, state)
    if good is None or good.step == state.guard.rolled_back_to:
        run.metrics.sync()
        back = (
            "there is no checkpoint of good weights to go back to"
            if good is None
            else f"as before, after going back to the checkpoint of step {good.step}"
        )
        raise DivergedError(
            f"step {state.step}: {why}, and so in {state.guard.bad_in_a_row} steps in a row, none "
            f"of them applied; {back}; {run.metrics.path} names their batches",
            remedy="what is committed is intact; go on with a lower rate "
            "(--set training.lr=... --accept-change training.lr) or look at that text",
        )
    run.reporter.say(
        f"train: {state.guard.bad_in_a_row} bad steps in a row: back to the weights of step "
        f"{good.step}, going on behind the bad batches at step {state.step + 1}"
    )
    undone = state.step - good.step
    guard = replace(
        good.guard, skipped=good.guard.skipped + undone, rolled_back_to=good.step, bad_in_a_row=0
    )
    return replace(state, guard=guard)


def _last_good(run: Run, state: State) -> State | None:
    """Load the newest regular checkpoint that no bad step came just before. Its state."""
    config = run.config
    for folder in reversed(checkpoint.committed(run.checkpoints)):
        saved = checkpoint.read_state(folder, hashes=False)
        regular = is_due(saved.step, config.checkpoint_interval, config.steps)
        if saved.step < state.step and regular and not saved.guard.bad_in_a_row:
            model, optimizer, saved = checkpoint.load(folder, run.model.config, config, run.world)
            run.model.load_state_dict(model.state_dict())
            restore(run.model, run.optimizer, state_tensors(model, optimizer), saved.updates)
            return saved
    return None
