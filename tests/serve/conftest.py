"""One server for the tests of a module that do not change it."""

from collections.abc import Iterator

import pytest
from small_server import Server, serving


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """The models here are small."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("model")) as found:
        yield found
