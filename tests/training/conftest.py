import pytest
from small_run import Inputs, make_inputs

from gptwo.training import loop


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Tokens and a tokenizer of a small corpus."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), seed=1)


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not measure the machine in every test."""
    monkeypatch.setattr(loop, "matrix_rate", lambda device, precision: 1e11)
