import pytest
from small_run import Inputs, make_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Tokens and a tokenizer of a small corpus."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), seed=1)
