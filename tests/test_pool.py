"""The pool: deaths, errors, recycling."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gptwo.errors import DataError, Interrupted, ResourceError
from gptwo.pool import TASKS_PER_WORKER, Pool, Task
from gptwo.progress import SILENT, Reporter


def job(task: Task, config: str, at: Callable[[int], None]) -> None:
    """Ten documents; some inputs name the one that kills."""
    assert config == "settings"
    skip = dict(task.skip)
    for number in range(10):
        at(number)
        if number in skip:
            continue
        if task.input == number:
            os.kill(os.getpid(), signal.SIGSEGV)
        if task.input == "no memory":
            os._exit(9)
        if task.input == "bad":
            raise DataError("bad input", remedy="fix it")
        if task.input == "missing":
            Path("/nowhere/shard").read_bytes()
    task.output.write_text(f"{os.getpid()} {skip}")


def pool_of(workers: int, reporter: Reporter = SILENT) -> Pool:
    return Pool("settings", workers, reporter, preload="gptwo.pool")


def tasks(tmp_path: Path, inputs: list) -> list[Task]:
    return [Task(input=value, output=tmp_path / f"{i}") for i, value in enumerate(inputs)]


def test_a_killer_is_found_and_left_out(tmp_path: Path) -> None:
    with pool_of(2) as pool:
        pool.run("test", job, tasks(tmp_path, [None, 7, None, 0]))
    texts = [(tmp_path / str(i)).read_text().split(" ", 1)[1] for i in range(4)]
    assert texts == ["{}", "{7: 'SIGSEGV'}", "{}", "{0: 'SIGSEGV'}"]


def twice_over(task: Task, config: str, at: Callable[[int], None]) -> None:
    """Two passes over ten documents; then no document is being worked on, and it dies."""
    for number in [*range(10), *range(10), -1]:
        at(number)
    if task.deaths < 3:
        os.kill(os.getpid(), signal.SIGKILL)
    task.output.write_text(f"{task.deaths} {task.skip}")


def test_a_death_between_documents_is_no_documents_fault(tmp_path: Path) -> None:
    with pool_of(1) as pool:
        pool.run("test", twice_over, tasks(tmp_path, [None]))
    assert (tmp_path / "0").read_text() == "3 ()"


def test_two_passes_over_documents_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pool_of(2, Reporter()) as pool:
        pool.run("test", job, tasks(tmp_path, [None] * 5))
    assert capsys.readouterr().err.startswith("test: 50 documents ")


def test_workers_are_replaced_after_some_tasks(tmp_path: Path) -> None:
    n = 2 * TASKS_PER_WORKER + 1
    with pool_of(1) as pool:
        pool.run("test", job, tasks(tmp_path, [None] * n))
    workers = {(tmp_path / str(i)).read_text().split()[0] for i in range(n)}
    assert len(workers) == 3


def test_errors_come_home(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="bad input") as caught,
        pool_of(2) as pool,
    ):
        pool.run("test", job, tasks(tmp_path, [None, "bad", None]))
    assert caught.value.remedy == "fix it"


def test_a_missing_file_is_an_error_and_no_death(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere/shard"), pool_of(1) as pool:
        pool.run("test", job, tasks(tmp_path, ["missing"]))


def test_a_shard_that_keeps_killing_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="worker died"), pool_of(1) as pool:
        pool.run("test", job, tasks(tmp_path, ["no memory"]))


def test_finished_tasks_are_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("done before")
    with pool_of(1) as pool:
        pool.run("test", job, tasks(tmp_path, ["bad"]))
    assert (tmp_path / "0").read_text() == "done before"


def test_a_stop_is_heard_between_tasks(tmp_path: Path) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted), pool_of(1, reporter) as pool:
        pool.run("test", job, tasks(tmp_path, [None]))
