"""Shared fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data named by GPTWO_DATA; without it the test is skipped."""
    folder = os.environ.get("GPTWO_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GPTWO_DATA does not name a folder of real data")
    return Path(folder).resolve()
