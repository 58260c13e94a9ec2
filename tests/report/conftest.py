import shutil
from pathlib import Path

import pytest
from made_run import make_run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    return make_run(tmp_path_factory.mktemp("report") / "made")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "made"))


@pytest.fixture
def truth_facts() -> dict:
    """What `judge` may say."""
    return {
        "label": "synthetic web, real prose",
        "extraction_f1": 0.981,
        "pages_judged": 349,
        "dedup": {"precision": 1.0, "recall": 0.97, "pairs": 48},
        "kinds": [
            {"kind": "near-copy", "urls": 24, "left_as_expected": 23, "share": 0.958},
            {"kind": "robots", "urls": 8, "left_as_expected": 8, "share": 1.0},
        ],
    }
