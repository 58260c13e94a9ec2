"""Many processes: they do what one does, end together, and go on as any other number of them."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from first_losses import losses_of
from hypothesis import given
from hypothesis import strategies as st
from ranks import Job, Ranks
from small_run import SHORT, TINY, Inputs, train_small
from stops import Listens, StopsAfter

from gptwo.artifacts import read_json, verify
from gptwo.errors import Interrupted, UsageError
from gptwo.training.processes.parallel import own_share
from gptwo.world import World, here

SETTINGS = {"micro_batch": 1, "clip": 0.5, "validation_tokens": 80}  # 5 windows, 2 micro-batches
KINDS = {
    "adamw": SETTINGS | {"optimizer": "adamw"},
    "muon": SETTINGS | {"optimizer": "muon", "activation_checkpointing": True},
}
SHARDINGS = ("", "fsdp")


class Worlds(NamedTuple):
    folder: Path
    codes: list[int]
    said: list[str]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory, inputs: Inputs) -> Worlds:
    """Runs of one process and of two, whole and stopped: <kind>-<processes><sharding>."""
    folder = tmp_path_factory.mktemp("worlds")
    jobs = []
    for kind, settings in KINDS.items():
        train_small(folder / f"{kind}-1", inputs, replace(SHORT, **settings))
        for sharding in SHARDINGS:
            more = settings | {"sharding": sharding}
            jobs.append(Job(out=str(folder / f"{kind}-2{sharding}"), settings=more))
            stopped = folder / f"{kind}-1to2{sharding}"
            with pytest.raises(Interrupted):
                train_small(stopped, inputs, replace(SHORT, **more), reporter=StopsAfter(16))
            jobs.append(Job(out=str(stopped), settings=more))
            # The second process alone is asked to stop; both must end at the same step.
            out = str(folder / f"{kind}-2to1{sharding}")
            jobs.append(Job(out=out, settings=more, stops={"1": 9}))
    jobs.append(Job(out=str(folder / "dropout"), dropout=0.1))
    codes, said = Ranks(inputs, jobs).end()
    return Worlds(folder, codes, said)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_have_the_loss_curve_of_one(worlds: Worlds, kind: str, sharding: str) -> None:
    """Two micro-batches each, gradients clipped, held-out loss on an odd number of windows."""
    assert worlds.codes == [0, 0], worlds.said
    one, two = (losses_of(worlds.folder / f"{kind}-{name}") for name in ("1", f"2{sharding}"))
    assert len(one["loss"]) == 10 and len(one["valid_loss"]) == 4
    for key in one:
        assert two[key] == pytest.approx(one[key], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_with_another_number_of_processes(
    worlds: Worlds, inputs: Inputs, kind: str, sharding: str
) -> None:
    """From one to two and back; the checkpoints are the same files, sharded or not."""
    whole = losses_of(worlds.folder / f"{kind}-1")
    up, down = (worlds.folder / f"{kind}-{way}{sharding}" for way in ("1to2", "2to1"))
    stopped_at = read_json(down / "training.json")["world"], losses_of(down)["loss"]
    assert stopped_at[0]["processes"] == 2 and 0 < len(stopped_at[1]) < 10
    assert (down / "checkpoints" / f"step-{len(stopped_at[1]):08d}" / "manifest.json").exists()
    hears = Listens()
    settings = KINDS[kind] | {"sharding": sharding}
    final = train_small(down, inputs, replace(SHORT, **settings), reporter=hears)
    assert any("processes" in line and "may differ" in line for line in hears.heard)
    for folder in (up, down):
        for key, losses in losses_of(folder).items():
            assert losses == pytest.approx(whole[key], rel=1e-6)
        assert verify(folder)["folders"] >= 2
    names = [
        sorted(path.name for path in (folder / "checkpoints" / "step-00000010").iterdir())
        for folder in (up, down, worlds.folder / f"{kind}-1")
    ]
    assert names[0] == names[1] == names[2] == sorted(path.name for path in final.iterdir())


@pytest.mark.slow
def test_dropout_draws_from_the_rank_too(worlds: Worlds, inputs: Inputs, tmp_path: Path) -> None:
    """Its masks are not those of one process, so that the losses are others, and about as good."""
    train_small(tmp_path, inputs, SHORT, replace(TINY, dropout=0.1))
    one, two = (losses_of(folder)["loss"] for folder in (tmp_path, worlds.folder / "dropout"))
    assert one != pytest.approx(two, rel=1e-6)
    assert one == pytest.approx(two, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_process_that_dies_ends_the_other_one(
    tmp_path: Path, inputs: Inputs, sharding: str
) -> None:
    job = Job(out=str(tmp_path), settings={"steps": 10**6, "sharding": sharding})
    ranks = Ranks(inputs, [job])
    ranks.until(tmp_path / "metrics.jsonl", 6)
    ranks.processes[1].kill()
    codes, said = ranks.end(60.0)
    assert codes == [75, -signal.SIGKILL]
    assert said[0].count("error: ") == 1 and "lost another one" in said[0]
    check_only_whole_checkpoints(tmp_path)


@pytest.mark.slow
def test_a_process_that_is_silent_ends_the_other_one(tmp_path: Path, inputs: Inputs) -> None:
    ranks = Ranks(inputs, [Job(out=str(tmp_path), settings={"steps": 10**6}, silence_seconds=3.0)])
    ranks.until(tmp_path / "metrics.jsonl", 6)
    ranks.processes[1].send_signal(signal.SIGSTOP)
    try:
        assert ranks.processes[0].wait(60) == 75
    finally:
        ranks.processes[1].send_signal(signal.SIGCONT)
    codes, said = ranks.end(60.0)
    assert codes == [75, 75]
    assert "process 1 of 2 gave no sign of life" in said[0] and said[1] == ""
    check_only_whole_checkpoints(tmp_path)


def check_only_whole_checkpoints(out: Path) -> None:
    """Nothing half written has a checkpoint's name, and what has is undamaged."""
    made = [path for path in (out / "checkpoints").iterdir() if path.name.startswith("step-")]
    assert made and all((path / "manifest.json").exists() for path in made)
    verify(out)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_asked_to_stop_stops_both(tmp_path: Path, inputs: Inputs, rank: int) -> None:
    ranks = Ranks(inputs, [Job(out=str(tmp_path), settings={"steps": 10**6})])
    ranks.until(tmp_path / "metrics.jsonl", 6)
    ranks.processes[rank].send_signal(signal.SIGTERM)
    codes, said = ranks.end(60.0)
    assert codes == [75, 75]
    assert "".join(said).count("error: stopped on request") == 1
    step = len(losses_of(tmp_path)["loss"])
    assert (tmp_path / "checkpoints" / f"step-{step:08d}" / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "sharding", "code"),
    [("data", "", 3), ("data", "fsdp", 3), ("bug", "", 1), ("bug", "fsdp", 1)],
)
def test_what_fails_in_one_process_is_told_once(
    tmp_path: Path, inputs: Inputs, fault: str, sharding: str, code: int
) -> None:
    job = Job(out=str(tmp_path), settings={"sharding": sharding}, fails={"1": fault})
    codes, said = Ranks(inputs, [job]).end(60.0)
    assert codes == [code, code]
    assert "".join(said).count("error: ") == 1
    assert "only this process" in "".join(said)
    assert len(losses_of(tmp_path)["loss"]) == 3


@given(count=st.integers(1, 60), size=st.integers(1, 7), rows=st.integers(1, 9))
def test_windows_are_shared_out_without_rest(count: int, size: int, rows: int) -> None:
    starts = np.arange(count) * 10
    shares = [list(own_share(starts, rows, World(rank=rank, size=size))) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1  # all go through the model as often
    counted = [some[:n] for share in shares for some, n in share]
    assert sorted(np.concatenate(counted)) == starts.tolist()
    assert all(0 < len(some) <= rows for share in shares for some, _ in share)


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 of WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one'"),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE=3"),
    ],
)
def test_an_environment_that_makes_no_sense(
    variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=problem):
        here(device="cpu", threads=1)


def test_each_process_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    world = here(device="cpu")
    assert (world.rank, world.size, world.is_first) == (1, 2, False)
    assert world.threads == max(1, len(os.sched_getaffinity(0)) // 2)
