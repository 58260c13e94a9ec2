"""Ends a run on time, whatever the machine does meanwhile.

How many steps fit into a time is a forecast, wrong as soon as the machine is busier or freer than
when it was measured. So every twentieth of the time the steps still to come are counted again, and
the schedule of the learning rate is drawn to its new end. Each such decision is on disk before it
is followed, and stands: a resumed run takes the same decisions at the same steps, whatever its own
clock says, and ends with the bits of an undisturbed one.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from gptwo.artifacts import read_json, write_json
from gptwo.errors import UsageError
from gptwo.progress import SILENT, Reporter, duration

PACE = "pace.json"
CHECKS = 20  # in the whole time
TOLERANCE = 0.02  # of the time; a forecast that is no further off is left alone
AIM = 0.99  # of the time; the rest is for the last held-out loss and checkpoint
SHARE_FOR_STEPS = 0.93  # of the time of a run; held-out losses and checkpoints take the rest


@dataclass(frozen=True, kw_only=True)
class Decision:
    """From step `step` on the run has `steps` steps in all."""

    step: int
    steps: int
    elapsed_seconds: float


class Pace:
    """How many steps a run has: `planned`, or what fits into `seconds` from now on.

    With 0 seconds it is those that the run at `path` was begun with, if it was, and otherwise all
    the time in the world.
    """

    def __init__(
        self,
        path: Path,
        planned: int,
        seconds: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A run that was begun with another time is a `UsageError`."""
        self.path, self.planned, self.seconds, self._clock = path, planned, seconds, clock
        self._started = clock()
        self._first = self._last = (0.0, -1)  # elapsed time and step of two checks, once there are
        self.decisions: list[Decision] = []
        if path.exists():
            known = read_json(path)
            self.seconds = seconds or known["seconds"]
            if self.seconds != known["seconds"]:
                raise UsageError(
                    f"{path.parent} was begun with {duration(known['seconds'])} for training, "
                    f"not {duration(seconds)}",
                    remedy="give the budget it was begun with, or choose another --out",
                )
            self.decisions = [Decision(**line) for line in known["decisions"]]

    def steps(self, step: float = float("inf")) -> int:
        """How many steps the run has, by the decisions up to `step`."""
        return next((d.steps for d in reversed(self.decisions) if d.step <= step), self.planned)

    def resume(self, timings: Path, step: int) -> None:
        """Count the time that the steps up to `step` took in earlier sittings."""
        if self.seconds:
            self._started -= seconds_used(timings, step)

    def check(self, step: int, reporter: Reporter = SILENT) -> int:
        """How many steps the run has, decided anew every twentieth of the time. Call each step.

        The steps to come are taken to need half what the latest ones did and half what all steps
        of this sitting did: quick to notice another load, slow to believe in a moment's.
        """
        steps, now = self.steps(step), self._clock() - self._started
        if not self.seconds:
            return steps
        if self._last[1] < 0 or step < self._last[1]:  # the beginning, or rolled back
            self._first = self._last = now, step
        replayed = bool(self.decisions) and step < self.decisions[-1].step
        if replayed or step == self._last[1] or now - self._last[0] < self.seconds / CHECKS:
            return steps
        latest, overall = ((now - then) / (step - at) for then, at in (self._last, self._first))
        each = (latest + overall) / 2
        self._last = now, step
        left = self.seconds * AIM - now
        fitting = step + max(int(left / each), 1)
        if fitting == steps or abs((steps - step) * each - left) <= TOLERANCE * self.seconds:
            return steps
        self.decisions.append(Decision(step=step, steps=fitting, elapsed_seconds=round(now, 2)))
        decisions = [asdict(decision) for decision in self.decisions]
        write_json(self.path, {"seconds": self.seconds, "decisions": decisions})
        reporter.say(
            f"train: {fitting:,} steps instead of {steps:,} fit into {duration(self.seconds)}, at "
            f"{each:.3g} s each"
        )
        return fitting


def seconds_used(timings: Path, step: int) -> float:
    """About how long the steps up to `step` took, with the validations and checkpoints between."""
    if not step or not timings.exists():
        return 0.0
    text = timings.read_text(encoding="utf-8").rpartition("\n")[0]  # whole lines
    lines = [json.loads(line) for line in text.splitlines()]
    seconds = sum(line.get("seconds", 0.0) for line in lines if line["step"] <= step)
    return seconds / SHARE_FOR_STEPS
