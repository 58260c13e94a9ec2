"""Trackers are told what the metrics hold, once, and can never stop a run.

trackio and Weights & Biases are tested where they are installed; how ours tells any tracker is
tested everywhere.
"""

import json
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_run import Inputs, train_small

from gptwo.errors import UsageError
from gptwo.progress import Reporter
from gptwo.training import trackers
from gptwo.training.metrics import Lines
from gptwo.training.trackers import NO_TRACKERS, TRACKERS, Session, Trackers

BLOCK = 32_768  # of a .wandb file
LOSS, SPEED = {"tokens": 64, "loss": 3.0, "lr": 1e-3, "grad_norm": 0.5}, {"mfu": 0.4}


@dataclass
class Recorded:
    """A tracker that remembers what it was told."""

    session: Session
    values: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    texts: list[tuple[int, str, str]] = field(default_factory=list)
    closed: bool = False

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.values.append((step, dict(values)))

    def text(self, step: int, name: str, text: str) -> None:
        self.texts.append((step, name, text))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    """What stands for wandb, each time it is opened; every step is told."""
    opened: list[Recorded] = []

    def begin(session: Session) -> Recorded:
        opened.append(Recorded(session))
        return opened[-1]

    monkeypatch.setitem(TRACKERS, "wandb", begin)
    monkeypatch.setattr(trackers, "find_spec", lambda name: True)
    monkeypatch.setattr(trackers, "STEP_SECONDS", 0.0)
    return opened


def run_steps(
    out: Path, names: tuple[str, ...], first: int, last: int, *, scale: float = 1.0
) -> Trackers:
    """Steps `first` to `last` as the loop writes them down, a held-out loss at each second one."""
    told = Trackers(names).open(out, {"lr": 1e-3}, step=first - 1, reporter=Reporter())
    lines = Lines(out / "metrics.jsonl", first - 1 if first > 1 else -1, tell=told.line)
    timings = Lines(out / "timings.jsonl", first - 1 if first > 1 else -1, tell=told.line)
    for step in range(first, last + 1):
        lines.write({"step": step, **LOSS, "loss": scale * step})
        timings.write({"step": step, **SPEED})
        if step % 2 == 0:
            lines.write({"step": step, "tokens": 64, "valid_loss": scale * step + 0.5})
            told.text(step, "sample", f"text at {step}")
    lines.close()
    timings.close()
    return told


def test_a_step_is_told_once_with_all_its_numbers(tmp_path: Path, recorded: list[Recorded]) -> None:
    run_steps(tmp_path, ("wandb",), 1, 3).close()
    (seen,) = recorded
    assert [step for step, _ in seen.values] == [1, 2, 3]
    assert set(seen.values[0][1]) == {
        "train/loss", "train/lr", "train/grad_norm", "train/tokens", "speed/mfu",
    }  # fmt: skip
    assert seen.values[1][1]["valid/loss"] == 2.5 and seen.values[1][1]["train/loss"] == 2.0
    assert seen.texts == [(2, "sample", "text at 2")] and seen.closed
    assert seen.session.name == tmp_path.name and seen.session.settings == {"lr": 1e-3}


def test_steps_before_a_kill_are_not_told_twice(tmp_path: Path, recorded: list[Recorded]) -> None:
    """Killed after step 7, gone on from the checkpoint at step 4."""
    run_steps(tmp_path, ("wandb",), 1, 7)._send()
    run_steps(tmp_path, ("wandb",), 5, 9).close()
    before, after = recorded
    assert [step for step, _ in before.values + after.values] == list(range(1, 10))
    assert [step for step, _, _ in before.texts + after.texts] == [2, 4, 6, 8]
    assert before.session.id == after.session.id and after.session.step == 4


def test_a_tracker_that_joins_late_is_told_from_there_on(
    tmp_path: Path, recorded: list[Recorded]
) -> None:
    run_steps(tmp_path, (), 1, 7)
    run_steps(tmp_path, ("wandb",), 5, 9).close()
    assert [step for step, _ in recorded[0].values] == [5, 6, 7, 8, 9]


def test_fast_steps_are_told_once_a_second_and_held_out_losses_always(
    tmp_path: Path, recorded: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "STEP_SECONDS", 1000.0)
    run_steps(tmp_path, ("wandb",), 1, 9).close()
    assert [step for step, _ in recorded[0].values] == [1, 2, 4, 6, 8, 9]  # and the last


@pytest.mark.parametrize("method", ["open", "log", "text", "close"])
def test_a_tracker_that_fails_is_told_no_more_and_training_goes_on(
    tmp_path: Path,
    recorded: list[Recorded],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    def fail(*args: Any) -> None:
        raise ConnectionError("no network\nsecond line")

    def failing(session: Session) -> Recorded:
        if method == "open":
            fail()
        made = Recorded(session)
        setattr(made, method, fail)
        return made

    monkeypatch.setitem(TRACKERS, "trackio", failing)
    run_steps(tmp_path, ("trackio", "wandb"), 1, 6).close()
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "trackio failed (ConnectionError: no network) and is told no more" in said.err
    assert [step for step, _ in recorded[0].values] == [1, 2, 3, 4, 5, 6]  # the other one goes on
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 9


def test_what_is_no_number_is_text(tmp_path: Path, recorded: list[Recorded]) -> None:
    told = Trackers(("wandb",)).open(tmp_path, {}, step=0, reporter=Reporter())
    told.line({"step": 3, "loss": float("nan"), "skipped": {"why": "loss nan"}, "note": "odd"})
    told.close()
    assert recorded[0].texts == [(3, "skipped", '{"why": "loss nan"}'), (3, "note", "odd")]


def test_without_names_nothing_is_made(tmp_path: Path) -> None:
    NO_TRACKERS.open(tmp_path, {}, step=0, reporter=Reporter()).line({"step": 1, "loss": 1.0})
    NO_TRACKERS.close()
    assert list(tmp_path.iterdir()) == []


def test_another_process_speaks_for_this_one(tmp_path: Path, recorded: list[Recorded]) -> None:
    reporter = Reporter()
    reporter.speaks = False
    Trackers(("wandb",)).open(tmp_path, {}, step=0, reporter=reporter).close()
    assert recorded == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"id": "x"}'])
def test_a_damaged_record_is_begun_anew(
    tmp_path: Path, recorded: list[Recorded], content: str
) -> None:
    (tmp_path / "trackers").mkdir()
    (tmp_path / "trackers/runs.json").write_text(content)
    run_steps(tmp_path, ("wandb",), 1, 2).close()
    assert json.loads((tmp_path / "trackers/runs.json").read_text())["told"] == ["wandb"]


def test_unknown_and_missing_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown tracker 'mlflow'") as refused:
        Trackers(("mlflow",))
    assert "tensorboard, trackio, wandb" in str(refused.value.remedy)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb is not installed"):
        Trackers(("wandb",))


def test_importing_it_loads_none_of_them() -> None:
    code = (
        "import sys, gptwo.training.trackers;"
        "print({'torch', 'tensorboard', 'wandb', 'trackio'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


@pytest.mark.skipif(not find_spec("tensorboard"), reason="tensorboard is not installed")
def test_tensorboard_files_by_its_own_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps that were made again are there once, with the later value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr(trackers, "STEP_SECONDS", 0.0)
    folder = str(tmp_path / "trackers/tensorboard")
    killed = run_steps(tmp_path, ("tensorboard",), 1, 7)
    events = EventAccumulator(folder)
    events.Reload()  # as a kill now would leave it
    assert [event.step for event in events.Tensors("sample/text_summary")] == [2, 4, 6]
    killed.close()
    run_steps(tmp_path, ("tensorboard",), 5, 9, scale=10.0).close()
    events = EventAccumulator(folder)
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 50), (6, 60), (7, 70), (8, 80), (9, 90)]
    assert [event.step for event in events.Scalars("valid/loss")] == [2, 4, 6, 8]
    assert {"settings/text_summary", "sample/text_summary"} <= set(events.Tags()["tensors"])
    samples = events.Tensors("sample/text_summary")
    assert [event.step for event in samples] == [2, 4, 6, 8]
    assert samples[-1].tensor_proto.string_val[0] == b"text at 8"


def wandb_records(path: Path) -> Iterator[bytes]:
    """Records of a .wandb file: LevelDB's log, after a header of 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        room = BLOCK - place % BLOCK
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


@pytest.mark.skipif(not find_spec("wandb"), reason="wandb is not installed")
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(trackers, "STEP_SECONDS", 0.0)
    run_steps(tmp_path, ("wandb",), 1, 7).close()
    run_steps(tmp_path, ("wandb",), 5, 9).close()
    files = sorted((tmp_path / "trackers/wandb").rglob("*.wandb"))
    run_id = json.loads((tmp_path / "trackers/runs.json").read_text())["id"]
    assert {file.name for file in files} == {f"run-{run_id}.wandb"}
    from wandb.proto import wandb_internal_pb2

    steps = []
    for data in (data for file in files for data in wandb_records(file)):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        steps += [int(items["_step"])] if "train/loss" in items else []
    assert steps == list(range(1, 10))


@pytest.mark.skipif(not find_spec("trackio"), reason="trackio is not installed")
def test_trackio_on_this_machine(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from gptwo.training import trackers;"
        "trackers.STEP_SECONDS = 0.0; from test_trackers import run_steps;"
        "out = Path(sys.argv[1]);"
        "run_steps(out, ('trackio',), 1, 7).close(); run_steps(out, ('trackio',), 5, 9).close()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={"TRACKIO_DIR": str(tmp_path / "trackio"), "PATH": "/usr/bin:/bin",
             "PYTHONPATH": ":".join([str(Path(__file__).parent), *sys.path])},
    )  # fmt: skip
    assert ran.stdout == ""
    with sqlite3.connect(tmp_path / "trackio/gptwo.db") as database:
        rows = database.execute("select step, metrics from metrics order by id").fetchall()
    losses = [step for step, text in rows if "train/loss" in json.loads(text)]
    assert losses == list(range(1, 10))


def test_a_run_that_is_continued_tells_each_step_once(
    tmp_path: Path, inputs: Inputs, recorded: list[Recorded], capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped by a failure at step 8, which is beyond the last checkpoint."""

    def fail(model: Any, step: int) -> None:
        if step == 8:
            raise RuntimeError("killed")

    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        train_small(out, inputs, trackers=Trackers(("wandb",)), at_validation=fail)
    train_small(out, inputs, trackers=Trackers(("wandb",)), reporter=Reporter())
    told = [step for seen in recorded for step, _ in seen.values]
    assert told == list(range(11))
    assert recorded[1].session.step > 0 and recorded[1].session.settings["model"]["n_layer"] == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("train: 10/10 steps ")
    for name in ("loss=", "valid=", "lr=", "tokens/s=", "mfu=", "memory="):
        assert name in line
    assert sorted(path.name for path in (out / "trackers").iterdir()) == ["runs.json"]
