"""A small model that has learned nothing but predicts with conviction, and a tokenizer."""

from collections.abc import Iterator

import pytest
import torch
from small_text_model import Subject, subject


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more by sharing work than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small() -> Subject:
    return subject()
