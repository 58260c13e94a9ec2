"""A run ends on time on made-up clocks, and its decisions stand."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_run import SHORT, Inputs, content, train_small

from gptwo.errors import UsageError
from gptwo.training import loop
from gptwo.training.budgets.pace import PACE, SHARE_FOR_STEPS, Decision, Pace, seconds_used

SECONDS = 600.0


class Clock:
    """A machine: how long the next step takes depends on how much of the time has gone."""

    def __init__(self, step_seconds: Callable[[float], float]) -> None:
        self.now, self.step_seconds = 0.0, step_seconds

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.now += self.step_seconds(self.now / SECONDS)


def drive(folder: Path, step_seconds: Callable[[float], float], expected: float = 0.5) -> Pace:
    """A run whose steps were expected to take `expected` seconds, to its end."""
    clock = Clock(step_seconds)
    pace = Pace(folder / PACE, int(SECONDS * SHARE_FOR_STEPS / expected), SECONDS, clock=clock)
    clock.now += 4.0  # to start
    step = 0
    while step < pace.check(step):
        clock.work()
        step += 1
    clock.now += 4.0  # the last checkpoint
    assert step == pace.steps()
    pace.ended = clock.now  # type: ignore[attr-defined]
    return pace


MACHINES = {
    "as measured": lambda gone: 0.5,
    "half as fast again": lambda gone: 0.33,
    "slower from the start": lambda gone: 0.75,
    "slower by half midway": lambda gone: 0.5 if gone < 0.5 else 0.75,
    "three times slower midway": lambda gone: 0.5 if gone < 0.5 else 1.5,
    "slower by half near the end": lambda gone: 0.5 if gone < 0.85 else 0.75,
    "freed near the end": lambda gone: 0.75 if gone < 0.8 else 0.5,
    "stalled for a while": lambda gone: 5.0 if 0.4 < gone < 0.47 else 0.5,
}


@pytest.mark.parametrize("machine", MACHINES)
def test_it_ends_within_a_twentieth_of_the_time(tmp_path: Path, machine: str) -> None:
    pace = drive(tmp_path, MACHINES[machine])
    assert 0.95 * SECONDS <= pace.ended <= 1.05 * SECONDS  # type: ignore[attr-defined]
    if machine == "as measured":
        assert len(pace.decisions) <= 1


@settings(max_examples=30, deadline=None)
@given(speeds=st.lists(st.floats(0.25, 1.5), min_size=3, max_size=3))
def test_three_speeds_in_one_run(
    tmp_path_factory: pytest.TempPathFactory, speeds: list[float]
) -> None:
    pace = drive(tmp_path_factory.mktemp("run"), lambda gone: speeds[min(int(gone * 3), 2)])
    assert 0.9 * SECONDS <= pace.ended <= 1.1 * SECONDS  # type: ignore[attr-defined]


def test_without_a_time_the_plan_is_kept(tmp_path: Path) -> None:
    clock = Clock(lambda gone: 50.0)
    pace = Pace(tmp_path / PACE, 10, clock=clock)
    for step in range(10):
        assert pace.check(step) == 10
        clock.work()
    assert not (tmp_path / PACE).exists()


def test_a_run_rolled_back_takes_its_decisions_again(tmp_path: Path) -> None:
    clock = Clock(lambda gone: 1.0)
    pace = Pace(tmp_path / PACE, 1_100, SECONDS, clock=clock)
    for step in range(200):
        pace.check(step)
        clock.work()
    first = pace.decisions[0]
    assert first.steps < 1_100
    assert pace.check(first.step - 1) == 1_100
    assert pace.check(first.step) == first.steps


def test_another_time_is_refused(tmp_path: Path) -> None:
    drive(tmp_path, lambda gone: 1.0)
    with pytest.raises(UsageError, match="10m00s"):
        Pace(tmp_path / PACE, 100, 60.0)


def test_the_time_of_earlier_sittings_counts(tmp_path: Path) -> None:
    timings = tmp_path / "timings.jsonl"
    lines = [json.dumps({"step": step, "seconds": 2.0}) for step in (1, 2, 3)]
    timings.write_text("\n".join(lines) + '\n{"step": 4, "sec')
    assert seconds_used(timings, 2) == pytest.approx(4.0 / SHARE_FOR_STEPS)
    assert seconds_used(timings, 9) == pytest.approx(6.0 / SHARE_FOR_STEPS)
    assert seconds_used(tmp_path / "none", 3) == 0.0
    clock = Clock(lambda gone: 1.0)
    pace = Pace(tmp_path / PACE, 900, SECONDS, clock=clock)
    timings.write_text(json.dumps({"step": 300, "seconds": 300 * SHARE_FOR_STEPS}) + "\n")
    pace.resume(timings, 300)
    for step in range(300, 340):
        pace.check(step)
        clock.work()
    assert pace.steps() == pytest.approx(594, abs=2)  # 300 of 600 seconds are gone


@pytest.mark.parametrize("kept", [1, 4])  # checkpoints: before the decisions, beyond the plan
def test_a_killed_run_follows_the_decisions_that_were_taken(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """To the same bits, though the machine that goes on has another clock."""
    ticks = iter(range(1_000))  # each look at the clock is a second later: a step is one
    monkeypatch.setattr(loop, "Pace", partial(Pace, clock=lambda: float(next(ticks))))
    config = loop.replace(SHORT, keep_checkpoints=100)
    last = train_small(tmp_path / "a", inputs, config, seconds=25.0)
    decisions = json.loads((tmp_path / "a" / PACE).read_text())["decisions"]
    assert decisions and last.name == f"step-{decisions[-1]['steps']:08d}" != "step-00000010"
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines if "lr" in line]
    assert rates[-1] < 0.2 * max(rates)  # the schedule ends where the run does

    undisturbed = content(tmp_path / "a")
    for folder in sorted((tmp_path / "a" / "checkpoints").iterdir())[kept:]:
        shutil.rmtree(folder)
    monkeypatch.setattr(loop, "Pace", partial(Pace, clock=lambda: 0.0))
    assert train_small(tmp_path / "a", inputs, config, seconds=25.0) == last
    assert content(tmp_path / "a") == undisturbed
    assert train_small(tmp_path / "a", inputs, config) == last  # finished: at once


def test_decisions_are_plain_lines(tmp_path: Path) -> None:
    pace = drive(tmp_path, lambda gone: 1.0)
    known = json.loads((tmp_path / PACE).read_text())
    assert known["seconds"] == SECONDS
    assert [Decision(**line) for line in known["decisions"]] == pace.decisions
