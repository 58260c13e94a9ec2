"""Faults that come from outside, at the level of commands: stops, kills, full disks, other runs.

The rows are those of docs/faults.md; test_fault_inputs.py shows the ones that lie in files.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import tiny_arrow
from fault_runs import (
    TRAIN,
    Caller,
    end,
    files_of,
    files_up_to,
    one_core,
    spelt,
    start,
    wait_for,
)

from gptwo.artifacts import read_json, verify
from gptwo.cli import main
from gptwo.progress import Reporter
from gptwo.zeroshot.log import read_samples

TRAIN_24 = TRAIN + "--set training.steps=24 --set training.checkpoint_interval=2"
SHORT = TRAIN + "--set training.steps=2"
EVAL = (
    "eval {run} lastword heldout --out {out} --set documents=50 --set questions=9 "
    "--set resamples=5 --set token_budget=256"
)
COMMANDS = {
    "links": "links {run}/demoweb/links.jsonl --out {out}",
    "corpus": "corpus {run}/pages --out {out} --workers 1",
    "tokenizer": "tokenizer {run}/corpus --out {out} --set vocab_size=600",
    "pack": "pack {run}/corpus --tokenizer {run}/tokenizer --out {out}",
    "train": TRAIN + "--set training.steps=2 --set training.checkpoint_interval=1",
    "eval": "eval {run} cloze heldout --out {out} --set documents=2 --set resamples=5",
    "report": "report {run} --out {out}/page.html",
}


@pytest.fixture(scope="module", autouse=True)
def on_one_core() -> Iterator[None]:
    with one_core():
        yield


def made(command: str, run: Path, out: Path) -> dict[str, bytes]:
    """The files that a command makes when nothing disturbs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reporter, "listen", lambda self: None)
        assert main(spelt(command, run=run, out=out)) == 0
    return comparable(out)


def comparable(out: Path) -> dict[str, bytes]:
    """`files_of`, without the seconds of a result."""
    seconds = re.compile(rb'"seconds": [0-9.]+')
    return {name: seconds.sub(b"", content) for name, content in files_of(out).items()}


@pytest.fixture(scope="module")
def undisturbed(
    run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, bytes]]:
    """What a command makes when nothing disturbs it; made once."""
    known: dict[str, dict[str, bytes]] = {}
    folder = tmp_path_factory.mktemp("undisturbed")

    def files(command: str) -> dict[str, bytes]:
        if command not in known:
            known[command] = made(command, run, folder / str(len(known)))
        return known[command]

    return files


def stepping(out: Path) -> bool:
    return (out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(
        b"\n"
    ) > 5


def saving(out: Path) -> bool:
    return any((out / "checkpoints").glob(".step-*")) and stepping(out)


def evaluating(out: Path) -> bool:
    return (out / "heldout.samples.jsonl.zst").exists()


# Rows 1 and 2: stopped and killed


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, moment, command",
    [
        (signal.SIGTERM, stepping, TRAIN_24),
        (signal.SIGINT, saving, TRAIN_24),
        (signal.SIGKILL, saving, TRAIN_24),
        (signal.SIGTERM, evaluating, EVAL),
        (signal.SIGKILL, evaluating, EVAL),
    ],
)
def test_stopped_it_exits_75_and_goes_on_to_the_same_bytes(
    number: signal.Signals,
    moment: Callable[[Path], bool],
    command: str,
    run: Path,
    tmp_path: Path,
    undisturbed: Callable[[str], dict[str, bytes]],
) -> None:
    """Rows 1 and 2: a signal while training, saving, evaluating; SIGKILL leaves what was whole."""
    out = tmp_path / "out"
    process = start(spelt(command, run=run, out=out))
    wait_for(process, lambda: moment(out))
    process.send_signal(number)
    told = end(process)
    if number == signal.SIGKILL:
        assert told.code == -number
    else:
        told.is_error(75, "stopped on request", "run the same command again")
        assert not (out / ".lock").exists()
    if command == TRAIN_24:
        assert verify(out)["folders"] >= 1
        last = max((out / "checkpoints").glob("step-*"))
        lines = (out / "metrics.jsonl").read_text().splitlines()
        exact = json.loads(lines[-1])["step"] == read_json(last / "state.json")["step"]
        assert exact or number == signal.SIGKILL  # a stop commits the very last step
    else:
        finished = out / "lastword.json"
        stamp = finished.stat().st_mtime_ns
        assert len(read_samples(out / "heldout.samples.jsonl.zst")) in (0, 64)  # whole blocks
        assert not (out / "heldout.json").exists()
    assert made(command, run, out) == undisturbed(command)
    assert command != EVAL or finished.stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_a_second_signal_exits_at_once(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 1: the step under way is given up, the last commit is intact, its lock no obstacle."""
    out = tmp_path / "out"
    before = made(SHORT, run, out)
    accepted = ("steps", "batch_tokens", "micro_batch")
    words = spelt(SHORT, run=run, out=out)[:-1] + [
        word
        for name, value in zip(accepted, (3, 131_072, 4_096), strict=True)
        for word in (f"--set=training.{name}={value}", f"--accept-change=training.{name}")
    ]
    process = start(words)  # one step of one micro-batch, many seconds long
    assert process.stderr
    heard = ""
    for sign in ("going on from step 2", "stopping after the current step"):
        while sign not in heard:
            heard = process.stderr.readline()
            assert heard, process.wait()
        process.send_signal(signal.SIGTERM)
    assert end(process).code == 75
    assert (out / ".lock").exists() and not list(out.glob("checkpoints/*step-00000003"))
    there = {name: part for name, part in files_of(out).items() if "/.step-" not in name}
    assert there.keys() == before.keys()  # a draft that was under way may lie beside them
    changed = {name for name, content in there.items() if before[name] != content}
    assert changed == {"training.json"} and verify(out)["folders"] == 1
    again = [f"--accept-change=training.{name}" for name in accepted]
    assert call(*spelt(SHORT, run=run, out=out), *again).code == 0


def unread(pipe: IO[str]) -> int:
    """Bytes that lie in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_stopped_before_it_began(run: Path, tmp_path: Path) -> None:
    """Row 1: a signal before the work began, here while a prompt is read, exits 75."""
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start(["sample", str(run), "-"], stdin=subprocess.PIPE)
        assert process.stdin
        process.stdin.write("The")
        process.stdin.flush()
        wait_for(process, lambda pipe=process.stdin: unread(pipe) == 0)  # it waits for more
        process.send_signal(number)
        end(process).is_error(75, "run the")


# Rows 3 and 4: the disk is full


@pytest.mark.parametrize(
    "name, limit",
    [
        ("links", 200),
        ("links", 4_000),
        ("corpus", 400),
        ("corpus", 4_096),  # as much as its workers' shared memory takes, a file as well
        ("corpus", 30_000),
        ("tokenizer", 400),
        ("tokenizer", 10_000),
        ("pack", 200),
        ("pack", 100_000),
        ("train", 500),
        ("train", 9_000),
        ("train", 300_000),
        ("train", 700_000),  # the weights fit, the optimiser does not
        ("eval", 300),
        ("eval", 500),
        ("eval", 1_700),
        ("report", 50_000),
    ],
)
def test_a_full_disk(
    name: str,
    limit: int,
    run: Path,
    tmp_path: Path,
    call: Caller,
    undisturbed: Callable[[str], dict[str, bytes]],
) -> None:
    """Rows 3 and 4: exit 5, nothing half written is seen, the same command goes on from there."""
    out, command = tmp_path / "out", COMMANDS[name]
    words = spelt(command, run=run, out=out)
    with files_up_to(limit):  # the corpus' server of workers would keep the limit: not in here
        told = end(start(words)) if name == "corpus" else call(*words)
    told.is_error(5, "cannot write", "make room", str(out))
    whole = undisturbed(command)
    for file, content in comparable(out).items() if out.exists() else ():
        if file.endswith((".jsonl", ".jsonl.zst")):  # logs are appended to
            assert whole[file].startswith(content)
        elif not file.startswith(".work/"):
            assert whole[file] == content
    assert call(*words).code == 0
    assert comparable(out) == whole


def test_a_full_disk_late_in_a_run(run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 4: run.json, samples and the report of a whole run."""
    copy = tiny_arrow.copy_run(run, tmp_path / "run")
    shutil.rmtree(copy / "samples")
    (copy / "report.html").unlink()
    state = (copy / "run.json").read_bytes()
    with files_up_to(3_000):
        call(*tiny_arrow.arguments(copy)).is_error(5, f"cannot write {copy}/run.json")
    assert (copy / "run.json").read_bytes() == state
    with files_up_to(60_000):
        call(*tiny_arrow.arguments(copy)).is_error(5, f"cannot write {copy}/report.html")
    assert not list(copy.rglob("*.tmp-*")) and not (copy / "report.html").exists()
    told = call(*tiny_arrow.arguments(copy))
    assert told.code == 0 and told.result["stages"]["samples"] == "kept"
    assert tiny_arrow.content(copy) == tiny_arrow.content(run)


# Rows 9 and 11: other settings, other processes


@pytest.fixture(scope="module")
def begun(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that ended after two steps; not to be changed."""
    out = tmp_path_factory.mktemp("begun") / "out"
    made(SHORT, run, out)
    return out


@pytest.mark.parametrize(
    "name, value, change",
    [
        ("seed", 1, "0 -> 1"),
        ("batch_tokens", 512, "256 -> 512"),
        ("lr", 0.5, "0.004 -> 0.5"),
        ("warmup_steps", 1, "2 -> 1"),
        ("steps", 4, "2 -> 4"),
    ],
)
def test_a_changed_setting_is_refused_until_it_is_accepted(
    name: str, value: float, change: str, run: Path, begun: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 9: the difference is shown, the run untouched; --accept-change goes on."""
    out = Path(shutil.copytree(begun, tmp_path / "out"))
    before = files_of(out)
    steps = ["--set=training.steps=3", "--accept-change=training.steps"]
    words = [*spelt(SHORT, run=run, out=out), *steps, f"--set=training.{name}={value}"]
    accept = f"--accept-change=training.{name}"
    if name != "steps":
        call(*words).is_error(2, f"training.{name}: {change}", accept.replace("=", " "))
        call(*words, "--accept-change=training.clip").is_error(2, f"training.{name}: {change}")
    else:
        call(*words[:-2], words[-1]).is_error(2, f"training.steps: {change}")
    assert files_of(out) == before
    assert call(*words, accept).code == 0
    assert read_json(out / "training.json")["training"][name] == value


def test_other_data_are_refused_until_they_are_accepted(
    run: Path, begun: Path, tmp_path: Path, call: Caller
) -> None:
    """Row 9: other tokens of the same tokenizer."""
    other = tmp_path / "other"
    words = spelt(COMMANDS["pack"] + " --set shard_tokens=50000", run=run, out=other / "tokens")
    assert call(*words).code == 0
    shutil.copytree(run / "tokenizer", other / "tokenizer")
    out = Path(shutil.copytree(begun, tmp_path / "out"))
    words = spelt(SHORT, run=other, out=out)
    before = files_of(out)
    call(*words).is_error(2, "inputs.tokens: ", "--accept-change inputs.tokens")
    assert files_of(out) == before
    assert call(*words, "--accept-change=inputs.tokens").code == 0


@pytest.mark.slow
def test_two_runs_in_one_folder(
    run: Path, tmp_path: Path, call: Caller, undisturbed: Callable[[str], dict[str, bytes]]
) -> None:
    """Row 11: the second is refused with pid and host; a lock of a dead process is taken over."""
    out = tmp_path / "out"
    words = spelt(TRAIN_24, run=run, out=out)
    first = start(words)
    wait_for(first, lambda: stepping(out))
    first.send_signal(signal.SIGSTOP)  # however fast it is, it is still there
    try:
        told = call(*words)
        told.is_error(2, f"in use by process {first.pid} on {socket.gethostname()}", ".lock")
    finally:
        first.kill()
        end(first)
    assert (out / ".lock").exists()
    assert call(*words).code == 0 and comparable(out) == undisturbed(TRAIN_24)


@pytest.mark.parametrize("name", [*sorted(COMMANDS.keys() - {"report"}), "reproduce"])
def test_a_folder_in_use_is_left_alone(name: str, run: Path, tmp_path: Path, call: Caller) -> None:
    """Row 11: every command that makes a folder looks at its lock."""
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").write_text(json.dumps({"pid": os.getppid(), "host": socket.gethostname()}))
    if name == "reproduce":
        (out / "run.json").write_text("{}")
    words = tiny_arrow.arguments(out) if name == "reproduce" else None
    told = call(*(words or spelt(COMMANDS[name], run=run, out=out)))
    told.is_error(2, f"{out} is in use by process {os.getppid()}", "delete")


def test_the_page_of_faults_names_tests_that_exist() -> None:
    """docs/faults.md, and every row that must hold has its line."""
    tests = Path(__file__).parent
    page = (tests.parent / "docs/faults.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    assert len(named) > 25 and page.count("::") == len(named)
    for file, name in named:
        assert re.search(rf"^def {name}\(", (tests / file).read_text(encoding="utf-8"), re.M), name
    holding = page.split("## Rows that hold\n")[1].split("\n## ")[0]
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", holding, re.M)}
    assert rows >= {1, 2, 3, 4, 5, 6, 8, 9, 11, 18, 22, 29}
