"""Shared fixtures."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fault_runs import Caller

# Some tests limit the size of files, as a full disk would: a compiled module written then would be
# cut, and broken for everything that comes after.
sys.dont_write_bytecode = True
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data named by GPTWO_DATA; without it the test is skipped."""
    folder = os.environ.get("GPTWO_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GPTWO_DATA does not name a folder of real data")
    return Path(folder).resolve()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models so small that they lose more by sharing work than they gain."""
    import torch  # late: most tests need none

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    from fault_runs import tiny_run

    return tiny_run(tmp_path_factory).run


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> "Caller":
    """Runs commands in this process."""
    from fault_runs import Caller

    from gptwo.progress import Reporter

    monkeypatch.setattr(Reporter, "listen", lambda self: None)  # the test runner keeps its Ctrl-C
    return Caller(capfd)
