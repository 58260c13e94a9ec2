"""One of several processes that train the tiny model, and how a test starts them.

usage: ranks.py TOKENS TOKENIZER JOBS, with JOBS a JSON list of `Job` fields
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from small_run import SHORT, TINY, Inputs, train_small
from stops import StopsAfter
from torch._C._distributed_c10d import TCPStore

from gptwo.errors import DataError, GptwoError, Interrupted
from gptwo.progress import Reporter
from gptwo.training import loop
from gptwo.training.data.batches import Batches
from gptwo.training.processes import meeting
from gptwo.world import World, here


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run into `out`; settings that differ from the small run's."""

    out: str
    settings: dict[str, Any] = field(default_factory=dict)
    dropout: float = 0.0
    stops: dict[str, int] = field(default_factory=dict)  # rank -> looks after which it wants to end
    fails: dict[str, str] = field(default_factory=dict)  # rank -> "data", "bug": at step 3
    silence_seconds: float = 60.0


class Ranks:
    """`size` processes as a launcher starts them: it keeps the store they meet at."""

    def __init__(self, inputs: Inputs, jobs: Sequence[Job], size: int = 2) -> None:
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        shared = {
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        words = [sys.executable, __file__, *inputs, json.dumps([asdict(job) for job in jobs])]
        self.processes = [
            subprocess.Popen(
                words,
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def until(self, metrics: Path, lines: int) -> None:
        """Wait until the run has written so many lines."""
        while not metrics.exists() or metrics.read_text().count("\n") < lines:
            ended = [process.poll() for process in self.processes]
            assert ended == [None] * len(ended), self.end()
            time.sleep(0.02)

    def end(self, seconds: float = 200.0) -> tuple[list[int], list[str]]:
        """Exit codes and what each wrote to stderr. Those that take longer are killed."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and any(p.poll() is None for p in self.processes):
            time.sleep(0.02)
        for process in self.processes:
            process.kill()
        said = [process.communicate()[1] for process in self.processes]
        return [process.returncode for process in self.processes], said


def train_job(job: Job, inputs: Inputs, world: World, reporter: Reporter) -> None:
    """Do one job in this process; a stop is part of it."""
    meeting.SILENCE_SECONDS = job.silence_seconds
    if looks := job.stops.get(str(world.rank)):
        reporter = StopsAfter(looks)
    fault, plain = job.fails.get(str(world.rank)), Batches.at

    def at(self: Batches, step: int, world: World) -> tuple[torch.Tensor, torch.Tensor]:
        if step == 3 and fault == "data":
            raise DataError("a shard that only this process cannot read")
        if step == 3 and fault == "bug":
            raise RuntimeError("a bug that only this process has")
        return plain(self, step, world)

    Batches.at = at  # type: ignore[method-assign]
    try:
        train_small(
            Path(job.out),
            inputs,
            replace(SHORT, **job.settings),
            replace(TINY, dropout=job.dropout),
            world=world,
            reporter=reporter,
        )
    except Interrupted:
        if not job.stops:
            raise
    except SystemExit as left:  # how a process leaves that is not the one to tell
        if not job.stops or left.code != Interrupted.exit_code:
            raise
    finally:
        Batches.at = plain  # type: ignore[method-assign]


def main() -> int:
    loop.matrix_rate = lambda device, precision: 1e11
    reporter = Reporter(quiet=True)
    reporter.listen()
    inputs = Inputs(*(Path(word) for word in sys.argv[1:3]))
    world = here(device="cpu", threads=1)
    try:
        for job in json.loads(sys.argv[3]):
            train_job(Job(**job), inputs, world, reporter)
    except GptwoError as error:
        sys.stderr.write(f"error: {error.message}\n")
        return error.exit_code
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
