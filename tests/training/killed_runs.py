"""Kills runs at random moments until each has ended, and compares what is left with whole ones.

Run as a script by test_kill.py: forking is only safe before torch has started threads.
usage: killed_runs.py FOLDER TOKENS TOKENIZER
"""

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from small_run import SHORT, TINY, Inputs, content, train_small

from gptwo.artifacts import read_json
from gptwo.errors import GptwoError
from gptwo.progress import Reporter
from gptwo.tokens.shards import open_shards
from gptwo.training import loop
from gptwo.training.guards import guard
from gptwo.training.processes import parallel
from gptwo.training.run import Run

LONG = replace(SHORT, steps=40, checkpoint_interval=7, validation_interval=6, skip_limit=1)
KINDS = {
    "dropout and accumulation": (replace(LONG, micro_batch=1), replace(TINY, dropout=0.1)),
    "many epochs": (replace(LONG, batch_tokens=1_024, micro_batch=64), TINY),
    "muon": (replace(LONG, optimizer="muon", schedule="wsd", decay_ratio=0.5), TINY),
    "spikes not applied": (replace(LONG, skip_spikes=True), TINY),
}
BAD_STEPS = (13, 22, 23)  # one is skipped; of two in a row the weights are rolled back
KILLS, STOPS = 3, 1


def in_a_child(work: Callable[[], object], kill: Callable[[int], None] | None = None) -> int:
    """The exit code of a process that does `work`, negative for a signal's number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except GptwoError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    if kill:
        kill(child)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def spoil(run: Run, step: int, plain: Callable = parallel.gather_gradients) -> float:
    """The gradient of a step; some are no numbers."""
    return plain(run, step) * (float("nan") if step in BAD_STEPS else 1.0)


def survived(name: str, folder: Path, inputs: Inputs, chance: random.Random) -> str:
    """Train once undisturbed and once killed and stopped; the bytes are the same."""
    config, model = KINDS[name]

    def work(out: Path) -> None:
        reporter = Reporter(quiet=True)
        reporter.listen()
        train_small(out, inputs, config, model, reporter=reporter)

    started = time.monotonic()
    assert in_a_child(lambda: work(folder / "whole")) == 0, name
    seconds = time.monotonic() - started
    ends: list[int] = []
    for number in [signal.SIGKILL] * KILLS + [signal.SIGTERM] * STOPS:

        def kill(child: int, number: int = number) -> None:
            time.sleep(chance.uniform(0.05, 0.6) * seconds)
            os.kill(child, number)

        ends.append(in_a_child(lambda: work(folder / "parts"), kill))
    assert set(ends) <= {0, -signal.SIGKILL, -signal.SIGTERM, 75}, (name, ends)
    assert in_a_child(lambda: work(folder / "parts")) == 0, name
    whole, parts = content(folder / "whole"), content(folder / "parts")
    different = [path for path in whole | parts if whole.get(path) != parts.get(path)]
    assert not different, f"{name}: {different} differ after {ends}"
    last = folder / "parts" / "checkpoints" / f"step-{config.steps:08d}" / "state.json"
    assert read_json(last)["guard"]["skipped"] >= 3, read_json(last)
    return f"{name}: {ends.count(-signal.SIGKILL)} killed, {ends.count(75)} stopped\n"


def same_batches(inputs: Inputs) -> None:
    """The next hundred batches of a run that goes on are those of one that never stopped."""
    shards = open_shards(inputs.tokens, "train")
    one, two = (loop.batches(shards, n_ctx=16, batch_tokens=64, seed=7) for _ in range(2))
    before = [one.at(step) for step in range(140)]
    for step in range(40, 140):
        assert all(map(torch.equal, two.at(step), before[step]))


def main(folder: Path, inputs: Inputs) -> None:
    torch.set_num_threads(1)
    loop.matrix_rate = lambda device, precision: 1e11
    parallel.gather_gradients = spoil
    guard.WINDOW = 8
    chance = random.Random(0)
    same_batches(inputs)
    for number, name in enumerate(KINDS):
        sys.stdout.write(survived(name, folder / str(number), inputs, chance))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Inputs(Path(sys.argv[2]), Path(sys.argv[3])))
