"""Other programs that draw curves: TensorBoard, trackio and Weights & Biases.

`metrics.jsonl` is the record of a run; a tracker is told what is written there. One that fails is
left out from then on, and training goes on. `TRACKERS` is the list: name -> how it is opened; the
program itself is imported when it is asked for.
"""

import json
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

from gptwo.artifacts import read_json, write_json
from gptwo.errors import DataError, UsageError
from gptwo.progress import SILENT, Reporter
from gptwo.training.metrics import last_step

FOLDER = "trackers"  # of the run
STEP_SECONDS = 1.0  # at least so long between two steps told: a tracker may take 3 ms for each
FLUSH_SECONDS = 5
PROJECT = "gptwo"
NAMES = {  # of our lines -> theirs, in groups; others keep their name
    "loss": "train/loss",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "tokens": "train/tokens",
    "valid_loss": "valid/loss",
    "seconds": "speed/seconds_per_step",
    "tokens_per_second": "speed/tokens_per_second",
    "mfu": "speed/mfu",
    "memory_mb": "speed/memory_mb",
}


class Tracker(Protocol):
    """What is needed of such a program. Any method may raise: it is then left out."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def text(self, step: int, name: str, text: str) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Session:
    """The run as a tracker sees it when it is opened."""

    folder: Path  # for files of its own
    name: str  # the run's
    id: str  # the same after a resume
    settings: Mapping[str, Any]
    step: int  # training goes on after it


class TensorBoard:
    """Event files under `RUN/trackers/tensorboard`, by torch's own writer."""

    def __init__(self, session: Session) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Steps that are made again hide those of before.
        self._writer = SummaryWriter(
            str(session.folder / "tensorboard"),
            purge_step=session.step + 1 if session.step else None,
            flush_secs=FLUSH_SECONDS,
        )
        if not session.step:
            settings = json.dumps(session.settings, indent=2)
            self.text(0, "settings", f"```json\n{settings}\n```")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        self._writer.add_text(name, text, step)
        self._writer.flush()  # texts are few, and are not told again after a kill

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases, as its own environment variables say (WANDB_MODE, WANDB_PROJECT, ...)."""

    def __init__(self, session: Session) -> None:
        wandb = import_module("wandb")
        folder = session.folder / "wandb"
        folder.mkdir(exist_ok=True)
        self._html = wandb.Html
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=session.name,
            id=session.id,
            resume="allow",
            dir=str(folder),
            config=dict(session.settings),
            # Our stdout is for results; what we import, where we run and its load stay here.
            settings=wandb.Settings(
                silent=True,
                console="off",
                x_disable_stats=True,
                x_disable_meta=True,
                disable_git=True,
                x_save_requirements=False,
            ),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self._run.log({name: self._html(f"<pre>{escape(text)}</pre>", inject=False)}, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """trackio's database, where its own environment variables say (TRACKIO_DIR, ...)."""

    def __init__(self, session: Session) -> None:
        with redirect_stdout(StringIO()):  # stdout is for results
            trackio = import_module("trackio")
            self._trackio = trackio
            self._run = trackio.init(
                project=PROJECT,
                name=f"{session.name}-{session.id}",
                resume="allow",
                config=dict(session.settings),
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        self._run.log({name: self._trackio.Markdown(text)}, step=step)

    def close(self) -> None:
        with redirect_stdout(StringIO()):
            self._trackio.finish()  # the current one, which is ours


TRACKERS: dict[str, Callable[[Session], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "wandb": Wandb,
}
FORGETS = ("tensorboard",)  # takes back numbers of steps that are made again, though not texts


class Trackers:
    """Those that a run was asked to tell. Nothing is opened before `open`.

    Raises `UsageError` for a name that is not known and for a program that is not installed.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        for name in names:
            if name not in TRACKERS:
                known = ", ".join(TRACKERS)
                raise UsageError(f"unknown tracker {name!r}", remedy=f"trackers are: {known}")
            if not find_spec(name):
                raise UsageError(
                    f"{name} is not installed",
                    remedy=f"pip install {name}, or the extra gptwo[track]",
                )
        self.names = tuple(dict.fromkeys(names))
        self._open: dict[str, Tracker] = {}
        self._numbers: dict[str, int] = {}  # the step up to which each was told before
        self._texts: dict[str, int] = {}
        self._reporter = SILENT
        self._waiting: dict[str, float] = {}  # numbers of the step being written down
        self._step = self._sent = -1
        self._last = -math.inf

    def open(
        self, out: Path, settings: Mapping[str, Any], *, step: int, reporter: Reporter
    ) -> "Trackers":
        """Begin, or go on after `step`. Call it before `metrics.jsonl` is cut to the checkpoint."""
        self._reporter = reporter
        if not self.names or not reporter.speaks:  # another process speaks for this one
            return self
        folder = out / FOLDER
        folder.mkdir(exist_ok=True)
        known = _known(folder / "runs.json")
        written = last_step(out / "metrics.jsonl")
        for name in self.names:
            told = max(written, step) if name in known["told"] and step else step
            self._texts[name] = told
            self._numbers[name] = step if name in FORGETS else told
            session = Session(
                folder=folder, name=out.resolve().name, id=known["id"], settings=settings, step=step
            )

            def begin(name: str = name, session: Session = session) -> None:
                self._open[name] = TRACKERS[name](session)

            self._try(name, begin)
        told_of_it = sorted({*known["told"], *self._open})
        write_json(folder / "runs.json", known | {"told": told_of_it})
        return self

    def line(self, line: Mapping[str, Any]) -> None:
        """Tell a line of the metrics or the timings: numbers as curves, anything else as text."""
        if not self._open:
            return
        step = int(line["step"])
        if step != self._step:
            self._send()
            self._step = step
        for name, value in line.items():
            if isinstance(value, bool | int | float) and name != "step":
                self._waiting[NAMES.get(name, name)] = float(value)
            elif isinstance(value, str | Mapping):
                self.text(step, name, value if isinstance(value, str) else json.dumps(value))

    def text(self, step: int, name: str, text: str) -> None:
        """Tell a text that belongs to a step, such as a sample."""
        for key, tracker in list(self._open.items()):
            if step > self._texts[key] or not step:
                self._try(key, lambda tracker=tracker: tracker.text(step, name, text))

    def _send(self) -> None:
        """The numbers of a step, all at once: held-out losses always, others when it is time."""
        values, self._waiting = self._waiting, {}
        now = time.monotonic()
        if not values or ("valid/loss" not in values and now - self._last < STEP_SECONDS):
            return
        self._last = now
        for key, tracker in list(self._open.items()):
            if self._step > self._numbers[key] or not self._step:
                self._try(key, lambda tracker=tracker: tracker.log(self._step, values))

    def close(self) -> None:
        self._last = -math.inf  # the last step is told in any case
        self._send()
        for key, tracker in list(self._open.items()):
            self._try(key, tracker.close)
        self._open = {}

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._open.pop(name, None)
            first = (str(error).splitlines() or [""])[0][:200]
            self._reporter.say(
                f"train: {name} failed ({type(error).__name__}: {first}) and is told no more; "
                "training goes on, and metrics.jsonl has everything"
            )


NO_TRACKERS = Trackers()


def _known(path: Path) -> dict[str, Any]:
    """The run's id with the trackers, and which of them were told of it; a new one at first."""
    new = {"id": uuid.uuid4().hex[:12], "told": []}
    try:
        found = read_json(path) if path.exists() else new
    except DataError:
        return new
    return found if isinstance(found, dict) and {"id", "told"} <= set(found) else new
