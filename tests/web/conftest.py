"""Fixtures of the web room's tests."""

from collections.abc import Iterator

import pytest
from web_site import Site, serving


@pytest.fixture
def site() -> Iterator[Site]:
    """A loopback web without pages; every unknown page is a 404."""
    with serving() as made:
        yield made
